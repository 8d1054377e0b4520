"""Metrics against values computed by hand, statistics against enumeration, files against what was written."""

from __future__ import annotations

import gzip
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrieval_prompts import evaluate
from retrieval_prompts.data import Qrels, Run
from retrieval_prompts.errors import UserError

# --- metrics ------------------------------------------------------------------------------------------------------

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
    assert evaluate.per_query(QRELS, RUN, [metric]) == {metric: {"q": pytest.approx(value, abs=1e-12)}}


def test_every_judged_query_counts_and_no_other_does() -> None:
    qrels = {"found": {"a": 1}, "empty": {"a": 1}, "absent": {"a": 1}, "irrelevant": {"a": 0}, "unjudged": {}}
    run = {"found": {"a": 1.0}, "empty": {}, "irrelevant": {"a": 1.0}, "unjudged": {"a": 1.0}, "stranger": {"a": 1.0}}
    values = evaluate.per_query(qrels, run)
    assert list(values) == list(evaluate.METRICS)
    for per_metric in values.values():
        assert per_metric == {"found": 1.0, "empty": 0.0, "absent": 0.0, "irrelevant": 0.0, "unjudged": 0.0}
    assert evaluate.means(values) == dict.fromkeys(evaluate.METRICS, 0.2)


def test_mrr_is_cut_at_its_rank() -> None:
    run = {"q": {f"d{rank:03}": -float(rank) for rank in range(1, 301)}}
    for rank in (1, 3, 10, 11, 49, 100, 299):
        qrels = {"q": {f"d{rank:03}": 1}}
        values = evaluate.per_query(qrels, run, [f"mrr@{rank}", f"mrr@{max(rank - 1, 1)}", f"mrr@{rank + 1}"])
        assert values[f"mrr@{rank}"]["q"] == values[f"mrr@{rank + 1}"]["q"] == 1 / rank
        if rank > 1:
            assert values[f"mrr@{rank - 1}"]["q"] == 0


def test_ties_are_broken_by_trec_eval_and_scores_are_float32() -> None:
    scores = {"a": 1.0, "b": 1.0 + 1e-9, "c": 1.0}  # equal in float32: c, b, a
    for document, rank in (("c", 1), ("b", 2), ("a", 3)):
        values = evaluate.per_query({"q": {document: 1}}, {"q": scores}, ["mrr@3", f"recall@{rank}"])
        assert values["mrr@3"]["q"] == 1 / rank and values[f"recall@{rank}"]["q"] == 1
        assert evaluate.per_query({"q": {document: 1}}, {"q": scores}, ["mrr@1"])["mrr@1"]["q"] == (rank == 1)


def test_scores_may_be_numpy_and_the_run_is_left_as_it_was() -> None:
    scores = {"a": np.float32(1), "b": 2}
    values = evaluate.per_query({"q": {"a": 1}}, {"q": scores}, ["mrr@10"])  # type: ignore[dict-item]
    assert values == {"mrr@10": {"q": 0.5}}
    assert scores == {"a": np.float32(1), "b": 2} and isinstance(scores["a"], np.float32)


@pytest.mark.parametrize("metric", ["ndcg", "ndcg@0", "mrr@-1", "hits@10", "NDCG@10", "recall@10 ", "map@1.5", "p@1"])
def test_unknown_metrics_are_refused(metric: str) -> None:
    with pytest.raises(UserError, match=r"unknown metric .*; expected ndcg@k, map@k, recall@k, precision@k, hit@k"):
        evaluate.per_query(QRELS, RUN, [metric])


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(UserError, match="no judged queries"):
        evaluate.per_query({}, RUN)
    with pytest.raises(UserError, match="score of document 'a' for query 'q' is nan"):
        evaluate.per_query(QRELS, {"q": {"a": math.nan}})


def test_drop_identical() -> None:
    assert evaluate.drop_identical({"a": {"a": 2.0, "b": 1.0}, "c": {"b": 1.0}}) == {"a": {"b": 1.0}, "c": {"b": 1.0}}


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
    ours = evaluate.means(
        evaluate.per_query(
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
    for query, value in evaluate.per_query(qrels, run, ["mrr@5"])["mrr@5"].items():
        top = sorted(run[query], key=lambda id: (run[query][id], id), reverse=True)[:5]
        assert value == next((1 / rank for rank, id in enumerate(top, 1) if qrels[query].get(id, 0) > 0), 0)


# --- statistics ---------------------------------------------------------------------------------------------------


def values(*numbers: float) -> dict[str, float]:
    return {f"q{i}": number for i, number in enumerate(numbers)}


def enumerated_p(differences: list[float]) -> float:
    observed = abs(sum(differences))
    flips = list(itertools.product((1, -1), repeat=len(differences)))
    extreme = sum(abs(sum(s * d for s, d in zip(f, differences, strict=True))) >= observed - 1e-12 for f in flips)
    return extreme / len(flips)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0, 2.0, 3.0], 2 / 8),  # only +++ and --- are as far out
        ([1.0, 2.0, -3.0], 1.0),
        ([1.0, 1.0, 1.0, -1.0], 10 / 16),  # sums of +-2 or more: all but the 6 that are 0
        ([0.5], 1.0),
        ([0.5, 0.0, 0.0, 0.0], 1.0),
        ([1.0, 2.0, 3.0, 0.0, 0.0], 2 / 8),  # zeros change nothing
        ([0.3, -0.1, 0.25, 0.7, 0.0, -0.2, 0.4], None),
    ],
)
def test_p_is_exact_for_few_queries(differences: list[float], p: float | None) -> None:
    result = evaluate.compare(values(*[0.0] * len(differences)), values(*differences), "ndcg@10")
    assert result.p_value == pytest.approx(enumerated_p(differences))
    if p is not None:
        assert result.p_value == pytest.approx(p)


def test_p_is_that_of_scipy_for_many_queries() -> None:
    from scipy.stats import permutation_test

    for mean in (0.0, 0.01, 0.03):
        differences = np.random.default_rng(5).normal(mean, 0.1, 60)
        ours = evaluate.compare(values(*[0.0] * 60), values(*differences), "ndcg@10").p_value
        theirs = permutation_test(
            (differences,), np.mean, permutation_type="samples", batch=1000, rng=1, vectorized=True
        )
        assert ours == pytest.approx(theirs.pvalue, abs=4 * (0.25 / 10_000) ** 0.5)  # 4 standard errors, at most


def test_p_is_never_0_at_random_and_smallest_by_enumeration() -> None:
    for queries, p in ((9, 2 / 2**9), (10, 1 / 1001), (3000, 1 / 1001)):  # 2**9 <= 1000 < 2**10
        result = evaluate.compare(values(*[0.0] * queries), values(*[0.5] * queries), "m", resamples=1000, seed=1)
        assert result.p_value == pytest.approx(p, abs=5e-3 if queries == 10 else 0)


def test_p_allows_for_rounding() -> None:
    result = evaluate.compare(values(0, 0, 0), values(0.1, 0.2, -0.3), "m")  # the sum is 2.8e-17
    assert result.p_value == 1.0


def test_comparison_counts_and_difference() -> None:
    result = evaluate.compare(values(0.5, 0.5, 0.5, 0.5), values(1.0, 0.75, 0.25, 0.5), "mrr@10")
    assert (result.helped, result.hurt, result.unchanged) == (2, 1, 1)
    assert result.difference == 0.125
    low, high = result.ci95
    assert -0.25 <= low < 0.125 < high <= 0.5
    assert result.as_dict() == {
        "metric": "mrr@10",
        "difference": 0.125,
        "ci95": [low, high],
        "p_value": result.p_value,
        "helped": 2,
        "hurt": 1,
        "unchanged": 1,
    }


def test_statistics_of_many_queries() -> None:
    rng = np.random.default_rng(0)
    baseline, noise = rng.random(400), rng.normal(0.02, 0.1, 400)
    a, b = values(*baseline), values(*(baseline + noise))
    result = evaluate.compare(a, b, "ndcg@10", resamples=2000, seed=3)
    assert result == evaluate.compare(a, b, "ndcg@10", resamples=2000, seed=3)
    assert result != evaluate.compare(a, b, "ndcg@10", resamples=2000, seed=4)
    reverse = evaluate.compare(b, a, "ndcg@10", resamples=2000, seed=3)
    assert reverse.difference == -result.difference
    assert reverse.ci95 == pytest.approx((-result.ci95[1], -result.ci95[0]))

    standard_error = noise.std() / 20  # the central limit theorem, at 400 queries
    assert result.ci95 == pytest.approx(
        (result.difference - 1.96 * standard_error, result.difference + 1.96 * standard_error),
        abs=0.15 * standard_error,
    )
    assert result.p_value < 0.01
    noise_only = evaluate.compare(a, values(*(baseline + noise - noise.mean())), "ndcg@10", resamples=2000)
    assert noise_only.p_value > 0.9 and noise_only.ci95[0] < 0 < noise_only.ci95[1]


@pytest.mark.parametrize(("baseline", "system", "ci"), [((0.5, 0.25), (0.5, 0.25), 0.0), ((0.5,), (0.75,), 0.25)])
def test_degenerate_comparisons(baseline: tuple[float, ...], system: tuple[float, ...], ci: float) -> None:
    result = evaluate.compare(values(*baseline), values(*system), "ndcg@10")
    assert (result.difference, result.ci95, result.p_value) == (ci, (ci, ci), 1.0)


def test_the_order_of_the_queries_of_the_system_does_not_matter() -> None:
    a, b = values(0.1, 0.2, 0.3), values(0.5, 0.2, 0.1)
    assert evaluate.compare(a, dict(reversed(b.items())), "m") == evaluate.compare(a, b, "m")


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UserError, match=r"same queries on both sides, got 2 and 3; 1 are on one side only .q2."):
        evaluate.compare(values(1, 1), values(1, 1, 1), "ndcg@10")
    with pytest.raises(UserError, match="no queries to compare on"):
        evaluate.compare({}, {}, "ndcg@10")


# --- BM25 ---------------------------------------------------------------------------------------------------------


def test_bm25_ranks_the_rarer_and_stemmed_word_first() -> None:
    texts = ["the cat sat", "a dog and a cat", "running dogs", "of the"]
    run = evaluate.bm25_run(iter(texts), ["a", "b", "c", "d"], {"q": "dog runs", "none": "zebra", "stop": "the"}, k=100)
    assert list(run) == ["q", "none", "stop"]
    assert sorted(run["q"], key=run["q"].__getitem__, reverse=True) == ["c", "b"]  # a and d share no word with it
    assert run["none"] == run["stop"] == {}
    assert list(evaluate.bm25_run(texts, ["a", "b", "c", "d"], {"q": "dog runs"}, k=1)["q"]) == ["c"]
    assert evaluate.bm25_run(texts, ["a", "b", "c", "d"], {}) == {}


def test_bm25_score_by_hand() -> None:
    run = evaluate.bm25_run(["cat", "dog bird"], ["a", "b"], {"q": "cat"})
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    assert run == {"q": {"a": pytest.approx(idf * 1 / (1 + 1.5 * (1 - 0.75 + 0.75 * 1 / 1.5)), rel=1e-6)}}


def test_bm25_is_silent_unless_asked(capfd: pytest.CaptureFixture[str]) -> None:
    evaluate.bm25_run(["cat", "dog"], ["a", "b"], {"q": "cat"})
    assert capfd.readouterr() == ("", "")


def test_bm25_refuses_what_it_cannot_index() -> None:
    with pytest.raises(UserError, match="found no words in the 2 documents"):
        evaluate.bm25_run(["", "the"], ["a", "b"], {"q": "cat"})
    with pytest.raises(UserError, match="one id for each text, got 1 texts and 2 ids"):
        evaluate.bm25_run(["cat"], ["a", "b"], {"q": "cat"})


# --- run files and the table --------------------------------------------------------------------------------------


def test_run_files_are_sorted_and_round_trip(tmp_path: Path) -> None:
    run: Run = {"q2": {"a": 0.1, "b": 1 / 3, "c": 0.1}, "q1": {"ä": -2e-9}}
    path = tmp_path / "deep" / "run.trec"
    evaluate.write_run(path, run, "frozen")
    assert path.read_text(encoding="utf-8").splitlines() == [
        "q2 Q0 b 1 0.3333333333333333 frozen",
        "q2 Q0 c 2 0.1 frozen",
        "q2 Q0 a 3 0.1 frozen",
        "q1 Q0 ä 1 -2e-09 frozen",
    ]
    assert evaluate.read_run(path) == run
    evaluate.write_run(tmp_path / "run.trec.gz", run, "frozen")
    assert gzip.decompress((tmp_path / "run.trec.gz").read_bytes()) == path.read_bytes()
    assert evaluate.read_run(str(tmp_path / "run.trec.gz")) == run
    assert [file.name for file in path.parent.iterdir()] == ["run.trec"]  # nothing temporary is left


def test_a_run_from_elsewhere_is_read_by_its_scores(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("q\tQ0\tb\t0\t1\tx\n\nq Q0 a 9 2.5 x\r\n")
    assert evaluate.read_run(path) == {"q": {"b": 1.0, "a": 2.5}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 b 2 1.0", "expected 6 columns .* got 5"),
        ("q Q0 b 2 1.0 x y", "expected 6 columns .* got 7"),
        ("q Q0 b 2 high x", "expected a finite number as the score, got 'high'"),
        ("q Q0 b 2 nan x", "expected a finite number as the score, got 'nan'"),
        ("q Q0 a 2 0.5 x", "document 'a' came for query 'q' already"),
    ],
)
def test_a_bad_run_line_is_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "run"
    path.write_text(f"q Q0 a 1 1.0 x\n{line}\n")
    with pytest.raises(UserError, match=f"run:2: {message}"):
        evaluate.read_run(path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: evaluate.write_run(path, {"a b": {"d": 1.0}}, "x"),
        lambda path: evaluate.write_run(path, {"q": {"a\tb": 1.0}}, "x"),
        lambda path: evaluate.write_run(path, {"q": {"": 1.0}}, "x"),
        lambda path: evaluate.write_run(path, {"q": {"d": 1.0}}, "my run"),
    ],
)
def test_ids_that_would_break_the_columns_are_refused(tmp_path: Path, write: Callable[[Path], None]) -> None:
    with pytest.raises(UserError, match=r"a TREC run cannot hold the id or tag '.*': it is empty or has white space"):
        write(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_run_with_a_score_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is inf, not a finite number"):
        evaluate.write_run(tmp_path / "run", {"q": {"d": math.inf}}, "x")


def test_the_table_shows_percent() -> None:
    from rich.console import Console

    console = Console(width=80)
    with console.capture() as capture:
        console.print(evaluate.table({"frozen": {"ndcg@10": 0.64508, "mrr@10": 0.5}, "BM25": {"ndcg@10": 0.6863}}))
    header, frozen, bm25 = (line for line in capture.get().splitlines() if any(c.isalnum() for c in line))
    assert [name in header for name in ("system", "ndcg@10", "mrr@10")] == [True] * 3
    assert [name in frozen for name in ("frozen", "64.5", "50.0")] == [True] * 3
    assert [name in bm25 for name in ("BM25", "68.6", " - ")] == [True] * 3
