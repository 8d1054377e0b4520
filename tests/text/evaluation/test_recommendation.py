"""Recommendations in words, from tests that are made up."""

from __future__ import annotations

from retrieval_prompts.evaluation.recommendation import recommend
from retrieval_prompts.evaluation.significance import Comparison

BETTER = Comparison("ndcg@10", 0.066, (0.043, 0.09), 0.0001, 66, 25, 209)
NOISE = Comparison("ndcg@10", 0.008, (-0.005, 0.024), 0.2847, 5, 4, 81)
WORSE = Comparison("ndcg@10", -0.05, (-0.08, -0.02), 0.001, 10, 40, 50)
TIMES = {"frozen": 33.54, "frozen+bm25": 35.02}


def test_bm25_beside_the_frozen_model() -> None:
    found = recommend(
        "frozen+bm25",
        strength=0.0,
        bm25_weight=0.75,
        gain=BETTER,
        basis="test",
        milliseconds=TIMES,
        prompts=NOISE,
        prompts_on="dev split",
    )
    assert found.sentence == (
        "Use the frozen model with BM25, without prompts (weight 0.75): +6.6 points of nDCG@10 against the frozen "
        "model on 300 queries (test), 95 % interval +4.3 to +9.0, p = 0.0001; 35.0 ms a query instead of 33.5; prompts "
        "were not shown to add to it: +0.8 points for prompts on 90 queries (dev split), 95 % interval -0.5 to +2.4, "
        "p = 0.2847."
    )
    assert (found.bm25_weight, found.harmful, found.to_json()["gain"]) == (0.75, False, BETTER.as_dict())
    lasting = found.without_times()
    assert lasting.milliseconds == {}
    assert lasting.sentence == found.sentence.replace("; 35.0 ms a query instead of 33.5", "")
    assert lasting.without_times() == lasting


def test_a_part_of_the_prompts_beside_bm25() -> None:
    found = recommend(
        "tuned+bm25", strength=0.5, bm25_weight=0.4, gain=NOISE, basis="dev split", milliseconds={}, prompts=BETTER
    )
    assert found.sentence.startswith("Use the prompts with BM25 (strength 0.5, weight 0.4): +0.8 points of nDCG@10")
    assert "which may be noise (95 % interval -0.5 to +2.4, p = 0.2847); +6.6 points for prompts" in found.sentence


def test_what_is_surely_worse_is_not_to_be_used() -> None:
    found = recommend("tuned", strength=1.0, bm25_weight=0.75, gain=WORSE, basis="test", milliseconds={"tuned": 1.0})
    assert found.harmful
    assert found.bm25_weight is None
    assert found.sentence == (
        "Do not use these prompts: -5.0 points of nDCG@10 against the frozen model on 100 queries (test), "
        "95 % interval -8.0 to -2.0, p = 0.0010."
    )
    other = recommend("frozen+bm25", strength=0.0, bm25_weight=0.75, gain=WORSE, basis="test", milliseconds={})
    assert other.sentence.startswith("Do not use BM25 here: ")


def test_the_frozen_model_as_it_is() -> None:
    options = {"strength": 0.0, "bm25_weight": 0.0, "gain": None, "basis": "test", "milliseconds": {"frozen": 1.0}}
    assert recommend("frozen", **options).sentence == "Use the frozen model as it is."  # type: ignore[arg-type]
    said = recommend("frozen", **options, prompts_on="there is nothing to gain")  # type: ignore[arg-type]
    assert said.sentence == "Use the frozen model as it is: there is nothing to gain."
