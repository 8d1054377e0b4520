"""Small indexes whose best documents are known: searched, saved, opened, and the encoder that they belong to."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_indexes import DOCUMENTS, ENCODER, IDS, VECTORS, build, names, random_vectors

from retrieval_prompts.data.corpus import Corpus
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import digest
from retrieval_prompts.vectors.index import Index

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
