"""What a report says in words: better or worse only where the test says so, and what else must be said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import toy_reports
from toy_reports import comparison

from retrieval_prompts.report.content import Report, Section
from retrieval_prompts.report.summary import glossary, overview, pair, summarize

SYSTEMS = {"frozen": {"ndcg@10": 0.654}, "tuned": {"ndcg@10": 0.712}}


def section(systems: dict[str, dict[str, float]] | None = None, **given: Any) -> Section:
    return toy_reports.section(**{"systems": systems or SYSTEMS, "tests": {}, "queries": [], **given})


def sentences(**given: Any) -> list[str]:
    return summarize(section(**given))


def test_a_gain_that_is_tested_is_better() -> None:
    said = sentences(tests={"tuned_vs_frozen": comparison(0.058, 0.0004)})
    assert said[0] == (
        "Tuned is 5.8 points of nDCG@10 better than frozen (71.2 against 65.4; 95 % interval +0.8 to +10.8, p = "
        "0.0004); better on 6 of 50 queries, worse on 2, the same on 42."
    )
    assert len(said) == 1


def test_a_loss_that_is_tested_is_worse() -> None:
    assert sentences(tests={"tuned_vs_frozen": comparison(-0.058, 0.04)})[0] == (
        "Tuned is 5.8 points of nDCG@10 worse than frozen (71.2 against 65.4; 95 % interval -10.8 to -0.8, p = "
        "0.0400); better on 6 of 50 queries, worse on 2, the same on 42."
    )


def test_what_may_be_noise_is_called_so() -> None:
    assert sentences(tests={"tuned_vs_frozen": comparison(0.004, 0.52)})[0] == (
        "50 queries are too few to tell tuned from frozen: +0.4 points of nDCG@10, but anything from -4.6 to +5.4 "
        "would fit (71.2 against 65.4; p = 0.5200); better on 6 of 50 queries, worse on 2, the same on 42. To find a "
        "difference of 1.0 points takes about 2,600."
    )


def test_the_adjusted_p_value_decides() -> None:
    said = sentences(tests={"tuned_vs_frozen": comparison(0.058, 0.02, p_adjusted=0.08)})[0]
    assert said.startswith("50 queries are too few to tell tuned from frozen")
    assert "p = 0.0200, 0.0800 adjusted" in said


def test_a_test_the_other_way_round_is_turned() -> None:
    said = sentences(tests={"frozen_vs_tuned": comparison(-0.058, 0.001)})
    assert said[0].startswith("Tuned is 5.8 points of nDCG@10 better than frozen")
    assert "+0.8 to +10.8" in said[0]
    assert said[0].endswith("better on 2 of 50 queries, worse on 6, the same on 42.")


def test_without_a_test_it_could_be_noise() -> None:
    assert sentences() == [
        "Tuned against frozen: +5.8 points of nDCG@10 (71.2 against 65.4). It was not tested: it could be noise."
    ]


def test_equal_systems_are_equal() -> None:
    same = comparison(0.0, 1.0, helped=0, hurt=0, unchanged=50)
    assert sentences(tests={"tuned_vs_frozen": same}) == [
        "Tuned and frozen have the same nDCG@10 on every one of 50 queries."
    ]


def test_a_test_on_another_metric_names_it() -> None:
    systems = {"frozen": {"ndcg@10": 0.5, "r@1": 0.25}, "tuned": {"ndcg@10": 0.5, "r@1": 0.5}}
    said = sentences(systems=systems, tests={"tuned_vs_frozen": comparison(0.25, 0.01, metric="r@1")})
    assert said[0].startswith("Tuned is 25.0 points of R@1 better than frozen (50.0 against 25.0;")


def test_without_a_test_of_the_metric_the_queries_are_counted() -> None:
    queries = [toy_reports.query(number, 0.5, after) for number, after in enumerate([0.75, 0.25] + [0.5] * 28)]
    counted = "1 query was helped, 1 hurt, 28 unchanged."
    assert sentences(queries=queries)[1] == counted
    assert sentences(queries=queries, tests={"tuned_vs_frozen": comparison(metric="mrr@10")})[1] == counted


def test_what_was_found_and_lost_is_counted() -> None:
    queries = [
        toy_reports.query(number, frozen, tuned)
        for number, (frozen, tuned) in enumerate([(0, 0.5), (0, 1), (1, 0), (0.5, 1), (1, 0.5)] + [(1, 1)] * 25)
    ]
    test = comparison(0.02, 0.6, helped=3, hurt=2, unchanged=25)
    said = sentences(queries=queries, tests={"tuned_vs_frozen": test})
    assert "better on 3 of 30 queries, worse on 2, the same on 25. To find a difference of 1.0 points" in said[0]
    assert said[1:] == [
        "2 queries have something relevant among the first 10 that had nothing with frozen; 1 lost all that it had.",
    ]


def test_a_metric_of_zeros_and_ones_is_not_explained_twice() -> None:
    queries = [toy_reports.query(number, number % 2, 1) for number in range(30)]
    test = comparison(0.5, 0.001, helped=15, hurt=0, unchanged=15)
    assert len(sentences(queries=queries, tests={"tuned_vs_frozen": test})) == 1


@pytest.mark.parametrize(
    ("p", "difference", "start", "end"),
    [
        (
            0.01,
            0.05,
            "On the 10 queries {}, tuned is",
            "the same on 6. The gain is not memory of documents.",
        ),
        (
            *(0.3, 0.01, "The 10 queries {} are too few to tell tuned"),
            "How much of the gain is memory of documents, these data do not tell.",
        ),
    ],
)
def test_unseen_documents_say_whether_it_is_memory(p: float, difference: float, start: str, end: str) -> None:
    part = comparison(difference, p, helped=3, hurt=1, unchanged=6)
    whole = comparison(0.058, 0.001)
    said = sentences(tests={"tuned_vs_frozen": whole, "tuned_vs_frozen_unseen_documents": part})
    assert said[1].startswith(start.format("about documents that training had not seen"))
    assert said[1].endswith(end)
    assert said[2].startswith("2 tests were made here, and p is not adjusted")


@pytest.mark.parametrize(
    ("bm25", "tests", "expected"),
    [
        (0.75, {}, "BM25 scores higher: 75.0, 3.8 points above tuned (not tested)."),
        (0.68, {}, "BM25 reaches 68.0, above frozen but 3.2 points below tuned (not tested)."),
        (0.30, {}, "BM25 reaches 30.0, 41.2 points below tuned (not tested)."),
        (0.712, {}, "BM25 reaches 71.2, as much as tuned (not tested)."),
        (
            0.75,
            {"bm25_vs_tuned": (0.038, 0.3)},
            "BM25 scores higher: 75.0, 3.8 points above tuned (p = 0.3000 against tuned: it may be noise).",
        ),
        (
            0.30,
            {"tuned_vs_bm25": (0.4, 0.0001)},
            "BM25 reaches 30.0, 41.2 points below tuned (p = 0.0001 against tuned).",
        ),
    ],
)
def test_bm25_is_named_where_it_does_better(bm25: float, tests: dict[str, tuple[float, float]], expected: str) -> None:
    made = {name: comparison(*values, p_adjusted=values[1]) for name, values in tests.items()}
    said = sentences(systems={**SYSTEMS, "bm25": {"ndcg@10": bm25}}, tests=made)
    assert said[1:] == [expected]


def test_the_best_of_all_is_named() -> None:
    said = sentences(systems={**SYSTEMS, "rrf": {"ndcg@10": 0.8}, "lora": {"ndcg@10": 0.7}})
    assert said[1] == "The highest nDCG@10 of all is that of RRF, 80.0 (not tested)."


def test_few_queries_are_a_warning() -> None:
    said = sentences(queries=[toy_reports.query(number, 0.5, 0.5) for number in range(2)])
    assert said[-1] == "Only 2 queries were asked: one more or less can turn the result."


def test_a_single_system_has_nothing_to_be_compared_with() -> None:
    said = sentences(systems={"frozen": {"ndcg@10": 0.654}})
    assert said == ["Frozen reaches 65.4 nDCG@10; there is nothing to compare it with."]


def test_other_pairs_than_frozen_and_tuned() -> None:
    other = section({"zero-shot": {"ndcg@10": 0.5}, "coop": {"ndcg@10": 0.6}})
    assert pair(other) == ("zero-shot", "coop")
    assert pair(replace(other, baseline="coop", system="zero-shot")) == ("coop", "zero-shot")


def test_several_data_sets_in_a_sentence() -> None:
    gained, lost = {"tuned_vs_frozen": comparison(0.05, 0.01)}, {"tuned_vs_frozen": comparison(-0.05, 0.01)}
    parts = [
        section(name="one", tests=gained),
        section(name="two", tests=gained),
        section(name="three", tests=lost),
        section(name="four", tests={"tuned_vs_frozen": comparison(0.01, 0.4)}),
        section(name="five"),
    ]
    assert overview(toy_reports.report(*parts)) == [
        "Tuned is better than frozen on one and two, worse than frozen on three, not to be told apart from frozen on "
        "four and untested on five."
    ]
    assert overview(toy_reports.report(parts[0])) == []
    assert overview(toy_reports.report(parts[4], parts[4])) == []


def test_only_words_that_occur_are_explained() -> None:
    test = comparison(0.058, 0.02)

    def explained(**given: Any) -> list[str]:
        return [word for word, _ in glossary(Report("", [section(**given)]))]

    assert explained(systems={"zero-shot": {"accuracy": 0.5}}, tests={"a_vs_b": test}) == []
    known = ["frozen", "tuned", "nDCG@10", "points", "95 % interval", "p"]
    assert explained(tests={"tuned_vs_frozen": test}) == known
    assert explained(tests={"tuned_vs_frozen_unseen_documents": test}) == [*known, "unseen documents"]
