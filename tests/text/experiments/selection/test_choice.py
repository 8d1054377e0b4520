"""Choices by few queries, on scores that are made up."""

from __future__ import annotations

import random

import pytest

from retrieval_prompts.evaluation.hybrid import UNLABELLED, WEIGHTS
from retrieval_prompts.experiments.selection.choice import Grid, Scores, decide, frozen_weight


def scores(count: int, gain: float = 0.0, seed: int = 0, noise: float = 0.0) -> Scores:
    """The same queries with a gain and noise of their own; their level is the same for every seed."""
    level, other = random.Random(9), random.Random(seed)
    return {f"q{number}": level.uniform(0.2, 0.6) + gain + other.uniform(-noise, noise) for number in range(count)}


def grid(count: int, tuned: float, fused: float, both: float, noise: float = 0.0) -> Grid:
    """Frozen is 0; BM25 beside it gains `fused` whatever its weight, prompts `tuned`, prompts and BM25 `both`."""
    made: Grid = {}
    for strength in (0.0, 0.5, 1.0):
        for weight in WEIGHTS:
            gain = (both if weight else tuned) if strength else (fused if weight else 0.0)
            made[strength, weight] = scores(count, gain, seed=int(100 * strength + 1000 * weight), noise=noise)
    return made


def test_prompts_that_are_surely_better_are_used() -> None:
    choice = decide(grid(60, tuned=0.1, fused=0.02, both=0.05), [], how="dev split")
    assert (choice.system, choice.strength, choice.how, choice.queries) == ("tuned", 1.0, "dev split", 60)
    assert choice.weight == 0  # so that a search with these prompts leaves BM25 out, as is advised
    assert choice.best_vs_untuned is not None
    assert choice.best_vs_untuned.difference == pytest.approx(0.08)
    choice = decide(grid(60, tuned=0.1, fused=0.02, both=0.15), [], how="dev split")
    assert (choice.system, choice.strength, choice.weight) == ("tuned+bm25", 1.0, UNLABELLED)


def test_prompts_that_help_the_model_alone_are_kept_and_bm25_is_recommended() -> None:
    choice = decide(grid(60, tuned=0.1, fused=0.2, both=0.2), [], how="dev split")
    assert (choice.system, choice.strength) == ("frozen+bm25", 1.0)
    assert choice.tuned_vs_frozen is not None
    assert choice.tuned_vs_frozen.p_value < 0.05


def test_a_better_mean_that_may_be_noise_is_not_enough() -> None:
    made = grid(8, tuned=0.02, fused=0.0, both=0.02, noise=0.2)
    made[1.0, 0.0]["q0"] += 0.3
    choice = decide(made, [], how="held out of train")
    assert (choice.system, choice.strength) == ("frozen+bm25", 0.0)
    assert choice.weight == choice.frozen_weight == UNLABELLED


def test_a_gain_on_known_documents_does_not_buy_a_loss_on_others() -> None:
    made = grid(60, tuned=0.1, fused=0.0, both=0.1)
    unseen = [f"q{number}" for number in range(12)]
    for (strength, _), values in made.items():
        if strength:
            for query in unseen:
                values[query] -= 0.15
    choice = decide(made, unseen, how="dev split")
    assert choice.best_vs_untuned is not None
    assert choice.best_vs_untuned.difference > 0
    assert (choice.system, choice.strength) == ("frozen+bm25", 0.0)
    assert choice.systems["tuned"]["unseen"] < choice.systems["frozen"]["unseen"]


def test_the_safe_weight_goes_only_where_queries_surely_say_so() -> None:
    assert frozen_weight({}) == UNLABELLED
    made = {weight: scores(40) for weight in WEIGHTS}
    made[0.9]["q0"] += 0.2  # the best mean, by one query
    assert frozen_weight(made) == UNLABELLED
    made[0.3] = scores(40, gain=0.1)
    assert frozen_weight(made) == 0.3
    made[0.0] = scores(40, gain=0.2)
    assert frozen_weight(made) == 0.0
    choice = decide({(0.0, weight): values for weight, values in made.items()}, [], how="dev split")
    assert (choice.system, choice.weight, choice.gain) == ("frozen", 0.0, None)


def test_a_part_of_the_prompt_is_used_where_it_is_surely_better_than_the_whole() -> None:
    made = grid(60, tuned=0.1, fused=0.0, both=0.1)
    assert decide(made, [], how="dev split").strength == 1.0
    for weight in WEIGHTS:
        made[0.5, weight] = scores(60, gain=0.2)
    assert decide(made, [], how="dev split").strength == 0.5
    assert [strength for strength, _ in decide(made, [], how="dev split").curve] == [0.0, 0.5, 1.0]


def test_without_words_there_is_no_weight() -> None:
    made: Grid = {(0.0, 0.0): scores(60), (1.0, 0.0): scores(60, gain=0.1)}
    choice = decide(made, [], how="dev split")
    assert (choice.system, choice.weight, choice.frozen_weight) == ("tuned", None, None)
    assert list(choice.systems) == ["frozen", "tuned"]
    assert choice.to_json()["gain"]["difference"] == pytest.approx(0.1)
