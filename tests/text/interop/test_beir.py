"""beir 2.2 runs on our models and on our exports, and FaissSearch finds what its exact search finds."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from retrieval_prompts import BiEncoder, Index, UserError
from retrieval_prompts.data.beir_folder import load_corpus
from retrieval_prompts.data.judgements import Run
from retrieval_prompts.evaluation.metrics import means, per_query

pytest.importorskip("beir", reason="beir is not installed")

from beir.datasets.data_loader import GenericDataLoader
from beir.retrieval.evaluation import EvaluateRetrieval
from beir.retrieval.models import SentenceBERT
from beir.retrieval.search.dense import DenseRetrievalExactSearch

from retrieval_prompts.interop.beir import BeirModel, FaissSearch

K_VALUES = [1, 3, 10, 100]  # 100 is more than there are documents


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def data(folder: Path) -> tuple[dict[str, Any], dict[str, str], dict[str, dict[str, int]]]:
    """Corpus, queries and judgements; the query d3 has a document's id and that document's text."""
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # it leaves its files open
        corpus, queries, qrels = GenericDataLoader(str(folder)).load("train")
    return corpus, {**queries, "d3": corpus["d3"]["text"]}, {**qrels, "d3": {"d4": 1}}


@pytest.fixture(scope="module")
def biencoder(tmp_path_factory: pytest.TempPathFactory) -> BiEncoder:
    model = tiny.write_model(tmp_path_factory.mktemp("model"))
    made = BiEncoder.load(model, device="cpu").attach("both", length=4)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.neg_()  # far from the frozen model
    return made


@pytest.fixture(scope="module")
def sentence_bert(biencoder: BiEncoder, tmp_path_factory: pytest.TempPathFactory) -> SentenceBERT:
    """beir's own model, on the exported checkpoint."""
    folder = tmp_path_factory.mktemp("export") / "model"
    biencoder.export(folder)
    return SentenceBERT(str(folder), prompt_names={"query": "query", "passage": "document"}, device="cpu")


def same(one: Run, other: Run) -> bool:
    """The same documents for each query, and the same scores to 1e-6 of their size."""
    return one.keys() == other.keys() and all(
        one[query].keys() == other[query].keys()
        and all(abs(score - other[query][id]) < 1e-6 * max(1, abs(score)) for id, score in one[query].items())
        for query in one
    )


def exact(model: Any, score: str, **options: Any) -> EvaluateRetrieval:
    search = DenseRetrievalExactSearch(model, show_progress_bar=False, **options)
    return EvaluateRetrieval(search, k_values=K_VALUES, score_function=score)


def ours(model: Any, score: str = "cos_sim", **options: Any) -> EvaluateRetrieval:
    search = FaissSearch(model, show_progress_bar=False, **options)
    return EvaluateRetrieval(search, k_values=K_VALUES, score_function=score)


def test_our_model_in_their_search(biencoder: BiEncoder, data: Any) -> None:
    corpus, queries, qrels = data
    results = exact(BeirModel(biencoder), "cos_sim").retrieve(corpus, queries)
    ndcg, average, recall, _ = EvaluateRetrieval.evaluate(qrels, results, K_VALUES)
    documents = biencoder.encode_document([f"{each['title']} {each['text']}" for each in corpus.values()])
    scores = biencoder.encode_query(list(queries.values())) @ documents.T
    run = {
        query: {id: float(score) for id, score in zip(corpus, row, strict=True) if id != query}
        for query, row in zip(queries, scores, strict=True)
    }
    assert same(results, run)
    mine = means(per_query(qrels, run, ["ndcg@10", "map@100", "recall@10"]))
    theirs = [ndcg["NDCG@10"], average["MAP@100"], recall["Recall@10"]]
    assert [round(value, 5) for value in mine.values()] == theirs
    assert 0 < mine["ndcg@10"] < 1


@pytest.mark.parametrize("score", ["cos_sim", "dot"])
@pytest.mark.parametrize("top_k", [3, 39, 40, 1000])
def test_our_search_finds_what_their_exact_search_finds(
    score: str, top_k: int, biencoder: BiEncoder, data: Any
) -> None:
    corpus, queries, qrels = data
    found = []
    for make in (exact, ours):
        retrieval = make(Scaled(biencoder), score, corpus_chunk_size=16)
        retrieval.top_k = top_k
        results = retrieval.retrieve(corpus, queries)
        found.append((results, retrieval.evaluate(qrels, {id: dict(row) for id, row in results.items()}, K_VALUES)))
    assert same(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert {len(row) for id, row in found[1][0].items() if id != "d3"} == {min(top_k, 40)}
    assert len(found[1][0]["d3"]) == min(top_k, 39) and "d3" not in found[1][0]["d3"]


class Scaled(BeirModel):
    """Vectors of different lengths, so that the cosine and the inner product differ."""

    def _encode(self, encode: Any, texts: list[str], *arguments: Any, **options: Any) -> Any:
        lengths = torch.tensor([1 + len(text) % 7 for text in texts])[:, None]
        return super()._encode(encode, texts, *arguments, **options) * lengths


def test_their_model_on_our_export(sentence_bert: SentenceBERT, biencoder: BiEncoder, data: Any) -> None:
    corpus, queries, _ = data
    results = exact(sentence_bert, "cos_sim").retrieve(corpus, queries)
    assert same(results, exact(BeirModel(biencoder), "cos_sim").retrieve(corpus, queries))
    assert same(results, ours(sentence_bert).retrieve(corpus, queries))
    plain = SentenceBERT(sentence_bert.q_model[0].tokenizer.name_or_path, device="cpu")
    assert not same(results, ours(plain).retrieve(corpus, queries)), "without prompt names it is the frozen model"


@pytest.mark.parametrize("factory", ["HNSW8", "SQ8", "SQfp16"])
def test_other_factories(factory: str, biencoder: BiEncoder, data: Any) -> None:
    corpus, queries, _ = data
    flat = ours(BeirModel(biencoder)).retrieve(corpus, queries)
    search = ours(BeirModel(biencoder), factory=factory)
    results = search.retrieve(corpus, queries)
    assert all(abs(score - flat[query][id]) < 0.02 for query in flat for id, score in results[query].items())
    assert all(len(results[query]) == len(flat[query]) for query in flat)
    with pytest.raises(UserError, match=f"an index of type {factory} has no nprobe; leave it out"):
        search.retrieve(corpus, queries, nprobe=2)


@pytest.mark.parametrize("form", ["dicts", "lists", "texts"])
def test_every_form_of_documents(form: str, biencoder: BiEncoder) -> None:
    rows = [{"title": "river", "text": "copper basalt"}, {"title": "", "text": "lantern "}]
    forms = {
        "dicts": rows,
        "lists": {name: [row[name] for row in rows] for name in ("title", "text")},
        "texts": ["river copper basalt", "lantern"],
    }
    model = BeirModel(biencoder)
    expected = biencoder.encode_document(["river copper basalt", "lantern"])
    assert np.array_equal(model.encode_corpus(forms[form], batch_size=1, unknown=True), expected)  # type: ignore[arg-type]
    vectors = model.encode_corpus(forms[form], convert_to_tensor=True)  # type: ignore[arg-type]
    assert torch.equal(vectors, torch.from_numpy(expected))
    assert np.allclose(np.linalg.norm(model.encode_queries(["river"], normalize_embeddings=True)), 1)
    assert model.encode_corpus([{"text": "lantern"}]).shape == model.encode_queries(["river"]).shape == (1, 32)


class Counting(BeirModel):
    documents = 0

    def encode_corpus(self, corpus: Any, batch_size: int = 8, **options: Any) -> Any:
        self.documents += len(corpus)
        return super().encode_corpus(corpus, batch_size, **options)


def test_the_index_is_kept(biencoder: BiEncoder, data: Any) -> None:
    corpus, queries, _ = data
    model = Counting(biencoder)
    search = FaissSearch(model, show_progress_bar=False)
    first = search.search(corpus, queries, 10, "cos_sim")
    some = dict(list(queries.items())[:2])
    assert search.search(corpus, some, 10, "cos_sim") == {query: first[query] for query in some}
    assert search.search(corpus, {}, 10, "cos_sim") == {}
    assert model.documents == 40
    search.search(corpus, some, 10, "dot")
    assert model.documents == 80, "another score function"
    changed = {**corpus, "d0": {"title": "", "text": corpus["d0"]["text"][::-1]}}
    search.search(changed, some, 10, "dot")
    assert model.documents == 120, "another text"
    biencoder.strength = 0
    search.search(changed, some, 10, "dot")
    biencoder.strength = 1
    assert model.documents == 160, "another prompt"


def test_a_saved_index_is_used(biencoder: BiEncoder, data: Any, folder: Path, tmp_path: Path) -> None:
    corpus, queries, _ = data
    search = FaissSearch(BeirModel(biencoder), factory="SQfp16", show_progress_bar=False)
    with pytest.raises(UserError, match="there is no index yet; it is made by the first search"):
        search.save(tmp_path / "index")
    results = search.search(corpus, queries, 10)
    search.save(tmp_path / "index")
    model = Counting(biencoder)
    assert FaissSearch(model, show_progress_bar=False).load(tmp_path / "index").search(corpus, queries, 10) == results
    assert model.documents == 0
    opened = Index.open(tmp_path / "index")
    assert opened.manifest["factory"] == "SQfp16" and opened.document("d3").title == corpus["d3"]["title"]
    with pytest.raises(UserError, match="this index was made with the document prompt"):
        FaissSearch(BeirModel(BiEncoder(biencoder.tower))).load(tmp_path / "index")


def test_an_index_of_the_command_line_is_used(biencoder: BiEncoder, data: Any, folder: Path, tmp_path: Path) -> None:
    corpus, queries, _ = data
    documents = load_corpus(folder)
    vectors = biencoder.encode_corpus(documents, tmp_path / "cache")
    Index.build(vectors, documents, documents.ids, encoder=biencoder.identity()).save(tmp_path / "index")
    model = Counting(biencoder)
    results = FaissSearch(model, show_progress_bar=False).load(tmp_path / "index").search(corpus, queries, 10)
    assert model.documents == 0
    assert same(results, FaissSearch(model, show_progress_bar=False).search(corpus, queries, 10))


def test_a_model_of_theirs_needs_a_name_to_be_saved(sentence_bert: SentenceBERT, data: Any, tmp_path: Path) -> None:
    corpus, queries, _ = data
    nameless = FaissSearch(sentence_bert, show_progress_bar=False)
    results = nameless.search(corpus, queries, 10)
    with pytest.raises(
        UserError, match=r'must know its encoder; pass FaissSearch\(model, encoder="model and version"\)'
    ):
        nameless.save(tmp_path / "index")
    named = FaissSearch(sentence_bert, show_progress_bar=False, encoder="ours 1")
    named.search(corpus, queries, 10)
    named.save(tmp_path / "index")
    again = FaissSearch(sentence_bert, show_progress_bar=False, encoder="ours 1").load(tmp_path / "index")
    index = again.index
    assert again.search(corpus, queries, 10) == results
    assert again.index is index
    with pytest.raises(UserError, match="this index was made by another document encoder: ours 1"):
        FaissSearch(sentence_bert, encoder="ours 2").load(tmp_path / "index")


@pytest.mark.parametrize("score", ["cos_sim", "dot"])
def test_encoding_to_files(score: str, biencoder: BiEncoder, data: Any, tmp_path: Path) -> None:
    corpus, queries, _ = data
    retrieval = ours(Scaled(biencoder), score, corpus_chunk_size=16)
    names = {"query_filename": "queries.npz", "corpus_filename": "corpus.*.npz", "score_function": score}
    results = retrieval.encode_and_retrieve(corpus, queries, str(tmp_path), **names)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*(f"corpus.{n}.npz" for n in range(3)), "queries.npz"]
    assert same(results, retrieval.retrieve(corpus, queries))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    retrieval.encode_and_retrieve(corpus, queries, str(tmp_path), **names)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}, "files that exist are kept"


def test_mistakes(biencoder: BiEncoder, data: Any, tmp_path: Path) -> None:
    corpus, queries, _ = data
    search = FaissSearch(BeirModel(biencoder), show_progress_bar=False)
    with pytest.raises(UserError, match="the score function must be one of cos_sim, dot, got 'l2'"):
        search.search(corpus, queries, 10, "l2")
    with pytest.raises(UserError, match=r'queries.pkl: no pickles are written here; pass query_filename="queries.npz"'):
        ours(BeirModel(biencoder)).encode_and_retrieve(corpus, queries, str(tmp_path))
    assert not list(tmp_path.iterdir())
    (tmp_path / "queries.npz").write_bytes(b"no archive")
    with pytest.raises(
        UserError, match=r"queries.npz holds no vectors that FaissSearch.encode wrote \(.*\); encode again"
    ):
        search.search_from_files(str(tmp_path / "queries.npz"), [str(tmp_path / "queries.npz")], 10)
