"""Metrics against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation import metrics

QRELS: Qrels = {"q": {"a": 2, "b": 1, "c": 0, "e": 1}}
RUN: Run = {"q": {"c": 4.0, "a": 3.0, "d": 2.0, "b": 1.0}}  # c (0), a (2), d (not judged), b (1); e is not found


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("precision@1", 0),
        ("precision@4", 2 / 4),
        ("recall@2", 1 / 3),
        ("recall@4", 2 / 3),
        ("mrr@1", 0),
        ("mrr@2", 1 / 2),
        ("mrr@100", 1 / 2),
        ("map@2", (1 / 2) / 3),
        ("map@4", (1 / 2 + 2 / 4) / 3),
        ("ndcg@1", 0),
        ("ndcg@2", (2 / math.log2(3)) / (2 + 1 / math.log2(3))),
        ("ndcg@4", (2 / math.log2(3) + 1 / math.log2(5)) / (2 + 1 / math.log2(3) + 1 / math.log2(4))),
    ],
)
def test_metrics_by_hand(metric: str, value: float) -> None:
    assert metrics.per_query(QRELS, RUN, [metric]) == {metric: {"q": pytest.approx(value, abs=1e-12)}}


def test_every_judged_query_counts_and_no_other_does() -> None:
    qrels = {"found": {"a": 1}, "empty": {"a": 1}, "absent": {"a": 1}, "irrelevant": {"a": 0}, "unjudged": {}}
    run = {"found": {"a": 1.0}, "empty": {}, "irrelevant": {"a": 1.0}, "unjudged": {"a": 1.0}, "stranger": {"a": 1.0}}
    values = metrics.per_query(qrels, run)
    assert list(values) == list(metrics.METRICS)
    for per_metric in values.values():
        assert per_metric == {"found": 1.0, "empty": 0.0, "absent": 0.0, "irrelevant": 0.0, "unjudged": 0.0}
    assert metrics.means(values) == dict.fromkeys(metrics.METRICS, 0.2)


def test_mrr_is_cut_at_its_rank() -> None:
    run = {"q": {f"d{rank:03}": -float(rank) for rank in range(1, 301)}}
    for rank in (1, 3, 10, 11, 49, 100, 299):
        qrels = {"q": {f"d{rank:03}": 1}}
        values = metrics.per_query(qrels, run, [f"mrr@{rank}", f"mrr@{max(rank - 1, 1)}", f"mrr@{rank + 1}"])
        assert values[f"mrr@{rank}"]["q"] == values[f"mrr@{rank + 1}"]["q"] == 1 / rank
        if rank > 1:
            assert values[f"mrr@{rank - 1}"]["q"] == 0


def test_ties_are_broken_by_trec_eval_and_scores_are_float32() -> None:
    scores = {"a": 1.0, "b": 1.0 + 1e-9, "c": 1.0}  # equal in float32: c, b, a
    for document, rank in (("c", 1), ("b", 2), ("a", 3)):
        values = metrics.per_query({"q": {document: 1}}, {"q": scores}, ["mrr@3", f"recall@{rank}"])
        assert values["mrr@3"]["q"] == 1 / rank and values[f"recall@{rank}"]["q"] == 1
        assert metrics.per_query({"q": {document: 1}}, {"q": scores}, ["mrr@1"])["mrr@1"]["q"] == (rank == 1)


def test_scores_may_be_numpy_and_the_run_is_left_as_it_was() -> None:
    scores = {"a": np.float32(1), "b": 2}
    values = metrics.per_query({"q": {"a": 1}}, {"q": scores}, ["mrr@10"])  # type: ignore[dict-item]
    assert values == {"mrr@10": {"q": 0.5}}
    assert scores == {"a": np.float32(1), "b": 2} and isinstance(scores["a"], np.float32)


@pytest.mark.parametrize("metric", ["ndcg", "ndcg@0", "mrr@-1", "hits@10", "NDCG@10", "recall@10 ", "map@1.5", "p@1"])
def test_unknown_metrics_are_refused(metric: str) -> None:
    with pytest.raises(UserError, match=r"unknown metric .*; expected ndcg@k, map@k, recall@k, precision@k, hit@k"):
        metrics.per_query(QRELS, RUN, [metric])


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(UserError, match="no judged queries"):
        metrics.per_query({}, RUN)
    with pytest.raises(UserError, match="score of document 'a' for query 'q' is nan"):
        metrics.per_query(QRELS, {"q": {"a": math.nan}})


def test_drop_identical() -> None:
    assert metrics.drop_identical({"a": {"a": 2.0, "b": 1.0}, "c": {"b": 1.0}}) == {"a": {"b": 1.0}, "c": {"b": 1.0}}


def random_judgements(seed: int, queries: int = 30, documents: int = 40) -> tuple[Qrels, Run]:
    rng = np.random.default_rng(seed)
    qrels = {
        f"q{i}": {f"d{d}": int(rng.integers(0, 3)) for d in rng.permutation(documents)[:6]} | {"d0": 1}
        for i in range(queries)
    }
    run = {
        f"q{i}": {f"d{d}": float(rng.integers(0, 9)) for d in rng.permutation(documents)[: rng.integers(1, documents)]}
        for i in range(queries)
    }
    return qrels, run


def test_the_same_as_beir() -> None:
    evaluation = pytest.importorskip("beir.retrieval.evaluation", reason="beir, the reference, is not installed")
    qrels, run = random_judgements(0)
    ndcg, map_, recall, precision = evaluation.EvaluateRetrieval.evaluate(
        qrels, run, [3, 10], ignore_identical_ids=False
    )
    ours = metrics.means(
        metrics.per_query(
            qrels, run, [f"{name}@{k}" for name in ("ndcg", "map", "recall", "precision") for k in (3, 10)]
        )
    )
    for k in (3, 10):
        assert ours[f"ndcg@{k}"] == pytest.approx(ndcg[f"NDCG@{k}"], abs=6e-6)  # theirs has 5 decimals
        assert ours[f"map@{k}"] == pytest.approx(map_[f"MAP@{k}"], abs=6e-6)
        assert ours[f"recall@{k}"] == pytest.approx(recall[f"Recall@{k}"], abs=6e-6)
        assert ours[f"precision@{k}"] == pytest.approx(precision[f"P@{k}"], abs=6e-6)


def test_mrr_is_the_first_relevant_document_of_the_ranking() -> None:
    qrels, run = random_judgements(1)
    for query, value in metrics.per_query(qrels, run, ["mrr@5"])["mrr@5"].items():
        top = sorted(run[query], key=lambda id: (run[query][id], id), reverse=True)[:5]
        assert value == next((1 / rank for rank, id in enumerate(top, 1) if qrels[query].get(id, 0) > 0), 0)
