"""Sections from runs, curves from training steps and strengths."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset, load
from retrieval_prompts.data.judgements import Run
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.metrics import means, per_query
from retrieval_prompts.report.build import section_of, strength_curve
from retrieval_prompts.report.content import Curve, Item
from retrieval_prompts.towers.text import TextTower, load_tower
from retrieval_prompts.vectors.index import Index


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(tiny.write_data(tmp_path_factory.mktemp("data") / "toy"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def small(model: Path) -> Iterator[TextTower]:
    yield load_tower(model, device="cpu")


def runs() -> dict[str, Run]:
    """Frozen: d30 in front of the right document of q30, which is d30: right at once; q31's stands second."""
    return {
        "frozen": {"q30": {"d30": 2.0, "d1": 1.0}, "q31": {"d5": 2.0, "d31": 1.0}},
        "tuned": {"q30": {"d30": 2.0, "d1": 1.0}, "q31": {"d31": 2.0, "d5": 1.0, "q31": 3.0}},
    }


def test_a_section_has_scores_tests_and_the_documents_it_shows(dataset: Dataset) -> None:
    section = section_of(dataset, "test", runs(), metric="mrr@10")
    assert section.name == "toy" and section.facts == ["40 documents", "10 queries"]
    assert section.systems["frozen"]["mrr@10"] == pytest.approx(0.15)
    assert section.systems["tuned"]["mrr@10"] == pytest.approx(0.2)
    assert "ndcg@10" in section.systems["tuned"]
    test = section.tests["tuned_vs_frozen"]
    assert (test["difference"], test["helped"], test["hurt"], test["unchanged"]) == (pytest.approx(0.05), 1, 0, 9)
    query = section.queries[1]
    assert (query.id, query.relevant, query.scores) == ("q31", {"d31": 1}, {"frozen": 0.5, "tuned": 1.0})
    assert query.rankings["tuned"] == [("d31", 2.0), ("d5", 1.0)]  # without the document of the query's own id
    assert section.queries[2].rankings["frozen"] == []
    document = dataset.corpus[5]
    assert section.documents["d5"] == Item(document.title, document.text)
    assert set(section.documents) == {"d1", "d5", *(f"d{number}" for number in range(30, 40))}


def test_given_means_and_tests_are_kept(dataset: Dataset) -> None:
    systems = {"frozen": {"ndcg@10": 0.1}, "lora": {"ndcg@10": 0.3}}
    section = section_of(dataset, "test", {"frozen": runs()["frozen"]}, systems=systems)
    assert section.systems == systems
    assert section.tests == {}
    assert section.queries[0].scores == {"frozen": 1.0}


def test_a_split_that_is_not_there(dataset: Dataset) -> None:
    with pytest.raises(UserError, match="has no split 'dev'"):
        section_of(dataset, "dev", runs())


def test_equal_scores_are_ordered_as_trec_eval_orders_them(dataset: Dataset) -> None:
    tied: dict[str, Run] = {"frozen": {"q30": {"d30": 1.0, "d4": 1.0, "d5": 1.0}}}
    section = section_of(dataset, "test", tied)
    assert [id for id, _ in section.queries[0].rankings["frozen"]] == ["d5", "d4", "d30"]
    assert section.queries[0].scores["frozen"] == pytest.approx(1 / math.log2(4))


def test_strength_goes_from_the_frozen_model_to_the_whole_prompt(small: TextTower, dataset: Dataset) -> None:
    biencoder = BiEncoder(small).attach(length=4, init="vocab")
    queries, qrels = dataset.split("train")
    frozen = BiEncoder(small)
    index = Index.build(frozen.encode_corpus(dataset.corpus), None, dataset.corpus.ids, encoder=frozen.identity())
    curve = strength_curve(biencoder, index, queries, qrels, at=(0.0, 0.5, 1.0))
    assert curve is not None
    expected = []
    for strength in (0.0, 0.5, 1.0):
        biencoder.strength = strength
        values = per_query(
            qrels, index.rank(list(queries), biencoder.query_vectors(list(queries.values())), 100), ["ndcg@10"]
        )
        expected.append((strength, means(values)["ndcg@10"]))
    assert curve == Curve("ndcg@10", expected)
    assert expected[0] != expected[2]


def test_no_strength_curve_where_documents_have_prompts(small: TextTower, dataset: Dataset) -> None:
    queries, qrels = dataset.split("test")
    frozen = BiEncoder(small)
    index = Index.build(frozen.encode_corpus(dataset.corpus), None, dataset.corpus.ids, encoder=frozen.identity())
    assert strength_curve(frozen, index, queries, qrels) is None
    assert strength_curve(BiEncoder(small).attach("both", length=2), index, queries, qrels) is None


def test_an_index_of_another_model_has_no_strength_curve(small: TextTower, dataset: Dataset) -> None:
    queries, qrels = dataset.split("test")
    vectors = BiEncoder(small).encode_corpus(dataset.corpus)
    index = Index.build(vectors, None, dataset.corpus.ids, encoder={"fingerprint": "another"})
    with pytest.raises(UserError, match="made by another document encoder"):
        strength_curve(BiEncoder(small).attach(length=2), index, queries, qrels)
