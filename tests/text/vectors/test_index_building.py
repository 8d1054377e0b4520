"""How an index is built: what is refused, what is trained, on which device, and what of it is in memory."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_indexes import DOCUMENTS, ENCODER, VECTORS, build, names, random_vectors

from retrieval_prompts.data.corpus import Corpus
from retrieval_prompts.errors import UserError
from retrieval_prompts.vectors import faiss_index
from retrieval_prompts.vectors.index import Index

# --- build --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factory": "Nonsense"}, "cannot build the index 'Nonsense' on vectors of dimension 2: could not parse index"),
        (
            {"factory": "IVF64,Flat"},
            "IVF64,Flat needs at least 64 vectors to train on, 2,496 to train well, got 4; use Flat",
        ),
        (
            {"factory": "Fl\u00e4t"},
            "cannot build the index 'Flät': such strings are of ASCII letters; write Flat or HN",
        ),
        ({"factory": "IVF0,Flat"}, "cannot build the index 'IVF0,Flat': it has no lists; write IVF256 for instance"),
        ({"ef_construction": 40}, "an index of type Flat has no ef_construction; leave it out"),
        ({"factory": "PQ3"}, "cannot build the index 'PQ3' on vectors of dimension 2: "),
        ({"vectors": VECTORS[:0], "ids": [], "documents": None}, "there are no vectors to index"),
        ({"vectors": iter([]), "ids": [], "documents": None}, "there are no vectors to index"),
        ({"vectors": VECTORS[:3]}, "one id for each vector, got 3 vectors and 4 ids"),
        ({"vectors": iter([VECTORS, VECTORS])}, "one id for each vector, got 8 vectors and 4 ids"),
        ({"vectors": iter([VECTORS, VECTORS[:, :1]])}, "vectors of one dimension, got 2 and then 1"),
        ({"vectors": np.ones(4)}, r"expected vectors of shape \(count, dimension\), got \(4,\)"),
        ({"vectors": np.full((4, 2), np.inf)}, "expected finite vectors, got NaN or infinity in 4 of them"),
        ({"ids": ["d0", "d1", "d2", "d0"], "documents": None}, "expected unique document ids, got 1 repeated ones"),
        ({"documents": DOCUMENTS[::-1]}, "documents in the order of the ids, got 'd3' for 'd0' at 0"),
        ({"documents": DOCUMENTS[:3]}, "one document for each id, got 3 documents and 4 ids"),
    ],
)
def test_bad_builds(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(**options)
    assert "\n" not in str(caught.value)
    assert "faiss::" not in str(caught.value)


class Blocks:
    """Vectors in blocks that can be read at positions, as encode.VectorBlocks; remembers which were."""

    def __init__(self, vectors: np.ndarray, block: int = 300) -> None:
        self.vectors, self.block = vectors, block
        self.read: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.vectors)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.vectors[start : start + self.block] for start in range(0, len(self), self.block))

    def rows(self, positions: np.ndarray) -> np.ndarray:
        self.read.append(positions)
        return self.vectors[positions]


def test_a_sample_is_spread_evenly_over_blocks_that_can_be_read_at_positions(tmp_path: Path) -> None:
    vectors = random_vectors(1000)
    vectors[:500] = vectors[0]  # a sample of the first ones would know one vector
    blocks = Blocks(vectors)
    index = build(blocks, None, names(1000), factory="IVF8,Flat", train_size=400)
    (read,) = blocks.read
    assert (len(read), read[0], read[-1]) == (400, 0, 999) and set(np.diff(read)) == {2, 3}
    assert index.manifest["build"] == {**index.manifest["build"], "train_size": 400, "lists": 8, "block": 300}
    whole = build(vectors, None, names(1000), factory="IVF8,Flat", train_size=400)
    first = build(iter(blocks), None, names(1000), factory="IVF8,Flat", train_size=400)
    for name, each in {"blocks": index, "whole": whole, "first": first}.items():
        each.save(tmp_path / name)
    content = {name: (tmp_path / name / "index.faiss").read_bytes() for name in ("blocks", "whole", "first")}
    assert content["blocks"] == content["whole"] != content["first"]


@pytest.mark.parametrize("factory", ["SQ8", "IVF8,PQ8x4fs", "IVF8,RaBitQ", "HNSW8", "OPQ2_4,PQ2x4", "PCA8,IVF8,SQ8"])
def test_the_same_vectors_give_the_same_bytes(factory: str, tmp_path: Path) -> None:
    import faiss

    vectors = random_vectors(700)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        for name in ("one", "two"):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "OPQ2_4,PQ2x4 should be trained on 9,984 vectors")
                build(vectors, None, names(700), factory=factory).save(tmp_path / name)
    finally:
        faiss.omp_set_num_threads(threads)
    one, two = ((tmp_path / name / "index.faiss").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("IVF64,SQ8", r"IVF64,SQ8 should be trained on 2,496 vectors or more, got 300; IVF4,SQ8 would fit"),
        ("IVF2,PQ8x4fs", r"IVF2,PQ8x4fs should be trained on 624 vectors or more, got 300; Flat would fit"),
        ("OPQ2_4,Flat", r"OPQ2_4,Flat should be trained on 9,984 vectors or more, got 300; Flat would fit"),
        ("HNSW8,PQ2x4", r"HNSW8,PQ2x4 should be trained on 624 vectors or more, got 300; Flat would fit"),
    ],
)
def test_few_training_vectors_are_one_warning_of_ours_and_none_of_faiss(
    factory: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match=message) as caught:
        build(random_vectors(300), None, names(300), factory=factory)
    assert len(caught) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("IVF512,SQ8,RFlat", "IVF512,SQ8,RFlat needs at least 512 vectors .*, got 200; use IVF4,SQ8,RFlat"),
        ("PQ4", "PQ4 needs at least 256 vectors to train on, 9,984 to train well, got 200; use Flat"),
        ("PCA16,IVF2,PQ4", "PCA16,IVF2,PQ4 needs at least 256 vectors to train on"),
    ],
)
def test_too_few_training_vectors_name_what_fits(factory: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(random_vectors(200), None, names(200), factory=factory)


def test_a_projection_needs_as_many_vectors_as_it_keeps_dimensions() -> None:
    with pytest.raises(
        UserError, match="PCA12,Flat needs at least 12 vectors to train on, 12 to train well, got 9; use"
    ):
        build(random_vectors(9), None, names(9), factory="PCA12,Flat")


def test_more_candidates_scored_anew_find_more() -> None:
    vectors, queries = random_vectors(700), random_vectors(50, seed=1)
    exact = build(vectors, None, names(700)).search(queries, 5)[1]
    index = build(vectors, None, names(700), factory="PQ4x4fs,RFlat", train_size=700)

    def found(**parameters: int) -> int:
        return sum(
            len({*one} & {*other}) for one, other in zip(index.search(queries, 5, **parameters)[1], exact, strict=True)
        )

    assert found(k_factor=1) < found(k_factor=8) < found(k_factor=140) == 250


def test_ef_construction_reaches_the_graph() -> None:
    vectors = random_vectors(300)
    index = build(vectors, None, names(300), factory="HNSW8", ef_construction=5)
    assert index.vectors.hnsw.efConstruction == 5 == index.manifest["build"]["ef_construction"]


# --- the GPU ------------------------------------------------------------------------------------------------------


class OneGpu:
    """Makes the CPU build of FAISS look like one with a GPU whose indexes are clones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refuses: bool = False) -> None:
        import faiss

        self.done: list[str] = []

        def there(index: Any) -> Any:
            self.done.append("to GPU")
            if refuses:
                raise RuntimeError("Error in x at /a/GpuCloner.cpp:300: This index type is not implemented on GPU.")
            return faiss.clone_index(index)

        def back(index: Any) -> Any:
            self.done.append("to CPU")
            return faiss.clone_index(index)

        monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
        monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", there)
        monkeypatch.setattr(faiss, "index_gpu_to_cpu", back, raising=False)
        monkeypatch.setattr(faiss, "GpuParameterSpace", faiss.ParameterSpace, raising=False)


def test_with_a_gpu_the_index_is_trained_filled_and_searched_there_and_saved_for_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vectors = random_vectors(400)
    expected = build(vectors, None, names(400), factory="IVF4,Flat").search(vectors[:9], 3, nprobe=2)
    gpu = OneGpu(monkeypatch)
    index = build(vectors, None, names(400), factory="IVF4,Flat")
    assert index.gpu and index.manifest["build"]["gpu"] and gpu.done == ["to GPU"]
    assert index.search(vectors[:9], 3, nprobe=2)[1] == expected[1]
    index.save(tmp_path / "index")
    assert gpu.done == ["to GPU", "to CPU"]
    assert not Index.open(tmp_path / "index").gpu and len(gpu.done) == 2
    opened = Index.open(tmp_path / "index", gpu=True)
    assert opened.gpu and gpu.done[2:] == ["to GPU"]
    assert opened.search(vectors[:9], 3, nprobe=2)[1] == expected[1]
    assert not build(vectors, None, names(400), gpu=False).gpu


def test_a_type_that_gpus_lack_stays_on_the_cpu_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = OneGpu(monkeypatch, refuses=True)
    vectors = random_vectors(100)
    with pytest.warns(UserWarning, match=r"^HNSW8 stays on the CPU, .*: This index type is not implemented on GPU\.$"):
        index = build(vectors, None, names(100), factory="HNSW8")
    assert gpu.done == ["to GPU"] and not index.gpu and not index.manifest["build"]["gpu"]
    assert index.search(vectors[:1], 1)[1] == [["d0"]]


@pytest.mark.parametrize("factory", ["Flat", "SQfp16", "SQ8", "HNSW8", "IVF4,Flat", "PCA8,Flat"])
def test_an_index_that_is_written_block_by_block_is_the_one_that_is_saved(factory: str, tmp_path: Path) -> None:
    lines = [json.dumps({"_id": id, "text": f"text of {id}"}) for id in names(640)]
    (tmp_path / "corpus.jsonl").write_text("".join(f"{line}\n" for line in lines))
    corpus, vectors = Corpus.open(tmp_path / "corpus.jsonl"), random_vectors(640)
    build(vectors, corpus, corpus.ids, factory=factory).save(tmp_path / "saved")
    blocks = (vectors[start : start + 100] for start in range(0, 640, 100))
    written = Index.write(tmp_path / "written", vectors, corpus, encoder=ENCODER, factory=factory)
    assert written.search(vectors[:3], 5)[1] == Index.open(tmp_path / "saved").search(vectors[:3], 5)[1]
    for path in (tmp_path / "saved").iterdir():
        assert (tmp_path / "written" / path.name).read_bytes() == path.read_bytes(), path.name
    assert (written.manifest, len(written)) == (Index.open(tmp_path / "written").manifest, 640)
    if factory in ("Flat", "SQfp16"):
        Index.write(tmp_path / "written", blocks, corpus, encoder=ENCODER, factory=factory, overwrite=True)
        assert (tmp_path / "written" / "index.faiss").read_bytes() == (tmp_path / "saved" / "index.faiss").read_bytes()


@pytest.mark.parametrize("factory", ["Flat", "SQ8"])
def test_flat_vectors_and_codes_are_never_all_in_memory(
    factory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    kind: Any = faiss.IndexFlat if factory == "Flat" else faiss.IndexScalarQuantizer
    added = kind.add

    def few(index: Any, vectors: np.ndarray) -> None:
        assert len(vectors) <= 3, "the vectors are in memory"
        added(index, vectors)

    monkeypatch.setattr(kind, "add", few)
    faiss_index.write(tmp_path / "index.faiss", random_vectors(64), factory)
    assert faiss.read_index(str(tmp_path / "index.faiss")).ntotal == 64
    with pytest.raises(AssertionError, match="are in memory"):
        faiss_index.build(random_vectors(64), factory)
