"""What a report says in words: better or worse only where the test says so, and what else must be said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import toy_reports
from toy_reports import comparison

from retrieval_prompts.report.content import Section
from retrieval_prompts.report.summary import metric_name, overview, p_text, pair, paired_tests, points, summarize

SYSTEMS = {"frozen": {"ndcg@10": 0.654}, "tuned": {"ndcg@10": 0.712}}


def section(systems: dict[str, dict[str, float]] | None = None, **given: Any) -> Section:
    return toy_reports.section(**{"systems": systems or SYSTEMS, "tests": {}, "queries": [], **given})


def sentences(**given: Any) -> list[str]:
    return summarize(section(**given))


def test_a_gain_that_is_tested_is_better() -> None:
    said = sentences(tests={"tuned_vs_frozen": comparison(0.058, 0.0004)})
    assert said[0] == (
        "Tuned is 5.8 points of nDCG@10 better than frozen (71.2 against 65.4; 95 % interval +0.8 to +10.8, p < 0.001)."
    )
    assert said[1] == "6 queries were helped, 2 hurt, 42 unchanged."
    assert len(said) == 2


def test_a_loss_that_is_tested_is_worse() -> None:
    assert sentences(tests={"tuned_vs_frozen": comparison(-0.058, 0.04)})[0] == (
        "Tuned is 5.8 points of nDCG@10 worse than frozen (71.2 against 65.4; 95 % interval −10.8 to −0.8, p = 0.040)."
    )


def test_what_may_be_noise_is_called_so() -> None:
    assert sentences(tests={"tuned_vs_frozen": comparison(0.004, 0.52)})[0] == (
        "Tuned and frozen cannot be told apart: +0.4 points of nDCG@10 may be noise "
        "(71.2 against 65.4; 95 % interval −4.6 to +5.4, p = 0.52)."
    )


def test_the_adjusted_p_value_decides() -> None:
    said = sentences(tests={"tuned_vs_frozen": comparison(0.058, 0.02, p_adjusted=0.08)})[0]
    assert said.startswith("Tuned and frozen cannot be told apart")
    assert "p = 0.080 adjusted" in said


def test_a_test_the_other_way_round_is_turned() -> None:
    said = sentences(tests={"frozen_vs_tuned": comparison(-0.058, 0.001)})
    assert said[0].startswith("Tuned is 5.8 points of nDCG@10 better than frozen")
    assert "+0.8 to +10.8" in said[0]
    assert said[1] == "2 queries were helped, 6 hurt, 42 unchanged."


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


def test_what_was_found_and_lost_is_counted() -> None:
    queries = [
        toy_reports.query(number, frozen, tuned)
        for number, (frozen, tuned) in enumerate([(0, 0.5), (0, 1), (1, 0), (0.5, 1), (1, 0.5)] + [(1, 1)] * 25)
    ]
    test = comparison(0.02, 0.6, helped=3, hurt=2, unchanged=25)
    said = sentences(queries=queries, tests={"tuned_vs_frozen": test})
    assert said[1:] == [
        "3 queries were helped, 2 hurt, 25 unchanged.",
        "For 2 queries it finds something relevant among the first 10 where frozen found nothing; "
        "for 1 it lost all that frozen had found.",
    ]


def test_a_metric_of_zeros_and_ones_is_not_explained_twice() -> None:
    queries = [toy_reports.query(number, number % 2, 1) for number in range(30)]
    test = comparison(0.5, 0.001, helped=15, hurt=0, unchanged=15)
    assert len(sentences(queries=queries, tests={"tuned_vs_frozen": test})) == 2


@pytest.mark.parametrize(
    ("p", "difference", "end"),
    [
        (0.01, 0.05, ": the gain is not memory of documents."),
        (0.3, 0.01, ": how much of the gain is memory of documents, these data do not tell."),
    ],
)
def test_unseen_documents_say_whether_it_is_memory(p: float, difference: float, end: str) -> None:
    part = comparison(difference, p, helped=3, hurt=1, unchanged=6)
    whole = comparison(0.058, 0.001)
    said = sentences(tests={"tuned_vs_frozen": whole, "tuned_vs_frozen_unseen_documents": part})
    assert said[2].startswith("On the 10 queries none of whose relevant documents was relevant in training")
    assert said[2].endswith(end)
    assert said[3].startswith("The p-values are not adjusted for the 2 tests")


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
            "BM25 scores higher: 75.0, 3.8 points above tuned (p = 0.30 against tuned: it may be noise).",
        ),
        (
            0.30,
            {"tuned_vs_bm25": (0.4, 0.0001)},
            "BM25 reaches 30.0, 41.2 points below tuned (p < 0.001 against tuned).",
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


def test_names_of_tests_are_taken_apart_by_the_systems_there_are() -> None:
    systems = {name: {"ndcg@10": 0.5} for name in ("a", "a_vs_b", "b", "b_c")}
    made = {"a_vs_b_vs_b_c": comparison(), "b_vs_a_unseen_documents": comparison(), "mean_vs_gone": comparison()}
    found = paired_tests(section(systems, tests=made))
    assert [(test.system, test.baseline, test.part) for test in found] == [
        ("a_vs_b", "b_c", ""),
        ("b", "a", "unseen documents"),
        ("mean_vs_gone", "", ""),
    ]


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


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [(0.1234, False, "12.3"), (0.1234, True, "+12.3"), (-0.05, False, "−5.0"), (-0.0001, True, "0.0")],
)
def test_points(value: float, signed: bool, text: str) -> None:
    assert points(value, signed) == text


def test_names_and_p_values_as_people_write_them() -> None:
    assert [metric_name(name) for name in ("ndcg@10", "map@100", "recall@1000", "mean_per_class")] == [
        "nDCG@10",
        "MAP@100",
        "recall@1000",
        "mean per class",
    ]
    assert [p_text(p) for p in (0.0001, 0.012, 0.1, 1.0)] == ["p < 0.001", "p = 0.012", "p = 0.10", "p = 1.00"]
