"""Small indexes whose best documents are known: searched, saved, opened, damaged."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval_prompts.data.corpus import Corpus, Document
from retrieval_prompts.data.id_list import Ids
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import digest, of_blocks, sealed
from retrieval_prompts.vectors import faiss_index, index_files, libraries
from retrieval_prompts.vectors.index import Index

ENCODER = {"model": "toy", "fingerprint": "f" * 64, "document_prompt": None}
IDS = ["d0", "d1", "d2", "d3"]
VECTORS = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], dtype=np.float32)
DOCUMENTS = [Document(id, f"title {id}", f"tëxt\nof {id}") for id in IDS]


def build(vectors: Any = VECTORS, documents: Any = DOCUMENTS, ids: Any = IDS, **options: Any) -> Index:
    return Index.build(vectors, documents, ids, **{"encoder": ENCODER, **options})


def random_vectors(count: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def names(count: int) -> list[str]:
    return [f"d{i}" for i in range(count)]


# --- search -------------------------------------------------------------------------------------------------------


def test_search_by_hand() -> None:
    scores, ids = build().search(np.array([[1, 0], [0, 2]], dtype=np.float32), 3)
    assert ids == [["d0", "d2", "d1"], ["d1", "d2", "d0"]]  # d0 and d3 are equal: the first one
    assert scores == pytest.approx(np.array([[1, 0.6, 0], [2, 1.6, 0]]))
    assert scores.dtype == np.float32


def test_k_beyond_the_corpus_gives_the_whole_corpus() -> None:
    scores, ids = build().search(VECTORS[:1], 100)
    assert scores.shape == (1, 4)
    assert ids == [["d0", "d2", "d1", "d3"]]


def test_equal_scores_are_in_the_order_of_the_index() -> None:
    index = build(np.ones((50, 3)), None, names(50))
    for queries in (1, 30):  # FAISS takes another way from 20 queries on
        for k in (1, 7, 50):
            assert index.search(np.ones((queries, 3)), k)[1] == [names(k)] * queries


def test_run_is_search_in_blocks() -> None:
    vectors, queries = random_vectors(40), random_vectors(7, seed=1)
    index = build(vectors, None, names(40))
    run = index.run([f"q{i}" for i in range(7)], queries, 5, block=3)
    exact = queries @ vectors.T
    assert list(run) == [f"q{i}" for i in range(7)]
    for i, scores in enumerate(run.values()):
        best = np.argsort(-exact[i])[:5]
        assert list(scores) == [f"d{j}" for j in best]
        assert list(scores.values()) == pytest.approx(exact[i, best], abs=1e-6)
        assert all(type(score) is float for score in scores.values())
    assert index.run([], queries[:0], 5) == {}


def test_vectors_may_be_a_memory_map_half_precision_or_blocks(tmp_path: Path) -> None:
    vectors, queries = random_vectors(40), random_vectors(3, seed=1)
    expected = build(vectors, None, names(40)).search(queries, 10)
    np.save(tmp_path / "vectors.npy", vectors)
    for same in (
        np.load(tmp_path / "vectors.npy", mmap_mode="r"),
        vectors.astype(np.float64),
        np.asfortranarray(vectors),
        iter([vectors[:7], vectors[7:7], vectors[7:39], vectors[39:]]),
    ):
        scores, ids = build(same, None, names(40)).search(queries, 10)
        assert ids == expected[1]
        assert np.array_equal(scores, expected[0])
    half = vectors.astype(np.float16)
    assert build(half, None, names(40)).search(half[:3], 1)[1] == [["d0"], ["d1"], ["d2"]]


@pytest.mark.parametrize(
    "factory",
    [
        *("SQfp16", "SQ8", "HNSW8", "IVF4,Flat", "IVF4,SQ8", "RR16,Flat", "PCA16,Flat", "HNSW8,SQ8", "IVF4_HNSW8,Flat"),
        *("IVF4,SQ8,RFlat", "PQ8x4fs,RFlat", "IVF4,PQ8x4fs,RFlat", "RaBitQ,RFlat", "IVF4,RaBitQ,RFlat"),
    ],
)
def test_approximate_indexes_find_the_document_itself(factory: str, tmp_path: Path) -> None:
    vectors = random_vectors(400)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* should be trained on 624 vectors or more")
        blocks = (vectors[i : i + 90] for i in range(0, 400, 90))
        index = build(blocks, None, names(400), factory=factory, train_size=200)
    index.save(tmp_path / "index")
    for mmap in (True, False):
        opened = Index.open(tmp_path / "index", mmap=mmap)
        scores, ids = opened.search(vectors[::20], 5)
        assert [row[0] for row in ids] == names(400)[::20]
        assert (np.diff(scores, axis=1) <= 0).all()
        assert np.array_equal(scores, index.search(vectors[::20], 5)[0])


def test_rows_that_an_approximate_index_cannot_fill_are_shorter() -> None:
    vectors = np.repeat(np.eye(4, dtype=np.float32), [10, 10, 10, 3], axis=0)
    with pytest.warns(UserWarning, match="IVF4,Flat should be trained on 156 vectors or more, got 33; Flat would fit"):
        index = build(vectors, None, names(33), factory="IVF4,Flat")
    scores, ids = index.search(np.eye(4)[3:], 5, nprobe=1)
    assert ids == [["d30", "d31", "d32"]]
    assert scores.tolist() == [[1, 1, 1, -np.inf, -np.inf]]
    assert index.run(["q"], np.eye(4)[3:], 5, nprobe=1) == {"q": {"d30": 1, "d31": 1, "d32": 1}}
    assert len(index.search(np.eye(4)[3:], 5)[1][0]) == 5  # nprobe is not left over from the last search


def test_search_parameters_belong_to_their_kind_of_index() -> None:
    vectors = random_vectors(100)
    assert len(build(vectors, None, names(100), factory="HNSW8").search(vectors[:2], 3, ef_search=200)[1]) == 2
    flat = build(vectors, None, names(100))
    with pytest.raises(UserError, match="an index of type Flat has no nprobe; leave it out"):
        flat.search(vectors[:1], 3, nprobe=4)
    with pytest.raises(UserError, match="an index of type Flat has no ef_search; leave it out"):
        flat.search(vectors[:1], 3, ef_search=4)
    with pytest.raises(UserError, match="an index of type Flat has no k_factor; leave it out"):
        flat.search(vectors[:1], 3, k_factor=4)
    lists = build(vectors, None, names(100), factory="IVF2,Flat")
    with pytest.raises(UserError, match="nprobe must be at least 1, got 0"):
        lists.search(vectors[:1], 3, nprobe=0)


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (np.ones((1, 3)), 1, "expected query vectors of dimension 2, which the index has, got 3"),
        (np.ones((1, 1, 2)), 1, r"expected queries of shape \(count, dimension\), got \(1, 1, 2\)"),
        (np.array([[0, np.nan], [0, 0]]), 1, "expected finite queries, got NaN or infinity in 1 of them"),
        (np.ones((1, 2)), 0, "k must be at least 1, got 0"),
    ],
)
def test_bad_searches(queries: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build().search(queries, k)


def test_one_vector_is_as_a_row_of_one() -> None:
    scores, ids = build().search(VECTORS[0], 2)
    rows, names = build().search(VECTORS[:1], 2)
    assert np.array_equal(scores, rows)
    assert ids == names


def test_run_needs_a_vector_for_each_query() -> None:
    with pytest.raises(UserError, match="one vector for each query, got 1 ids and 4 vectors"):
        build().run(["q"], VECTORS, 1)


def corpus_of_chunks(place: Path) -> Corpus:
    about = [{"document": "a", "source": "\\ud800.pdf"}, {"document": "b"}, {"document": "a"}, {"document": "d3"}]
    rows = [
        {"_id": id, "title": "", "text": id, "metadata": each}
        for id, each in zip(("a#1", "b", "a#2", "d"), about, strict=True)
    ]
    place.write_text("".join(json.dumps(row).replace("\\\\", "\\") + "\n" for row in rows))
    return Corpus.open(place)


def test_chunks_and_their_documents_are_the_same_in_an_index_that_was_saved(tmp_path: Path) -> None:
    corpus = corpus_of_chunks(tmp_path / "corpus.jsonl")
    index = build(VECTORS, corpus, corpus.ids)
    index.save(tmp_path / "index")
    opened = Index.open(tmp_path / "index")
    assert opened.first_of == index.first_of == {"a": "a#1", "a#2": "a#1", "d3": "d"}
    ranked = opened.rank(["a", "d3", "b"], VECTORS[:3], 4)
    assert ranked == index.rank(["a", "d3", "b"], VECTORS[:3], 4)
    assert [list(found) for found in ranked.values()] == [["b", "d"], ["b", "a#1"], ["a#1", "d"]]
    assert opened.document("a#1").source == "\\ud800.pdf"


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


# --- save and open ------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    path = tmp_path / "corpus.jsonl"
    rows = ({"_id": d.id, "text": d.text, "title": d.title, "url": "x"} for d in DOCUMENTS)
    path.write_text("\n\n".join(map(json.dumps, rows)))
    return Corpus.open(path)


def test_a_type_that_faiss_cannot_map_is_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    build().save(tmp_path / "index")
    read, flags = faiss.read_index, []

    def refuse(path: str, flag: int = 0) -> Any:
        flags.append(flag)
        if flag:
            raise RuntimeError("mmap is not supported for this type")
        return read(path)

    monkeypatch.setattr(faiss, "read_index", refuse)
    assert Index.open(tmp_path / "index").search(VECTORS[:1], 1)[1] == [["d0"]]
    assert flags == [0, faiss.IO_FLAG_MMAP_IFC]


@pytest.mark.parametrize("mmap", [True, False])
def test_round_trip(tmp_path: Path, corpus: Corpus, mmap: bool) -> None:
    built = build(documents=corpus, ids=corpus.ids)
    assert built.document("d2") == DOCUMENTS[2]
    built.save(tmp_path / "index")
    corpus.path.unlink()  # the index does not need its source

    opened = Index.open(tmp_path / "index", mmap=mmap)
    assert len(opened) == 4
    assert [opened.document(id) for id in reversed(IDS)] == DOCUMENTS[::-1]
    assert opened.search(VECTORS, 4)[1] == built.search(VECTORS, 4)[1]
    assert opened.manifest == built.manifest
    assert isinstance(opened.documents, Corpus) and list(opened.documents) == DOCUMENTS
    assert opened.documents.fingerprint == corpus.fingerprint == opened.manifest["documents"]
    assert Corpus.open(tmp_path / "index" / "documents.jsonl").fingerprint == corpus.fingerprint
    with pytest.raises(UserError, match="the index has no document 'x'"):
        opened.document("x")

    opened.save(tmp_path / "copy")
    assert [path.name for path in sorted((tmp_path / "copy").iterdir())] == [
        "documents.jsonl",
        "ids.json",
        "ids.npy",
        "index.faiss",
        "lines.npy",
        "manifest.json",
        "offsets.npy",
    ]
    for path in (tmp_path / "copy").iterdir():
        assert path.read_bytes() == (tmp_path / "index" / path.name).read_bytes()


def test_manifest(tmp_path: Path) -> None:
    import faiss

    encoder = {**ENCODER, "document_prompt": "abc", "pooling": "mean"}
    build(encoder=encoder).save(tmp_path / "index")
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert manifest.pop("created_with").startswith("retrieval-prompts")
    assert {"torch", "transformers", "tokenizers", "sentence-transformers"} <= manifest.pop("libraries").keys()
    assert len(manifest.pop("ids")) == len(manifest.pop("documents")) == 64
    assert manifest.pop("digests") == {}  # of folders beside it
    files = {"index.faiss", "ids.json", "ids.npy", "documents.jsonl", "offsets.npy", "lines.npy"}
    assert manifest.pop("files").keys() == files
    blocks = manifest.pop("blocks")
    assert blocks.keys() == files
    assert blocks["index.faiss"] == [digest(tmp_path / "index" / "index.faiss")]
    assert len(manifest.pop("sha256")) == 64
    assert manifest == {
        "format": 1,
        "factory": "Flat",
        "metric": "inner_product",
        "count": 4,
        "dimension": 2,
        "encoder": encoder,
        "build": {
            "train_size": 0,
            "seed": None,
            "lists": None,
            "ef_construction": None,
            "block": 4,
            "threads": faiss.omp_get_max_threads(),
            "gpu": False,
            "faiss": faiss.__version__,
        },
    }


def test_an_index_without_documents(tmp_path: Path) -> None:
    build(documents=None).save(tmp_path / "index")
    opened = Index.open(tmp_path / "index")
    assert opened.search(VECTORS[:1], 1)[1] == [["d0"]]
    assert not (tmp_path / "index" / "documents.jsonl").exists()
    with pytest.raises(UserError, match="built without documents; index again with them"):
        opened.document("d0")


def test_an_iterable_of_documents_is_kept(tmp_path: Path) -> None:
    index = build(documents=iter(DOCUMENTS))
    assert index.document("d1") == DOCUMENTS[1]


def test_an_index_of_an_unknown_encoder_can_be_searched_but_not_kept(tmp_path: Path) -> None:
    index = build(encoder={})
    assert index.search(VECTORS[:1], 1)[1] == [["d0"]]
    with pytest.raises(UserError, match="must know its encoder: build it with encoder="):
        index.save(tmp_path / "index")
    with pytest.raises(UserError, match="made by another document encoder: a model"):
        index.check_encoder(ENCODER)
    assert not list(tmp_path.iterdir())


def test_save_overwrites_only_when_told_to_even_the_folder_it_was_opened_from(tmp_path: Path) -> None:
    build().save(tmp_path / "index")
    opened = Index.open(tmp_path / "index")
    with pytest.raises(UserError, match="exists already; choose another name or pass --overwrite"):
        opened.save(tmp_path / "index")
    opened.save(tmp_path / "index", overwrite=True)
    assert opened.search(VECTORS, 4)[1] == Index.open(tmp_path / "index").search(VECTORS, 4)[1]
    assert opened.document("d3") == DOCUMENTS[3]
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def edit_manifest(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "manifest.json"
        fields = json.loads(path.read_text())
        del fields["sha256"]  # as in an older index: what is garbled is found by itself too
        path.write_text(json.dumps({**fields, **changes}))

    return edit


def hostile(name: str, content: bytes) -> Callable[[Path], None]:
    """Exchange a file, with checksums that fit."""

    def exchange(folder: Path) -> None:
        (folder / name).write_bytes(content)
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").write_text(json.dumps(sealed(manifest | index_files.described(folder))))

    return exchange


def array(content: bytes, kind: str, shape: str = "(1,)") -> bytes:
    """A file in numpy's format."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def exchange_ids(folder: Path) -> None:
    (folder / "ids.json").write_text(json.dumps(["d1", "d0", "d2", "d3"]))


def other_vectors(folder: Path) -> None:
    """A sound FAISS file of the right size, with one vector of 8 numbers where there were 4 of 2."""
    import faiss

    index = faiss.IndexFlatIP(8)
    index.add(np.ones((1, 8), dtype=np.float32))
    faiss.write_index(index, str(folder / "index.faiss"))


def flip(path: Path, at: bytes | None = None) -> None:
    """One bit, of the last byte or where `at` begins."""
    content = bytearray(path.read_bytes())
    content[-1 if at is None else content.index(at)] ^= 1
    path.write_bytes(bytes(content))


def older(damage: Callable[[Path], None]) -> Callable[[Path], None]:
    """Damage of an index that has no checksums of its vectors."""

    def both(folder: Path) -> None:
        edit_manifest(blocks={})(folder)
        damage(folder)

    return both


def linked(folder: Path) -> None:
    (folder / "index.faiss").rename(folder.parent / "elsewhere")
    (folder / "index.faiss").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), "is not an index folder: it has no manifest.json"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is not valid JSON"),
        (lambda f: (f / "manifest.json").write_text("[]"), "its manifest.json has no format number"),
        (edit_manifest(format=2), "has index format 2, this version reads 1; index again"),
        (
            edit_manifest(count=3),
            r"is damaged, index again: \(4, 2\) vectors and 4 ids where the manifest says \(3, 2\)",
        ),
        (edit_manifest(dimension=8), "is damaged, index again"),
        (edit_manifest(encoder={}), "is damaged, index again: manifest.json has no 'fingerprint'"),
        (edit_manifest(encoder={"fingerprint": ""}), "is damaged, index again: no fingerprint of the encoder"),
        (edit_manifest(files=None), "is damaged, index again"),
        (lambda f: (f / "index.faiss").unlink(), "is damaged, index again: .*No such file.*index.faiss"),
        (lambda f: (f / "documents.jsonl").unlink(), "is damaged, index again: .*documents.jsonl"),
        (lambda f: (f / "offsets.npy").write_bytes(b""), "offsets.npy has 0 bytes instead of"),
        (lambda f: (f / "offsets.npy").write_bytes(bytes(160)), "is damaged, index again: "),
        (
            lambda f: (f / "index.faiss").write_bytes((f / "index.faiss").read_bytes()[:-1]),
            "index.faiss has .* instead of",
        ),
        (
            lambda f: (f / "index.faiss").write_bytes(bytes((f / "index.faiss").stat().st_size)),
            "is damaged, index again",
        ),
        (other_vectors, r"is damaged, index again: index\.faiss was changed"),
        (older(other_vectors), r"\(1, 8\) vectors and 4 ids where the manifest says \(4, 2\)"),
        (lambda f: flip(f / "manifest.json", b"toy"), r"manifest\.json was changed after it was written \(its sha256"),
        (lambda f: flip(f / "offsets.npy"), r"is damaged, index again: offsets\.npy was changed"),
        (lambda f: flip(f / "lines.npy"), r"is damaged, index again: lines\.npy was changed"),
        (lambda f: flip(f / "index.faiss"), r"is damaged, index again: index\.faiss was changed"),
        (edit_manifest(files={"../../etc/passwd": 1}), "names the file '../../etc/passwd', which lies outside it"),
        (edit_manifest(files={"/etc/passwd": 1}), "names the file '/etc/passwd', which lies outside it"),
        (linked, r"index\.faiss is a link to .*elsewhere, outside its folder; it is not read"),
        (exchange_ids, "ids.json was changed"),
        (
            hostile("ids.json", b'["d0", "d1", "d2", ["d3"]]'),
            r"is damaged, index again: ids\.json is not a list of ids",
        ),
        (hostile("ids.json", b'["d0", "d1", "d2","d3 "]'), r"ids\.json is not a list of ids"),
        (hostile("ids.npy", array(bytes(96), "<u8", "(3, 4)")), r"ids\.json is not a list of ids"),
        (hostile("ids.npy", array(bytes(64), "<u8", "(2, 4)")), r"the table of ids has 2 rows"),
        (hostile("ids.npy", array(bytes(24), "<u8", "(3, 1)")), r"is damaged, index again: "),
        (hostile("ids.npy", array(b"\xff" * 96, "<u8", "(3, 4)")), r"ids\.json is not a list of ids"),
        (hostile("offsets.npy", b"PK\3\4"), r"is damaged, index again: offsets\.npy is not an array"),
        (hostile("offsets.npy", array(bytes(8), "<f8")), r"offsets\.npy is of type float64 and 1 dimensions"),
        (
            hostile("offsets.npy", array(b"", "<i8", "(1 << 40,)")),
            r"is damaged, index again: offsets\.npy is not an array",
        ),
    ],
)
@pytest.mark.parametrize("mmap", [True, False])
def test_a_damaged_index_is_refused_by_name(
    tmp_path: Path, damage: Callable[[Path], Any], message: str, mmap: bool
) -> None:
    folder = tmp_path / "index"
    build().save(folder)
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        Index.open(folder, mmap=mmap)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_releases_of_libraries_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = dict.fromkeys((*libraries.LIBRARIES, "retrieval-prompts"), "2.14.1")
    monkeypatch.setattr(libraries, "version", lambda name: now[name])
    index = build()
    index.check_encoder(index.manifest["encoder"])
    now |= {"torch": "2.14.2+cpu", "Pillow": "2.14.0"}  # repairs
    index.check_encoder(index.manifest["encoder"])
    now |= {"torch": "2.15.0", "tokenizers": "3.0"}
    said = r"this index was made with torch 2\.14\.1 \(2\.15\.0 here\), tokenizers 2\.14\.1 \(3\.0 here\); scores may"
    with pytest.warns(UserWarning, match=said):
        index.check_encoder(index.manifest["encoder"])
    garbled: list[Any] = [None, [], {"torch": 7, "gone": "1"}]
    for noted in garbled:  # of an earlier version, or garbled
        index.manifest["libraries"] = noted
        index.check_encoder(index.manifest["encoder"])


def test_a_file_of_vectors_that_is_cut_does_not_end_the_process(tmp_path: Path) -> None:
    for factory in ("Flat", "SQ8", "HNSW4"):
        build(factory=factory).save(tmp_path / factory)
        whole = (tmp_path / factory / "index.faiss").read_bytes()
        for end in (40, 60, len(whole) - 9):
            hostile("index.faiss", whole[:end])(tmp_path / factory)
            with pytest.raises(UserError, match="is damaged, index again"):
                Index.open(tmp_path / factory)


def test_exchanged_texts_are_noticed_when_they_are_read(tmp_path: Path) -> None:
    build().save(tmp_path / "index")
    path = tmp_path / "index" / "documents.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"_id": "d1"', b'"_id": "dX"'))
    opened = Index.open(tmp_path / "index")
    assert opened.document("d0") == DOCUMENTS[0]
    with pytest.raises(UserError, match=r"documents\.jsonl changed after it was opened.*found 'dX' where 'd1' was"):
        opened.document("d1")


def test_an_index_that_another_run_replaces_stays_as_it_was_opened(tmp_path: Path) -> None:
    build().save(tmp_path / "index")
    opened = Index.open(tmp_path / "index")
    others = [Document(each.id, "another title", each.text) for each in DOCUMENTS]
    build(documents=others).save(tmp_path / "index", overwrite=True)
    assert [opened.document(each.id) for each in DOCUMENTS] == list(DOCUMENTS)
    assert Index.open(tmp_path / "index").document("d0").title == "another title"
    again = pickle.loads(pickle.dumps(opened.documents))  # reads the file that has the name now
    with pytest.raises(UserError, match="changed after it was opened"):
        again[0]


def test_a_bit_of_a_text_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    build().save(tmp_path / "index")
    flip(tmp_path / "index" / "documents.jsonl", b"title d1")
    opened = Index.open(tmp_path / "index")
    assert opened.document("d0") == DOCUMENTS[0]
    with pytest.raises(UserError, match=r"\(the line of 'd1' is not the one that was written\)"):
        opened.document("d1")
    with pytest.raises(UserError, match=r"index in .* is damaged, index again: documents\.jsonl was changed"):
        index_files.verify(tmp_path / "index")


TYPES = ("Flat", "SQfp16", "SQ8", "HNSW8", "IVF4,Flat", "PCA8,Flat", "PQ4x4")


@pytest.mark.parametrize("factory", TYPES)
def test_every_single_bit_of_an_index_is_noticed(factory: str, tmp_path: Path) -> None:
    index = build(random_vectors(640), None, names(640), factory=factory)
    index.save(tmp_path / "index")
    path = tmp_path / "index" / "index.faiss"
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for bit in (*range(0, 800, 11), *random.integers(0, 8 * len(whole), 80)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bytes(damaged))
        with pytest.raises(UserError, match=r"index again: index\.faiss was changed$"):
            Index.open(tmp_path / "index")
    path.write_bytes(whole)
    assert index_files.verify(tmp_path / "index")
    assert len(Index.open(tmp_path / "index")) == 640


def test_the_vectors_of_another_corpus_of_the_same_size_are_refused(tmp_path: Path) -> None:
    build().save(tmp_path / "index")
    build(VECTORS[::-1]).save(tmp_path / "other")
    (tmp_path / "index" / "index.faiss").write_bytes((tmp_path / "other" / "index.faiss").read_bytes())
    with pytest.raises(UserError, match=r"index\.faiss was changed"):
        Index.open(tmp_path / "index")


def test_of_a_large_file_the_ends_are_read_at_opening_and_all_of_it_by_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"block": 64}
    monkeypatch.setattr(index_files, "BOUND", 1000)
    monkeypatch.setattr(index_files, "BLOCK", 64)
    monkeypatch.setattr(index_files, "of_blocks", lambda path, only=None: of_blocks(path, only, **small))
    build(random_vectors(50), None, names(50)).save(tmp_path / "index")
    path = tmp_path / "index" / "index.faiss"
    whole = path.read_bytes()
    assert len(whole) > 1000
    for at, noticed in ((3, True), (len(whole) // 2, False), (len(whole) - 3, True)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        if noticed:
            with pytest.raises(UserError, match=r"index\.faiss was changed, first in block"):
                Index.open(tmp_path / "index")
        else:
            Index.open(tmp_path / "index")
        with pytest.raises(UserError, match=r"index\.faiss was changed, first in block"):
            index_files.verify(tmp_path / "index")


def test_of_a_large_file_beside_the_index_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "words.index.npy").write_bytes(bytes(range(250)))

    small = {"block": 64}
    monkeypatch.setattr(index_files, "BOUND", 240)
    monkeypatch.setattr(index_files, "BLOCK", 64)
    monkeypatch.setattr(index_files, "of_blocks", lambda path, only=None: of_blocks(path, only, **small))
    build().save(tmp_path / "index", beside={"bm25": write})
    index, path = Index.open(tmp_path / "index"), tmp_path / "index" / "bm25" / "words.index.npy"
    assert index.has_beside(tmp_path / "index", "bm25") and index_files.verify(tmp_path / "index")
    for at, noticed in ((0, True), (125, False), (249, True)):
        flip(path, bytes([at]))
        if noticed:
            with pytest.raises(UserError, match=r"words\.index\.npy was changed"):
                index.has_beside(tmp_path / "index", "bm25")
        else:
            assert index.has_beside(tmp_path / "index", "bm25")
        with pytest.raises(UserError, match=r"words\.index\.npy was changed"):
            index_files.verify(tmp_path / "index")
        path.write_bytes(bytes(range(250)))


def test_an_older_index_has_its_ids_in_json_alone(tmp_path: Path) -> None:
    build().save(tmp_path / "index")
    (tmp_path / "index" / "ids.npy").unlink()
    path = tmp_path / "index" / "manifest.json"
    fields = json.loads(path.read_text())
    del fields["files"]["ids.npy"], fields["blocks"]["ids.npy"], fields["blocks"]["ids.json"]
    path.unlink()
    path.write_text(json.dumps(sealed(fields)))
    opened = Index.open(tmp_path / "index")
    assert opened.ids == IDS
    assert opened.document("d1") == DOCUMENTS[1]
    assert index_files.verify(tmp_path / "index")
    flip(tmp_path / "index" / "ids.json", b"d1")
    with pytest.raises(UserError, match=r"ids\.json was changed"):
        Index.open(tmp_path / "index")


def test_the_ids_of_a_large_index_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval_prompts.data.id_list.HELD", 0)
    build().save(tmp_path / "index")
    opened = Index.open(tmp_path / "index")
    assert isinstance(opened.ids, Ids)
    assert not opened.ids.content.flags.owndata
    assert [opened.document(id) for id in IDS] == DOCUMENTS
    assert opened.search(VECTORS, 4)[1] == build().search(VECTORS, 4)[1]
    with pytest.raises(UserError, match="the index has no document 'x'"):
        opened.document("x")
    opened.save(tmp_path / "copy")
    for path in (tmp_path / "copy").iterdir():
        assert path.read_bytes() == (tmp_path / "index" / path.name).read_bytes()


def test_an_index_without_checksums_is_read_and_nobody_can_tell(tmp_path: Path) -> None:
    build().save(tmp_path / "index")
    edit_manifest(blocks={})(tmp_path / "index")
    assert Index.open(tmp_path / "index").document("d1") == DOCUMENTS[1]
    assert not index_files.verify(tmp_path / "index")


def test_an_index_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "index.faiss")

    build().save(tmp_path / "index")
    monkeypatch.setattr("retrieval_prompts.vectors.faiss_foreign.opened", forbidden)  # root may read anything
    with pytest.raises(UserError, match=r"^the index in .*index cannot be read: \[Errno 13\] Permission denied: 'in"):
        Index.open(tmp_path / "index")


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    def full(*_: object) -> None:
        raise RuntimeError("Error in virtual size_t FileIOWriter at /x/io.cpp:42: Error: write error: No space left")

    monkeypatch.setattr(faiss, "write_index", full)
    with pytest.raises(UserError, match=r"^the index cannot be written to .*index: write error: No space left$"):
        build().save(tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


# --- the encoder --------------------------------------------------------------------------------------------------


def test_the_encoder_that_made_the_index_is_accepted() -> None:
    build().check_encoder(ENCODER)
    build().check_encoder({"model": "renamed", "fingerprint": "f" * 64})
    build(encoder={**ENCODER, "document_prompt": "p1"}).check_encoder({**ENCODER, "document_prompt": "p1"})


@pytest.mark.parametrize(
    ("made_with", "came", "message"),
    [
        (
            {},
            {"model": "other", "fingerprint": "0" * 64},
            "made by another document encoder: toy (fingerprint ffffffffffff), got other (fingerprint 000000000000);"
            " index the documents again, or use the model that made the index",
        ),
        (
            {},
            {"document_prompt": "0123456789abcdef"},
            "made with no document prompt, got the document prompt 0123456789ab;"
            " index the documents again, or use the prompt that made the index",
        ),
        ({"document_prompt": "p1"}, {}, "made with the document prompt p1, got no document prompt;"),
        ({"document_prompt": "p1"}, {"document_prompt": "p2"}, "the document prompt p1, got the document prompt p2;"),
        ({}, {"fingerprint": None}, "made by another document encoder"),
    ],
)
def test_another_encoder_is_refused(made_with: dict[str, Any], came: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build(encoder={**ENCODER, **made_with}).check_encoder({**ENCODER, **came})
    assert message in str(caught.value)


def test_importing_the_modules_loads_no_heavy_library() -> None:
    code = (
        "import sys, retrieval_prompts.vectors.index, retrieval_prompts.evaluation.metrics\n"
        "import retrieval_prompts.data.beir_folder\n"
        "heavy = {'faiss', 'bm25s', 'pytrec_eval', 'scipy', 'torch', 'transformers', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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
