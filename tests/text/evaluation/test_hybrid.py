"""Dense scores and BM25 in one ranking: by hand, at its ends, alone and in batches, saved and opened."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval_prompts.data.corpus import Document
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation import hybrid
from retrieval_prompts.evaluation.bm25 import BM25Index, NoWords
from retrieval_prompts.evaluation.hybrid import HybridIndex
from retrieval_prompts.files import sealed
from retrieval_prompts.vectors.index import Index

ENCODER = {"model": "toy", "fingerprint": "f" * 64}
TEXTS = ["cat", "dog bird", "cat dog", "fish"]
VECTORS = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], dtype=np.float32)
RIGHT = np.array([[1, 0]], dtype=np.float32)  # dense scores 1, 0.6, 0, -1: of their range 1, 0.8, 0.5, 0
CAT = [1 / 2.125, 0, 1 / 2.875, 0]  # of "cat" as parts of its bound; documents of 1 and 2 words, 1.5 in the mean


def build(texts: list[str] = TEXTS, vectors: np.ndarray = VECTORS, **options: Any) -> HybridIndex:
    documents = [Document(f"d{number}", "", text) for number, text in enumerate(texts)]
    ids = [document.id for document in documents]
    return HybridIndex.build(Index.build(vectors, documents, ids, encoder=ENCODER, **options), documents)


NAMES = [f"w{number}" for number in range(30)]


def random_texts(count: int, words: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(NAMES, words)) for _ in range(count)]


def random_vectors(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def large() -> HybridIndex:
    """300 documents, so that each ranking brings but a third of them."""
    return build(random_texts(300, 6, 0), random_vectors(300, 0))


# --- scores -------------------------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    scores, ids = build().search(["cat"], RIGHT, 4, weight=0.25)
    assert ids == [["d0", "d1", "d2", "d3"]]
    assert scores == [pytest.approx([0.75 + 0.25 * CAT[0], 0.75 * 0.8, 0.75 * 0.5 + 0.25 * CAT[2], 0])]
    scores, ids = build().search(["cat"], RIGHT, 2, weight=0.5)
    assert ids == [["d0", "d2"]]  # the words put d2 before d1
    assert scores == [pytest.approx([0.5 + 0.5 * CAT[0], 0.25 + 0.5 * CAT[2]])]


def test_the_hundredth_best_document_is_the_zero_of_the_dense_scale() -> None:
    height = np.linspace(1, -1, 151)
    vectors = np.stack([height, np.sqrt(1 - height**2)], axis=1).astype(np.float32)
    index = build(["common"] * 150 + ["rare"], vectors)
    (found,) = index.candidates(["rare"], RIGHT, 10)
    assert found.positions.tolist() == [*range(100), 150]
    expected = (height[found.positions] - height[99]) / (height[0] - height[99])
    assert found.dense == pytest.approx(expected, abs=1e-6) and found.dense[-1] < -0.5
    assert found.lexical[:-1].tolist() == [0] * 100
    assert 0 < found.lexical[-1] == pytest.approx(index.lexical.scores("rare")[150] / math.log(1 + 150.5 / 1.5))
    (deep,) = index.candidates(["rare"], RIGHT, 151)
    assert deep.dense == pytest.approx((height - height[99]) / (height[0] - height[99]), abs=1e-6)


def test_documents_of_one_ranking_alone_have_both_scores(large: HybridIndex) -> None:
    queries, vectors = random_texts(5, 3, 1), random_vectors(5, 1)
    for query, vector, found in zip(queries, vectors, large.candidates(queries, vectors, 10), strict=True):
        exact = random_vectors(300, 0) @ vector
        floor, top = np.sort(exact)[[-100, -1]]
        assert len(found.positions) > 100
        assert found.dense == pytest.approx((exact[found.positions] - floor) / (top - floor), abs=1e-5)
        words = large.lexical.scores(query)[found.positions] / large.lexical.bound(query)
        assert found.lexical == pytest.approx(words)
        assert {*np.argsort(-exact)[:100]} <= {*found.positions.tolist()}
        assert {*np.argsort(-large.lexical.scores(query), kind="stable")[:100]} <= {*found.positions.tolist()}


def test_weight_0_is_the_dense_ranking_to_the_bit(large: HybridIndex) -> None:
    queries, vectors = random_texts(3, 3, 1), random_vectors(3, 1)
    for k in (1, 10, 1000):
        scores, ids = large.search(queries, vectors, k, weight=0)
        dense, expected = large.index.search(vectors, k)
        assert (scores, ids) == (dense.tolist(), expected)


def test_weight_1_is_the_order_of_bm25(large: HybridIndex) -> None:
    queries = random_texts(5, 2, 1)
    scores, ids = large.search(queries, random_vectors(5, 1), 20, weight=1)
    run = large.lexical.run(dict(zip(NAMES, queries, strict=False)), 20)
    for query, row, each, best in zip(queries, scores, ids, run.values(), strict=True):
        assert each == list(best)
        assert row == pytest.approx(np.array(list(best.values())) / large.lexical.bound(query))


def test_a_query_does_not_depend_on_its_batch(large: HybridIndex) -> None:
    queries, vectors = random_texts(25, 3, 1), random_vectors(25, 1)  # FAISS takes another way from 20 on
    scores, ids = large.search(queries, vectors, 10, weight=0.6)
    for number, query in enumerate(queries):
        alone, own = large.search([query], vectors[number : number + 1], 10, weight=0.6)
        assert own == [ids[number]]
        assert alone[0] == pytest.approx(scores[number], abs=1e-5)
    assert (
        large.search(queries[:5], vectors[:5], 10, weight=0.6)[0][2]
        == large.search(queries[2:3], vectors[2:3], 10, weight=0.6)[0][0]
    )


def test_where_vectors_cannot_be_read_back_the_lowest_score_found_stands_in() -> None:
    vectors = np.repeat(np.eye(4, dtype=np.float32), 10, axis=0) * np.linspace(1, 1.3, 40)[:, None].astype(np.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IVF4,Flat should be trained on 156 vectors or more")
        index = build(["rare"] + ["common"] * 39, vectors, factory="IVF4,Flat")
    query = np.eye(4, dtype=np.float32)[3:]
    (found,) = index.candidates(["rare"], query, 5, nprobe=1)
    assert found.positions.tolist() == [*range(39, 29, -1), 0]
    assert found.dense == pytest.approx([*np.linspace(1, 0, 10), 0], abs=1e-5)
    assert found.lexical[-1] > 0
    scores, ids = index.search(["rare"], query, 40, weight=0, nprobe=1)
    assert ids == [[f"d{number}" for number in range(39, 29, -1)]] and len(scores[0]) == 10
    (all_of_it,) = index.candidates(["rare"], query, 5, nprobe=4)
    assert sorted(all_of_it.positions) == list(range(40))


@pytest.mark.parametrize("factory", ["SQ8", "HNSW8", "PQ8x4fs,RFlat", "IVF4,SQ8", "RaBitQ"])
def test_indexes_of_other_types_rank_both_ways(factory: str) -> None:
    texts, vectors = random_texts(300, 6, 0), random_vectors(300, 0)
    texts[7] = "unmistakable"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* should be trained on .* vectors or more")
        index = build(texts, vectors, factory=factory)
    scores, ids = index.search(["unmistakable"], -vectors[7:8], 10, weight=0.9)  # the vector farthest from it
    assert ids[0][0] == "d7" and len(set(ids[0])) == 10
    assert scores[0] == sorted(scores[0], reverse=True) and np.isfinite(scores).all()


def test_search_parameters_reach_the_index() -> None:
    with pytest.raises(UserError, match="an index of type Flat has no nprobe; leave it out"):
        build().search(["cat"], RIGHT, 1, weight=0.5, nprobe=4)
    with pytest.raises(UserError, match="k must be at least 1, got 0"):
        build().search(["cat"], RIGHT, 0, weight=0)


# --- ends ---------------------------------------------------------------------------------------------------------


def test_one_document() -> None:
    index = build(["cat"], VECTORS[:1])
    scores, ids = index.search(["cat", "zebra"], np.repeat(RIGHT, 2, axis=0), 5, weight=0.5)
    assert ids == [["d0"], ["d0"]]
    assert scores == [[pytest.approx(0.5 / 2.5)], [0]]


@pytest.mark.parametrize("query", ["zebra", "the", "", "?!"])
def test_a_query_without_a_known_word_has_the_dense_order(query: str) -> None:
    scores, ids = build().search([query], RIGHT, 10, weight=0.75)
    assert ids == [["d0", "d1", "d2", "d3"]]
    assert scores == [pytest.approx([0.25, 0.2, 0.125, 0])]


def test_k_beyond_the_corpus_gives_each_document_once(large: HybridIndex) -> None:
    scores, ids = large.search(["w1 w2"], random_vectors(1, 1), 1000, weight=0.5)
    assert sorted(ids[0]) == sorted(large.index.ids) and len(scores[0]) == 300


def test_equal_scores_are_in_the_order_of_the_index() -> None:
    index = build(["cat"] * 5, np.ones((5, 2), dtype=np.float32))
    assert index.search(["cat"], RIGHT, 3, weight=0.5)[1] == [["d0", "d1", "d2"]]


def test_rank_leaves_out_the_document_of_the_querys_own_id() -> None:
    index = build()
    queries = {"d0": "cat", "q": "cat"}
    runs = index.rank(queries, np.repeat(RIGHT, 2, axis=0), 3, [0.25, 0.5])
    assert [list(run["d0"]) for run in runs] == [["d1", "d2", "d3"], ["d2", "d1", "d3"]]
    for run, weight in zip(runs, (0.25, 0.5), strict=True):
        scores, ids = index.search(["cat"], RIGHT, 3, weight=weight)
        assert run["q"] == dict(zip(ids[0], scores[0], strict=True)) and list(run["q"]) == ids[0]


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan, math.inf])
def test_what_is_no_weight(weight: float) -> None:
    index = build()
    message = rf"must be from 0 \(the dense ranking\) to 1 \(BM25 alone\), got {weight}"
    with pytest.raises(UserError, match=message):
        hybrid.check_weight(weight)
    with pytest.raises(UserError, match=message):
        index.search(["cat"], RIGHT, 1, weight=weight)
    with pytest.raises(UserError, match=message):
        index.rank({"q": "cat"}, RIGHT, 1, [0, weight])


def test_the_weights_to_choose_from_are_weights() -> None:
    for weight in (*hybrid.WEIGHTS, hybrid.UNLABELLED, 0, 1):
        assert hybrid.check_weight(weight) is None  # type: ignore[func-returns-value]
    assert hybrid.UNLABELLED in hybrid.WEIGHTS


# --- build, save and open -----------------------------------------------------------------------------------------


def test_both_indexes_hold_the_same_documents() -> None:
    dense = build().index
    with pytest.raises(UserError, match="hold different documents; index again"):
        HybridIndex(dense, BM25Index.build(TEXTS, ["d0", "d1", "d3", "d2"]))
    assert HybridIndex(dense, BM25Index.build(TEXTS, tuple(dense.ids))).lexical.ids == tuple(dense.ids)
    with pytest.raises(NoWords, match="found no words in the 4 documents"):
        build(["the"] * 4)


@pytest.mark.parametrize("mmap", [True, False])
def test_what_is_opened_ranks_as_what_was_built(large: HybridIndex, tmp_path: Path, mmap: bool) -> None:
    large.save(tmp_path / "index")
    opened = HybridIndex.open(tmp_path / "index", mmap=mmap)
    assert opened is not None and isinstance(opened.lexical.model.scores["data"].base, np.memmap) == mmap
    queries, vectors = random_texts(3, 3, 1), random_vectors(3, 1)
    assert opened.search(queries, vectors, 10, weight=0.6) == large.search(queries, vectors, 10, weight=0.6)
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    names = {f"bm25/{path.name}" for path in (tmp_path / "index" / "bm25").iterdir()}
    assert manifest["digests"].keys() == names <= manifest["files"].keys() and len(names) == 6
    opened.save(tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "index" / path.relative_to(tmp_path / "copy")).read_bytes()


OLDER = ("digests", "blocks", "sha256")  # fields that manifests had not from the beginning


def test_an_index_without_words(tmp_path: Path) -> None:
    built = build()
    built.index.save(tmp_path / "index")
    assert HybridIndex.open(tmp_path / "index") is None
    manifest = tmp_path / "index" / "manifest.json"
    manifest.write_text(json.dumps({k: v for k, v in json.loads(manifest.read_text()).items() if k not in OLDER}))
    assert HybridIndex.open(tmp_path / "index") is None  # as they were written before there were any
    built.save(tmp_path / "index", overwrite=True)
    again = HybridIndex.open(tmp_path / "index")
    assert again is not None
    again.index.save(tmp_path / "index", overwrite=True)
    assert HybridIndex.open(tmp_path / "index") is None and not (tmp_path / "index" / "bm25").exists()


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(
    "name",
    [
        *("data.csc.index.npy", "indices.csc.index.npy", "indptr.csc.index.npy"),
        *("vocab.index.json", "params.index.json"),
    ],
)
@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        flip_last_byte,
    ],
)
def test_damaged_words_are_refused_by_name(tmp_path: Path, damage: Callable[[Path], Any], name: str) -> None:
    folder = tmp_path / "index"
    build().save(folder)
    damage(folder / "bm25" / name)
    with pytest.raises(UserError, match=r"is damaged.*index again") as caught:
        HybridIndex.open(folder)
    assert str(folder) in str(caught.value) and f"bm25/{name}" in str(caught.value)
    assert "\n" not in str(caught.value)


def exchange(folder: Path, other: Path) -> None:
    shutil.rmtree(folder / "bm25")
    shutil.copytree(other / "bm25", folder / "bm25")


def test_words_of_other_documents_are_refused(tmp_path: Path) -> None:
    build().save(tmp_path / "index")
    build(TEXTS[::-1]).save(tmp_path / "other")  # the same sizes
    exchange(tmp_path / "index", tmp_path / "other")
    message = r"index/bm25 is damaged or of other documents, index again: bm25/data.csc.index.npy was changed"
    with pytest.raises(UserError, match=message):
        HybridIndex.open(tmp_path / "index")
    build().index.save(tmp_path / "dense")
    shutil.copytree(tmp_path / "other" / "bm25", tmp_path / "dense" / "bm25")
    with pytest.raises(UserError, match=r"dense/bm25 was not written with this index; remove it, or index again"):
        HybridIndex.open(tmp_path / "dense")
    assert len(Index.open(tmp_path / "dense")) == 4


def test_words_that_are_gone_are_missed(tmp_path: Path) -> None:
    build().save(tmp_path / "index")
    opened = Index.open(tmp_path / "index")
    shutil.rmtree(tmp_path / "index" / "bm25")
    for look in (
        lambda: HybridIndex.open(tmp_path / "index"),
        lambda: HybridIndex.of(opened, tmp_path / "index"),
    ):
        with pytest.raises(UserError, match=r"is damaged, index again: .*No such file"):
            look()
    (tmp_path / "index" / "bm25").mkdir()
    with pytest.raises(UserError, match=r"is damaged, index again: .*No such file"):
        HybridIndex.open(tmp_path / "index")


@pytest.mark.parametrize("digests", [None, [], {"bm25/data.csc.index.npy": None}])
def test_a_manifest_without_sound_digests_is_refused(tmp_path: Path, digests: Any) -> None:
    build().save(tmp_path / "index")
    manifest = tmp_path / "index" / "manifest.json"
    manifest.write_text(json.dumps(sealed({**json.loads(manifest.read_text()), "digests": digests})))
    with pytest.raises(UserError, match="is damaged"):
        HybridIndex.open(tmp_path / "index")
