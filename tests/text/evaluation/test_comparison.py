"""Runs compared on judgements, alone and over data sets, and against the conventions of BEIR."""

from __future__ import annotations

import math

import numpy as np
import pytest
from toy_comparisons import on, values

from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation import comparison, metrics, significance
from retrieval_prompts.evaluation.comparison import compare_runs
from retrieval_prompts.evaluation.significance import adjust

# --- several data sets --------------------------------------------------------------------------------------------


def test_corrected_metric_by_metric() -> None:
    compared = on({"a": 16, "b": 16, "c": 10})
    found = comparison.corrected(compared, "holm")
    for metric in ("mrr@10", "ndcg@10"):
        raw = [each.metrics[metric].test.p_value for each in compared.values()]
        assert [each.metrics[metric].p for each in found.values()] == adjust(raw, "holm")
        assert raw == [2 / 2**6, 2 / 2**6, 1.0]
    assert all(each.metrics["mrr@10"].p_adjusted is None for each in compared.values())
    assert comparison.corrected(compared, "none") == compared
    alone = {"a": compared["a"]}
    assert comparison.corrected(alone, "holm") == alone


def test_data_sets_are_paired_only_when_there_are_six() -> None:
    five = comparison.average(on({name: 13 for name in "abcde"}), "mrr@10")
    assert five.test is None and (five.datasets, five.better) == (5, 5)
    assert [five.a, five.b] == pytest.approx([20 / 30, (13 + 17 / 2) / 30])
    six = comparison.average(on({name: 13 for name in "abcdef"}), "mrr@10")
    assert six.test is not None and six.test.p_value == 2 / 2**6
    assert six.test.difference == pytest.approx(six.b - six.a) == pytest.approx(0.05)


def test_equal_systems_are_seldom_called_different() -> None:
    """400 pairs of equals: p < 0.05 about 5 % of the time; and with Holm 8 data sets hold a false one as seldom."""
    rng = np.random.default_rng(7)
    p_values = []
    for _ in range(400):
        noise = rng.normal(0, 0.2, 40) * (rng.random(40) < 0.6)  # a good part of the queries is the same for both
        p_values.append(significance.compare(values([0.5] * 40), values(0.5 + noise), "m", 499).p_value)
    error = math.sqrt(0.05 * 0.95 / 400)
    assert 0.05 - 4 * error < np.mean(np.array(p_values) < 0.05) < 0.05 + 4 * error
    families = [p_values[start : start + 8] for start in range(0, 400, 8)]
    uncorrected = np.mean([min(family) < 0.05 for family in families])
    for correction in ("holm", "bh"):
        false = np.mean([min(adjust(family, correction)) < 0.05 for family in families])
        assert false < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 50) < uncorrected


# --- runs on judgements -------------------------------------------------------------------------------------------

QRELS: Qrels = {"q1": {"a": 1, "b": 0}, "q2": {"c": 2}, "q3": {"a": 1}, "none": {"a": 0}}


def test_every_query_with_a_relevant_document_counts() -> None:
    a: Run = {"q1": {"a": 2.0, "b": 1.0}, "q2": {"c": 1.0}, "none": {"a": 1.0}, "stranger": {"a": 1.0}}
    b: Run = {"q1": {"b": 2.0, "x": 1.0, "a": 0.5}, "q2": {}, "q3": {"a": 1.0}}
    found = compare_runs(QRELS, a, b, ["mrr@10"])
    assert (list(found.qrels), found.without_relevant, found.negatives) == (["q1", "q2", "q3"], 1, 1)
    first, second = found.rankings
    assert (first.missing, second.missing) == (1, 1)  # an empty entry is missing as well
    assert (first.strangers, second.strangers) == (1, 0)  # "none" was judged
    assert (first.depth, second.depth) == ((1, 1.5, 2), (1, 2.0, 3))
    assert (first.judged, second.judged) == (1.0, 3 / 4)  # x is not judged
    metric = found.metrics["mrr@10"]
    assert [metric.a, metric.b] == pytest.approx([2 / 3, (1 / 3 + 0 + 1) / 3])
    assert metric.judged_only == pytest.approx((1 / 2 + 0 + 1) / 3 - 2 / 3)  # without x the rank is 2
    assert found.scores[1]["mrr@10"] == {"q1": pytest.approx(1 / 3), "q2": 0.0, "q3": 1.0}
    assert compare_runs({"q2": {"c": 1}}, a, {"q2": {"c": 1.0}}, ["mrr@10"]).metrics["mrr@10"].judged_only is None


def test_identical_ids_are_dropped_as_beir_does() -> None:
    qrels: Qrels = {"q": {"q": 1, "a": 1}, "r": {"a": 1}}
    run: Run = {"q": {"q": 3.0, "a": 2.0}, "r": {"a": 1.0}}
    found = compare_runs(qrels, run, {"q": {"a": 1.0}, "r": {"r": 2.0, "a": 1.0}}, ["recall@10"])
    assert [ranking.identical for ranking in found.rankings] == [1, 1]
    assert [ranking.identical_relevant for ranking in found.rankings] == [1, 0]
    assert found.metrics["recall@10"].a == pytest.approx(3 / 4)
    assert found.runs[0] == {"q": {"a": 2.0}, "r": {"a": 1.0}}
    assert run["q"] == {"q": 3.0, "a": 2.0}
    kept = compare_runs(qrels, run, run, ["recall@10"], keep_identical=True)
    assert kept.metrics["recall@10"].a == 1.0 and kept.rankings[0].identical == 0


def test_runs_that_cannot_be_compared() -> None:
    run: Run = {"q1": {"a": 1.0}}
    with pytest.raises(UserError, match="none of the 1 judged queries has a relevant document"):
        compare_runs({"q1": {"a": 0}}, run, run, ["mrr@10"])
    with pytest.raises(UserError, match="run B has none of the 3 judged queries; are its ids those of the judgements"):
        compare_runs(QRELS, run, {"Q1": {"a": 1.0}}, ["mrr@10"])
    with pytest.raises(UserError, match="run A has none"):
        compare_runs({"q1": {"a": 1}}, {"q1": {"q1": 1.0}}, run, ["mrr@10"])  # nothing left but its own id
    with pytest.raises(UserError, match="unknown metric 'ndcg'"):
        compare_runs(QRELS, run, run, ["ndcg"])


def test_what_counts_is_what_evaluate_counts() -> None:
    rng = np.random.default_rng(4)
    qrels = {f"q{i}": {f"d{d}": int(rng.integers(1, 3)) for d in rng.permutation(20)[:3]} for i in range(20)}
    a, b = ({f"q{i}": {f"d{d}": float(rng.integers(0, 5)) for d in range(20)} for i in range(20)} for _ in range(2))
    names = list(metrics.METRICS)
    found = compare_runs(qrels, a, b, names, resamples=500)
    scores = [metrics.per_query(qrels, run) for run in (a, b)]
    for metric in names:
        assert found.metrics[metric].a == metrics.means(scores[0])[metric]
        assert found.metrics[metric].test == significance.compare(scores[0][metric], scores[1][metric], metric, 500)


# --- the conventions of BEIR --------------------------------------------------------------------------------------

K_VALUES = [1, 3, 5, 10, 100, 1000]
THEIRS = {"ndcg": "NDCG", "map": "MAP", "recall": "Recall", "precision": "P"}


def random_runs(seed: int) -> tuple[Qrels, Run]:
    """Grades -1 to 2, many ties, queries without an entry, with an empty one, without relevant documents, own ids."""
    rng = np.random.default_rng(seed)
    documents = [f"d{i}" for i in range(150)] + [f"q{i}" for i in range(40)]
    qrels = {
        f"q{i}": {
            documents[d]: int(rng.integers(-1, 3)) for d in rng.permutation(len(documents))[: rng.integers(1, 25)]
        }
        for i in range(40)
    }
    run = {
        f"q{i}": {
            documents[d]: float(rng.integers(0, 6)) for d in rng.permutation(len(documents))[: rng.integers(0, 150)]
        }
        for i in range(40)
    }
    for i in range(0, 40, 7):
        run[f"q{i}"][f"q{i}"] = 9.0
    return qrels, run


def beir(qrels: Qrels, run: Run) -> dict[str, float]:
    evaluation = pytest.importorskip("beir.retrieval.evaluation", reason="beir, the reference, is not installed")
    copy = {query: dict(scores) for query, scores in run.items()}  # theirs takes identical ids out of what it is given
    found = evaluation.EvaluateRetrieval.evaluate(qrels, copy, K_VALUES, ignore_identical_ids=True)
    return {name: value for metrics in found for name, value in metrics.items()}


def ours(qrels: Qrels, run: Run) -> dict[str, float]:
    names = {f"{name}@{k}": f"{theirs}@{k}" for name, theirs in THEIRS.items() for k in K_VALUES}
    means = metrics.means(metrics.per_query(qrels, metrics.drop_identical(run), list(names)))
    return {theirs: means[name] for name, theirs in names.items()}


@pytest.mark.parametrize("seed", range(5))
def test_beir_gives_the_same_to_5_digits_where_every_query_has_an_entry(seed: int) -> None:
    qrels, run = random_runs(seed)
    run["q1"] = {}  # counts 0 for both
    theirs = beir(qrels, run)
    found = ours(qrels, run)
    assert len(theirs) == len(found) == 4 * len(K_VALUES)
    for name, value in found.items():
        assert theirs[name] == pytest.approx(value, abs=5.1e-6), name  # theirs is rounded to 5 digits


def test_beir_averages_over_the_queries_of_the_run_only() -> None:
    qrels, run = random_runs(11)
    part = {query: scores for query, scores in run.items() if int(query[1:]) % 4}  # 30 of 40
    theirs = beir(qrels, part)
    assert theirs == beir(qrels, {**part, "stranger": {"d1": 1.0}})
    for name, value in ours(qrels, part).items():
        assert theirs[name] == pytest.approx(value * 40 / 30, abs=5.1e-6)
    whole = ours(qrels, {**{query: {} for query in qrels}, **part})
    assert whole == ours(qrels, part)
    for name, value in beir(qrels, {**{query: {} for query in qrels}, **part}).items():
        assert value == pytest.approx(whole[name], abs=5.1e-6)


def test_beir_ranks_ties_otherwise_only_for_mrr() -> None:
    evaluation = pytest.importorskip("beir.retrieval.evaluation", reason="beir, the reference, is not installed")
    qrels: Qrels = {"q": {"b": 1}, "missing": {"b": 1}}
    tied: Run = {"q": {"a": 1.0, "b": 1.0}}
    theirs = evaluation.EvaluateRetrieval.evaluate_custom(qrels, tied, [10], "mrr")["MRR@10"]
    assert theirs == 0.25  # the order of the dictionary, over all judged queries
    assert metrics.means(metrics.per_query(qrels, tied, ["mrr@10"])) == {"mrr@10": 0.5}  # trec_eval: b before a
