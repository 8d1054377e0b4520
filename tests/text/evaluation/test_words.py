"""A paired test in words, word for word; numbers, names and p-values as people write them."""

from __future__ import annotations

from typing import Any

import pytest
import toy_reports

from retrieval_prompts.evaluation.significance import Comparison
from retrieval_prompts.evaluation.words import (
    metric_name,
    moved,
    p_cell,
    p_text,
    paired_sentence,
    paired_tests,
    points,
    system_name,
    system_title,
)


def comparison(difference: float, p: float, **more: Any) -> Comparison:
    return Comparison.from_dict(toy_reports.comparison(difference, p, **more))


def test_better_and_worse() -> None:
    found = comparison(0.058, 0.0004)
    assert paired_sentence("tuned", "frozen", found) == (
        "Tuned is 5.8 points of nDCG@10 better than frozen (95 % interval +0.8 to +10.8, p = 0.0004); better on 6 of "
        "50 queries, worse on 2, the same on 42."
    )
    assert paired_sentence("frozen", "tuned", found.turned(), values=(0.654, 0.712)) == (
        "Frozen is 5.8 points of nDCG@10 worse than tuned (65.4 against 71.2; 95 % interval -10.8 to -0.8, p = "
        "0.0004); better on 2 of 50 queries, worse on 6, the same on 42."
    )


def test_noise_and_the_adjusted_p() -> None:
    said = paired_sentence("tuned", "BM25", comparison(0.058, 0.02), on="the 50 queries of one", p_adjusted=0.08)
    assert said == (
        "The 50 queries of one are too few to tell tuned from BM25: +5.8 points of nDCG@10, but anything from +0.8 to "
        "+10.8 would fit (p = 0.0200, 0.0800 adjusted); better on 6 of 50 queries, worse on 2, the same on 42. To find "
        "a difference of 1.0 points takes about 2,600."
    )


def test_the_same_on_every_query() -> None:
    same = comparison(0.0, 1.0, helped=0, hurt=0, unchanged=1, metric="mrr@10")
    assert paired_sentence("a", "b", same) == "A and b have the same MRR@10 on every one of 1 query."


def test_thousands_are_grouped() -> None:
    assert moved(comparison(0.1, 0.01, helped=1200, hurt=0, unchanged=3000)) == (
        "better on 1,200 of 4,200 queries, worse on 0, the same on 3,000"
    )


def test_tests_of_a_result() -> None:
    tests = {
        "rrf-tuned_vs_frozen": toy_reports.comparison(p_adjusted=0.2, effect_size=-0.5),
        "tuned_vs_frozen_unseen_documents": toy_reports.comparison(0.1, 0.01),
    }
    adjusted, unseen = paired_tests(tests, ["frozen", "tuned", "rrf-tuned"])
    assert (adjusted.p, adjusted.significant, adjusted.effect_size) == (0.2, False, -0.5)
    assert (unseen.p, unseen.significant, unseen.part) == (0.01, True, "unseen documents")
    assert adjusted.sentence().startswith("50 queries are too few to tell RRF-tuned from frozen")
    assert unseen.sentence().startswith(
        "On the 50 queries about documents that training had not seen, tuned is 10.0 points of nDCG@10"
    )
    back = adjusted.turned()
    assert (back.system, back.baseline, back.effect_size, back.test.hurt) == ("frozen", "rrf-tuned", 0.5, 6)
    assert back.turned() == adjusted


def test_names_of_tests_are_taken_apart_by_the_systems_there_are() -> None:
    made = {name: toy_reports.comparison() for name in ("a_vs_b_vs_b_c", "b_vs_a_unseen_documents", "mean_vs_gone")}
    found = paired_tests(made, ("a", "a_vs_b", "b", "b_c"))
    assert [(test.system, test.baseline, test.part) for test in found] == [
        ("a_vs_b", "b_c", ""),
        ("b", "a", "unseen documents"),
        ("mean_vs_gone", "", ""),
    ]


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [(0.1234, False, "12.3"), (0.1234, True, "+12.3"), (-0.05, False, "-5.0"), (-0.0001, True, "0.0")],
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
    assert [p_text(p) for p in (0.00001, 0.012, 0.1, 1.0)] == ["p < 0.0001", "p = 0.0120", "p = 0.1000", "p = 1.0000"]
    assert [p_cell(p) for p in (0.00001, 0.012)] == ["< 0.0001", "0.0120"]
    assert p_text(0.01, 0.03, "after all") == "p = 0.0100, 0.0300 after all"
    assert [(system_name(name), system_title(name)) for name in ("lora", "zero-shot")] == [
        ("LoRA", "LoRA, query side"),
        ("zero-shot", "zero-shot"),
    ]
