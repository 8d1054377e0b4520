"""What to use, in a sentence: for each system, where it is sure, where it may be noise, where it is a loss."""

from __future__ import annotations

from typing import Any

import pytest

from retrieval_prompts.evaluation.recommendation import ADVICE, Evidence, Recommendation, recommend
from retrieval_prompts.evaluation.significance import Comparison

SURE = Comparison("ndcg@10", 0.052, (0.031, 0.074), 0.0004, 40, 12, 48)
NOISE = Comparison("ndcg@10", 0.004, (-0.011, 0.019), 0.61, 21, 19, 60)
LOSS = Comparison("ndcg@10", -0.052, (-0.074, -0.031), 0.0004, 12, 40, 48)
GAINED = "+5.2 points of nDCG@10 against the frozen model on 100 queries (test), 95 % interval +3.1 to +7.4, p = 0.0004"


def advice(system: str, **given: Any) -> Recommendation:
    usual: dict[str, Any] = {
        "strength": 1.0 if "tuned" in system else 0.0,
        "bm25_weight": 0.75,
        "gain": Evidence(SURE, "test"),
        "milliseconds": {},
    }
    return recommend(system, **{**usual, **given})


@pytest.mark.parametrize(
    ("system", "strength", "sentence"),
    [
        ("frozen+bm25", 0.0, f"Use the frozen model with BM25, without prompts (weight 0.75): {GAINED}."),
        ("tuned", 1.0, f"Use the prompts, without BM25: {GAINED}."),
        ("tuned", 0.5, f"Use the prompts, without BM25 (strength 0.5): {GAINED}."),
        ("tuned+bm25", 1.0, f"Use the prompts with BM25 (weight 0.75): {GAINED}."),
        ("tuned+bm25", 0.25, f"Use the prompts with BM25 (strength 0.25, weight 0.75): {GAINED}."),
        ("bm25", 0.0, f"Use BM25 alone: {GAINED}."),
    ],
)
def test_what_is_surely_better(system: str, strength: float, sentence: str) -> None:
    found = advice(system, strength=strength)
    assert found.sentence == sentence
    assert (found.system, found.strength, found.basis, found.harmful) == (system, strength, "test", False)
    assert found.bm25_weight == (0.75 if "bm25" in system else None)


def test_the_frozen_model_gains_nothing_and_costs_nothing() -> None:
    found = advice("frozen", gain=Evidence(), milliseconds={"frozen": 3.0})
    assert found.sentence == "Use the frozen model as it is."
    assert (found.gain, found.bm25_weight, found.cost) == (None, None, "")
    assert set(ADVICE) == {"frozen", "tuned", "bm25", "frozen+bm25", "tuned+bm25"}


def test_a_gain_that_may_be_noise_is_called_that() -> None:
    found = advice("tuned", gain=Evidence(NOISE, "test, unseen documents"))
    assert found.sentence == (
        "Use the prompts, without BM25: +0.4 points of nDCG@10 against the frozen model on 100 queries "
        "(test, unseen documents), which may be noise (95 % interval -1.1 to +1.9, p = 0.6100)."
    )
    assert not found.harmful
    unsure = Comparison("ndcg@10", -0.052, (-0.11, 0.01), 0.08, 12, 40, 48)
    assert not advice("tuned", gain=Evidence(unsure, "test")).harmful
    assert advice("tuned", gain=Evidence(unsure, "test")).sentence.startswith("Use the prompts")


@pytest.mark.parametrize(
    ("system", "what"),
    [("tuned", "these prompts"), ("tuned+bm25", "these prompts"), ("frozen+bm25", "BM25 here"), ("bm25", "BM25 here")],
)
def test_what_is_surely_worse_must_not_be_used(system: str, what: str) -> None:
    found = advice(
        system,
        gain=Evidence(LOSS, "test"),
        milliseconds={"frozen": 3.0, system: 4.0},
        prompts=Evidence(SURE, "dev split"),
    )
    assert found.harmful
    assert found.sentence == (
        f"Do not use {what}: -5.2 points of nDCG@10 against the frozen model on 100 queries (test), "
        "95 % interval -7.4 to -3.1, p = 0.0004."
    )


def test_what_prompts_add_is_said_or_that_they_were_not_shown_to() -> None:
    found = advice("tuned+bm25", prompts=Evidence(SURE, "cross-validation"))
    assert found.sentence.endswith(
        "; +5.2 points for prompts on 100 queries (cross-validation), 95 % interval +3.1 to +7.4, p = 0.0004."
    )
    found = advice("frozen+bm25", prompts=Evidence(NOISE, "dev split"))
    assert found.sentence.endswith(
        "; prompts were not shown to add to it: +0.4 points for prompts on 100 queries (dev split), "
        "95 % interval -1.1 to +1.9, p = 0.6100."
    )
    assert "not shown" in advice("frozen+bm25", prompts=Evidence(LOSS, "dev split")).sentence
    assert advice("frozen", gain=Evidence(), prompts=Evidence(on="nothing to gain")).sentence == (
        "Use the frozen model as it is: nothing to gain."
    )


def test_the_cost_of_a_query_is_said_and_can_be_left_out() -> None:
    times = {"frozen": 3.04, "tuned": 4.56}
    found = advice("tuned", milliseconds=times, prompts=Evidence(SURE, "dev split"))
    assert found.cost == "4.6 ms a query instead of 3.0"
    assert f"p = 0.0004; {found.cost}; +5.2 points for prompts" in found.sentence
    assert found.milliseconds == times
    quiet = found.without_times()
    assert quiet == advice("tuned", prompts=Evidence(SURE, "dev split"))
    assert quiet.without_times() == quiet
    other = advice("tuned", milliseconds={"frozen": 9.0, "tuned": 11.0}, prompts=Evidence(SURE, "dev split"))
    assert other.without_times() == quiet
    assert advice("bm25", milliseconds={"frozen": 3.0}).cost == ""


def test_a_recommendation_as_json() -> None:
    found = advice("tuned+bm25").to_json()
    assert found["gain"] == {**SURE.as_dict(), "ci95": [0.031, 0.074]}
    assert set(found) == set(vars(advice("tuned+bm25")))
    assert advice("frozen", gain=Evidence()).to_json()["gain"] is None


@pytest.mark.parametrize(
    ("system", "tried", "verdict"),
    [
        ("tuned", True, "Use the prompts: yes, without BM25."),
        ("tuned+bm25", True, "Use the prompts: yes, but only with BM25."),
        ("frozen", True, "Use the prompts: no. Use the model as it is."),
        ("frozen+bm25", True, "Use the prompts: no. Use the model without them, with BM25."),
        ("bm25", True, "Use the prompts: no. Use BM25 alone."),
        ("frozen", False, "Use the model: yes, as it is."),
        ("frozen+bm25", False, "Use the model: yes, but only with BM25."),
        ("bm25", False, "Use the model: no. Use BM25 alone."),
    ],
)
def test_a_plain_yes_or_no(system: str, tried: bool, verdict: str) -> None:
    gain = Evidence() if system == "frozen" else Evidence(SURE, "test")
    assert advice(system, gain=gain, tried=tried).verdict == verdict


def test_how_sure_it_is_in_plain_words() -> None:
    sure = (
        "Sure: on 100 queries (test), results with the prompts are 5.2 points of nDCG@10 better than those of the "
        "model alone; +3.1 to +7.4 would fit. Where nothing differs, "
        "chance shows so large a difference once in 2,500 tries."
    )
    assert advice("tuned").sure == (sure,)
    unsure = advice("tuned", gain=Evidence(NOISE, "test, unseen documents"))
    assert unsure.sure == (
        "Not sure: on 100 queries (test) about documents that training had not seen, results with the prompts "
        "differ from those of the model alone by +0.4 points of nDCG@10, and anything from -1.1 to +1.9 would fit. "
        "That may be chance.",
    )
    loss = advice("tuned", gain=Evidence(LOSS, "test", "frozen+bm25"))
    assert loss.verdict == "Use the prompts: no. They make the results worse."
    assert "5.2 points of nDCG@10 worse than those of the model with BM25" in loss.sure[0]
    assert advice("frozen+bm25", gain=Evidence(LOSS, "test")).verdict == (
        "Use the prompts: no, and no BM25 either: it makes the results worse."
    )
    without = advice("frozen+bm25", prompts=Evidence(NOISE, "dev split"))
    assert [each.partition(":")[0] for each in without.sure] == ["Prompts were not shown to help", "Sure"]
    memory = advice("frozen", gain=Evidence(), prompts=Evidence(SURE, "dev split"))
    assert memory.sure[0].endswith("But not on those whose documents training had not seen.")
