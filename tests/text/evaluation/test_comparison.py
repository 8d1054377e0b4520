"""Paired statistics by hand and against scipy and BEIR, judgements read from both formats, verdicts in words."""

from __future__ import annotations

import dataclasses
import gzip
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from retrieval_prompts.data.judgements import Qrels, Run, read_qrels
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation import comparison, metrics, significance, verdict
from retrieval_prompts.evaluation.comparison import Compared, adjust, compare_runs, detectable, paired, queries_needed

NAMES = ("frozen", "tuned")


def values(numbers: Iterable[float]) -> dict[str, float]:
    return {f"q{i}": float(number) for i, number in enumerate(numbers)}


def one_pair(before: Iterable[float], after: Iterable[float], resamples: int = 999) -> comparison.Paired:
    return paired(values(before), values(after), "ndcg@10", resamples)


# --- statistics ---------------------------------------------------------------------------------------------------


def test_effect_sizes_by_hand() -> None:
    found = one_pair([0.5, 0.5, 0.5, 0.5, 0.5], [0.6, 0.4, 0.8, 0.9, 0.5])  # differences +1 -1 +3 +4 0, in tenths
    assert [found.a, found.b] == pytest.approx([0.5, 0.64])
    assert found.deviation == pytest.approx(math.sqrt((0.04**2 + 0.24**2 + 0.16**2 + 0.26**2 + 0.14**2) / 4))
    assert found.d_z == pytest.approx(0.14 / math.sqrt(0.043))
    assert found.rank_biserial == pytest.approx((1.5 + 3 + 4 - 1.5) / 10)  # ranks 1.5 1.5 3 4; 0 has none
    assert (found.queries, found.p_adjusted, found.p) == (5, None, found.test.p_value)


def test_the_same_as_scipy() -> None:
    from scipy.stats import ttest_1samp, wilcoxon

    rng = np.random.default_rng(3)
    before = rng.random(80)
    after = np.clip(before + rng.normal(0.03, 0.2, 80) * (rng.random(80) < 0.7), 0, 1)
    found = one_pair(before, after)
    assert found.p_t == pytest.approx(ttest_1samp(after - before, 0).pvalue)
    assert found.p_wilcoxon == pytest.approx(wilcoxon(np.round(after - before, 12), zero_method="wilcox").pvalue)
    assert found.test == significance.compare(values(before), values(after), "ndcg@10", 999)
    assert found.d_z == pytest.approx((after - before).mean() / np.std(after - before, ddof=1))


def test_equal_differences_are_ties_whatever_they_were_rounded_to() -> None:
    found = one_pair([0.1, 0.2, 0.7, 0.5], [0.3, 0.4, 0.9, 0.3])  # three times +0.2 and once -0.2, in decimals
    assert found.rank_biserial == pytest.approx((3 - 1) / 4)


def test_turned_round_the_signs_change() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(30), rng.random(30)
    there, back = one_pair(a, b), one_pair(b, a)
    assert back.test.difference == -there.test.difference
    assert there.d_z is not None and there.rank_biserial is not None
    assert [back.d_z, back.rank_biserial] == pytest.approx([-there.d_z, -there.rank_biserial])
    for name in ("p_t", "p_wilcoxon", "deviation", "detectable"):
        assert getattr(back, name) == pytest.approx(getattr(there, name))


@pytest.mark.parametrize(
    ("before", "after", "defined"),
    [
        ([0.5, 0.2], [0.5, 0.2], {"deviation"}),
        ([0.5, 0.2, 0.1], [0.6, 0.3, 0.2], {"deviation", "p_wilcoxon", "rank_biserial"}),  # all +0.1
        ([0.5], [0.6], {"p_wilcoxon", "rank_biserial"}),
    ],
)
def test_what_is_undefined_is_none(before: list[float], after: list[float], defined: set[str]) -> None:
    found = one_pair(before, after)
    names = {"p_t", "p_wilcoxon", "deviation", "d_z", "rank_biserial", "detectable"}
    assert {name for name in names if getattr(found, name) is not None} == defined
    assert found.deviation in (None, pytest.approx(0, abs=1e-12))


def test_detectable_difference_is_that_of_the_tables() -> None:
    # Two-sided paired t-test at 0.05 and 80 %: d = 0.2, 0.5 and 0.8 take 199, 34 and 15 pairs (G*Power 3.1)
    for effect, queries in ((0.2, 199), (0.5, 34), (0.8, 15)):
        assert detectable(1.0, queries) <= effect < detectable(1.0, queries - 1)
        assert queries_needed(1.0, effect) == queries
        assert queries_needed(0.3, 0.3 * effect) == queries
    assert detectable(0.4, 10_000) == pytest.approx(2.8016 * 0.4 / 100, rel=1e-3)
    assert queries_needed(0.0001, 0.5) == 2


def test_detectable_difference_is_detected_four_times_out_of_five() -> None:
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(1)
    differences = rng.normal(detectable(0.3, 40), 0.3, size=(4000, 40))
    found = float((ttest_1samp(differences, 0, axis=1).pvalue < 0.05).mean())
    assert found == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 4000))


# --- several data sets --------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert adjust([0.01, 0.04, 0.03, 0.005], "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust([0.5, 0.4, 0.9], "holm") == [1.0, 1.0, 1.0]  # 3 x 0.4, then never less
    assert adjust([0.02], "holm") == [0.02]
    assert adjust([0.01, 0.01], "holm") == [0.02, 0.02]


def test_benjamini_hochberg_by_hand() -> None:
    assert adjust([0.01, 0.04, 0.03, 0.005], "bh") == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert adjust([0.01, 0.02, 0.9], "bh") == pytest.approx([0.03, 0.03, 0.9])
    assert adjust([0.01, 0.9], "none") == [0.01, 0.9]
    assert adjust([], "bh") == adjust([], "holm") == []


@pytest.mark.parametrize("correction", ["holm", "bh"])
def test_corrections_keep_the_order_and_only_raise(correction: str) -> None:
    raw = list(np.random.default_rng(2).random(20) ** 3)
    adjusted = adjust(raw, correction)
    assert all(before <= after <= 1 for before, after in zip(raw, adjusted, strict=True))
    order = np.argsort(raw)
    assert all(np.diff(np.array(adjusted)[order]) >= 0)
    turned = adjust(raw[::-1], correction)
    assert turned[::-1] == pytest.approx(adjusted)


def test_unknown_correction() -> None:
    with pytest.raises(UserError, match="unknown correction 'bonferroni'; expected holm, bh, none"):
        adjust([0.1], "bonferroni")


def judged(queries: int) -> Qrels:
    return {f"q{i}": {"yes": 1, "no": 0} for i in range(queries)}


def answers(queries: int, right: int) -> Run:
    """The relevant document comes first for so many queries, else second."""
    return {f"q{i}": {"yes": 1.0, "no": 0.0 if i < right else 2.0} for i in range(queries)}


def on(datasets: dict[str, int], **options: int) -> dict[str, Compared]:
    return {
        name: compare_runs(judged(30), answers(30, 10), answers(30, right), ["mrr@10", "ndcg@10"], resamples=999)
        for name, right in datasets.items()
    }


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


# --- judgements ---------------------------------------------------------------------------------------------------

BEIR = "query-id\tcorpus-id\tscore\nq 1\td 1\t1\nq 1\td2\t0\n\nq2\td1\t2\n"
TREC = "q1 0 d1 1\nq1\t0\td2  0\r\n\nq2 Q0 d1 -2\n"


@pytest.mark.parametrize("gz", [False, True])
def test_both_formats(tmp_path: Path, gz: bool) -> None:
    for name, text, expected in (
        ("test.tsv", BEIR, {"q 1": {"d 1": 1, "d2": 0}, "q2": {"d1": 2}}),
        ("qrels.txt", TREC, {"q1": {"d1": 1, "d2": 0}, "q2": {"d1": -2}}),
    ):
        path = tmp_path / (f"{name}.gz" if gz else name)
        path.write_bytes(gzip.compress(text.encode()) if gz else b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
        assert read_qrels(path) == expected
        assert list(read_qrels(path)) == list(expected)


def test_the_split_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "dev.tsv").write_text(BEIR)
    (tmp_path / "qrels" / "test.tsv.gz").write_bytes(gzip.compress(BEIR.replace("\t2", "\t1").encode()))
    assert read_qrels(tmp_path)["q2"] == {"d1": 1}
    assert read_qrels(tmp_path, "dev")["q2"] == {"d1": 2}
    with pytest.raises(
        UserError, match=r"no judgements for the split 'tst': it has dev, test; choose one with --split"
    ):
        read_qrels(tmp_path, "tst")
    with pytest.raises(UserError, match=r"for the split 'test': it holds no qrels/<split>\.tsv"):
        read_qrels(tmp_path / "qrels")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1\td1\t1\n", ":1: expected TREC's 4 columns .* got 3: "),
        ("q1 0 d1 1\nquery-id\tcorpus-id\tscore\n", ":2: expected TREC's 4 columns .* got 3"),
        ("query-id\tcorpus-id\tscore\nq1 0 d1 1\n", ":2: expected 3 columns with tabs between, got 1"),
        ("query-id\tcorpus-id\tscore\nq1\td1\t1\t1\n", ":2: expected 3 columns with tabs between, got 4"),
        ("q1 0 d1 1 tag extra\n", ":1: expected TREC's 4 columns .* got 6"),
        ("q1 0 d1 yes\n", ":1: expected an integer grade of at most 4 digits, got 'yes'"),
        ("q1 0 d1 0.5\n", ":1: expected an integer grade of at most 4 digits, got '0.5'"),
        ("q1 0 d1 12345\n", ":1: expected an integer grade of at most 4 digits, got '12345'"),
        ("q1 0 d1 1\nq1 0 d1 0\n", ":2: document 'd1' has grade 0 for query 'q1' here, and 1 on an earlier line"),
        ("", " holds no judgements"),
        ("query-id\tcorpus-id\tscore\n", " holds no judgements"),
    ],
)
def test_malformed_judgements(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "qrels"
    path.write_text(text)
    with pytest.raises(UserError, match=f"qrels{message}"):
        read_qrels(path)


def test_a_judgement_may_come_twice(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("q1 0 d1 1\nq1 0 d1 1\n")
    assert read_qrels(tmp_path / "qrels") == {"q1": {"d1": 1}}
    with pytest.raises(UserError, match="absent does not exist"):
        read_qrels(tmp_path / "absent")


# --- words --------------------------------------------------------------------------------------------------------


def words(found: comparison.Paired, matters: float = 0.01, correction: str = "none", datasets: int = 1) -> str:
    return verdict.sentence("ndcg@10", found, NAMES, matters, correction, datasets)


def test_different() -> None:
    found = one_pair([0.5] * 20, [0.6] * 12 + [0.5] * 6 + [0.45] * 2)
    assert verdict.verdict(found, 0.01) == "different"
    low, high = (f"{100 * end:+.1f}" for end in found.test.ci95)
    assert words(found) == (
        f"ndcg@10: tuned is better than frozen by 5.5 points, 55.5 against 50.0 (95 % interval {low} to {high}, p ="
        f" {found.test.p_value:.4f}); better on 12 of 20 queries, worse on 2, the same on 6."
    )
    assert words(found, matters=0.06).endswith("the same on 6. It is less than the 6.0 that matter.")
    back = one_pair([0.6] * 20, [0.5] * 19 + [0.6])
    assert words(back).startswith("ndcg@10: tuned is worse than frozen by 9.5 points, 50.5 against 60.0")


def test_alike() -> None:
    signs = np.tile([1, -1], 100)
    found = one_pair([0.5] * 200, 0.5 + 0.01 * signs)
    assert verdict.verdict(found, 0.01) == "alike"
    low, high = (f"{100 * end:+.1f}" for end in found.test.ci95)
    assert words(found) == (
        "ndcg@10: no difference that matters between tuned and frozen, 50.0 against 50.0: whatever it is, it lies"
        f" between {low} and {high} points, within the 1.0 that matter (p = 1.0000); better on 100 of 200 queries,"
        " worse on 100, the same on 0."
    )
    assert verdict.verdict(found, 0.001) == "undecided"
    same = one_pair([0.5, 0.25] * 15, [0.5, 0.25] * 15)
    assert verdict.verdict(same, 0.01) == "alike"
    assert words(same) == "ndcg@10: frozen and tuned score the same on every one of 30 queries: 37.5."
    few = one_pair([0.5, 0.25], [0.5, 0.25])
    assert verdict.verdict(few, 0.01) == verdict.verdict(one_pair([0.5] * 29, [0.5] * 29), 0.01) == "undecided"
    assert words(few).endswith("on every one of 2 queries: 37.5. Too few queries to call them alike.")


def test_too_few_queries() -> None:
    found = one_pair([0.5] * 8, [0.9, 0.1, 0.8, 0.5, 0.6, 0.2, 0.5, 0.9])
    assert verdict.verdict(found, 0.01) == "undecided"
    text = words(found)
    assert text.startswith(
        "ndcg@10: too few queries to tell tuned from frozen, 56.2 against 50.0: +6.2 points, but any"
    )
    assert found.deviation is not None and found.detectable is not None
    needed = queries_needed(found.deviation, 0.01)
    assert text.endswith(
        f"8 queries find a difference of {100 * found.detectable:.1f} points or more 4 times out of 5; to find one of"
        f" 1.0 takes about {round(needed, -2):,}."
    )
    single = one_pair([0.5], [0.9])
    assert verdict.verdict(single, 0.01) == verdict.verdict(single, 0.5) == "undecided"
    assert words(single).endswith("better on 1 of 1 query, worse on 0, the same on 0.")


def test_a_correction_may_take_the_difference_away() -> None:
    found = dataclasses.replace(one_pair([0.5] * 6, [0.6] * 6), p_adjusted=0.0938)  # p = 2 / 2**6
    assert verdict.verdict(found, 0.01) == "undecided"
    assert "(p = 0.0312, 0.0938 after Holm's correction for 3 data sets)" in words(found, 0.01, "holm", 3)


def test_remarks() -> None:
    qrels: Qrels = {f"q{i}": {"yes": 1, "no": 0} for i in range(10)} | {"q10": {"no": 0}, "yes": {"yes": 1}}
    good: Run = {query: {"yes": 3.0, "no": 2.0} for query in qrels}
    bad: Run = {f"q{i}": {f"x{d}": 10.0 + d for d in range(8)} | {"yes": 1.0} for i in range(9)} | {
        "stranger": {"a": 1.0}
    }
    found = compare_runs(qrels, good, bad, ["mrr@5", "mrr@100"])
    assert verdict.remarks(found, NAMES) == [
        "Judged queries without a relevant document, left out: 1.",
        "Documents with the id of their query, dropped from frozen as BEIR does: 1, 1 of them judged relevant; is"
        " --keep-identical right here?",
        "Judged queries that tuned does not have, each counted as 0: 2 of 11.",
        "Queries of tuned without judgements, ignored: 1.",
        "frozen holds at most 2 documents a query, but mrr@5 looks at 5: what it would have found further down counts"
        " as not found.",
        "frozen holds at most 2 documents a query, but mrr@100 looks at 100: what it would have found further down"
        " counts as not found.",
        "tuned holds at most 9 documents a query, but mrr@100 looks at 100: what it would have found further down"
        " counts as not found.",
        "mrr@5: be careful, tuned is behind with fewer judged documents in its top 10 (11.1 %, frozen 95.2 %). One"
        " without a judgement counts as not relevant, so part of the difference may be missing judgements: with judged"
        " documents alone it is -9.1 points instead of -90.9.",
        "mrr@100: be careful, tuned is behind with fewer judged documents in its top 10 (11.1 %, frozen 95.2 %). One"
        " without a judgement counts as not relevant, so part of the difference may be missing judgements: with judged"
        " documents alone it is -9.1 points instead of -81.8.",
    ]


def test_nothing_to_remark() -> None:
    found = compare_runs(judged(4), answers(4, 2), answers(4, 4), ["mrr@2"])
    assert verdict.remarks(found, NAMES) == []
    assert verdict.ranking_line("tuned", found.rankings[1], found) == (
        "tuned: all 4 judged queries, 2 documents each; of the top 10, 100.0 % are judged"
    )
    wrong = compare_runs(judged(2), answers(2, 2), {"q0": {"YES": 1.0}, "q1": {"YES": 1.0, "NO": 1.0}}, ["mrr@1"])
    assert "tuned finds nothing relevant: are its document ids those of the judgements?" in verdict.remarks(
        wrong, NAMES
    )


def test_averages_in_words() -> None:
    few = comparison.average(on({"a": 13, "b": 7}), "mrr@10")
    assert verdict.average_sentence("mrr@10", few, NAMES) == (
        "mrr@10, average of 2 data sets, each counting the same: tuned 66.7, frozen 66.7, 0.0 points; better on 1 of 2."
        " No test over data sets: fewer than 6 cannot reach p < 0.05, and queries of different data sets are not"
        " pooled."
    )
    six = comparison.average(on({name: 13 for name in "abcdef"}), "mrr@10")
    assert verdict.average_sentence("mrr@10", six, NAMES).endswith(
        "+5.0 points; better on 6 of 6. Paired test over data sets: p = 0.0312, a significant difference."
    )
