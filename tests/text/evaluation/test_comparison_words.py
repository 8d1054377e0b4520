"""Verdicts in words, and what must be said beside them."""

from __future__ import annotations

import dataclasses

import numpy as np
from toy_comparisons import answers, judged, on, one_pair

from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.evaluation import comparison
from retrieval_prompts.evaluation.comparison import compare_runs
from retrieval_prompts.evaluation.comparison_words import average_sentence, ranking_line, remarks, sentence, verdict
from retrieval_prompts.evaluation.significance import Paired, queries_needed

NAMES = ("frozen", "tuned")


def words(found: Paired, matters: float = 0.01, correction: str = "none", datasets: int = 1) -> str:
    return sentence("ndcg@10", found, NAMES, matters, correction, datasets)


def test_different() -> None:
    found = one_pair([0.5] * 20, [0.6] * 12 + [0.5] * 6 + [0.45] * 2)
    assert verdict(found, 0.01) == "different"
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
    assert verdict(found, 0.01) == "alike"
    low, high = (f"{100 * end:+.1f}" for end in found.test.ci95)
    assert words(found) == (
        "ndcg@10: no difference that matters between tuned and frozen, 50.0 against 50.0: whatever it is, it lies"
        f" between {low} and {high} points, within the 1.0 that matter (p = 1.0000); better on 100 of 200 queries,"
        " worse on 100, the same on 0."
    )
    assert verdict(found, 0.001) == "undecided"
    same = one_pair([0.5, 0.25] * 15, [0.5, 0.25] * 15)
    assert verdict(same, 0.01) == "alike"
    assert words(same) == "ndcg@10: frozen and tuned score the same on every one of 30 queries: 37.5."
    few = one_pair([0.5, 0.25], [0.5, 0.25])
    assert verdict(few, 0.01) == verdict(one_pair([0.5] * 29, [0.5] * 29), 0.01) == "undecided"
    assert words(few).endswith("on every one of 2 queries: 37.5. Too few queries to call them alike.")


def test_too_few_queries() -> None:
    found = one_pair([0.5] * 8, [0.9, 0.1, 0.8, 0.5, 0.6, 0.2, 0.5, 0.9])
    assert verdict(found, 0.01) == "undecided"
    text = words(found)
    assert text.startswith("ndcg@10: 8 queries are too few to tell tuned from frozen: +6.2 points, but anything from")
    assert " would fit (56.2 against 50.0; p = " in text
    assert found.deviation is not None and found.detectable is not None
    needed = queries_needed(found.deviation, 0.01)
    assert text.endswith(
        f"8 queries find a difference of {100 * found.detectable:.1f} points or more 4 times out of 5; to find one of"
        f" 1.0 takes about {round(needed, -2):,}."
    )
    single = one_pair([0.5], [0.9])
    assert verdict(single, 0.01) == verdict(single, 0.5) == "undecided"
    assert words(single).endswith("better on 1 of 1 query, worse on 0, the same on 0.")


def test_a_correction_may_take_the_difference_away() -> None:
    found = dataclasses.replace(one_pair([0.5] * 6, [0.6] * 6), p_adjusted=0.0938)  # p = 2 / 2**6
    assert verdict(found, 0.01) == "undecided"
    assert "; p = 0.0312, 0.0938 after Holm's correction for 3 data sets)" in words(found, 0.01, "holm", 3)


def test_remarks() -> None:
    qrels: Qrels = {f"q{i}": {"yes": 1, "no": 0} for i in range(10)} | {"q10": {"no": 0}, "yes": {"yes": 1}}
    good: Run = {query: {"yes": 3.0, "no": 2.0} for query in qrels}
    bad: Run = {f"q{i}": {f"x{d}": 10.0 + d for d in range(8)} | {"yes": 1.0} for i in range(9)} | {
        "stranger": {"a": 1.0}
    }
    found = compare_runs(qrels, good, bad, ["mrr@5", "mrr@100"])
    assert remarks(found, NAMES) == [
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
    assert remarks(found, NAMES) == []
    assert ranking_line("tuned", found.rankings[1], found) == (
        "tuned: all 4 judged queries, 2 documents each; of the top 10, 100.0 % are judged"
    )
    wrong = compare_runs(judged(2), answers(2, 2), {"q0": {"YES": 1.0}, "q1": {"YES": 1.0, "NO": 1.0}}, ["mrr@1"])
    assert "tuned finds nothing relevant: are its document ids those of the judgements?" in remarks(wrong, NAMES)


def test_averages_in_words() -> None:
    few = comparison.average(on({"a": 13, "b": 7}), "mrr@10")
    assert average_sentence("mrr@10", few, NAMES) == (
        "mrr@10, average of 2 data sets, each counting the same: tuned 66.7, frozen 66.7, 0.0 points; better on 1 of 2."
        " No test over data sets: fewer than 6 cannot reach p < 0.05, and queries of different data sets are not"
        " pooled."
    )
    six = comparison.average(on({name: 13 for name in "abcdef"}), "mrr@10")
    assert average_sentence("mrr@10", six, NAMES).endswith(
        "+5.0 points; better on 6 of 6. Paired test over data sets: p = 0.0312, a significant difference."
    )
