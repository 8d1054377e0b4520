"""Metrics against values computed by hand and against other people's definitions of them."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from multimodal.evaluation import metrics


def test_the_worked_examples() -> None:
    assert doctest.testmod(metrics).attempted >= 3
    assert doctest.testmod(metrics).failed == 0


def test_harmonic_mean() -> None:
    assert metrics.harmonic_mean(0.5, 0.5) == 0.5
    assert metrics.harmonic_mean(0.0, 0.0) == metrics.harmonic_mean(0.0, 1.0) == 0.0
    assert metrics.harmonic_mean(1.0, 0.5) == pytest.approx(2 / 3)


def test_recall_is_a_hit_rate_not_a_share() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6]])
    assert metrics.recall_at(scores, [[0, 2, 3]], at=(1, 2)) == {"r@1": 1.0, "r@2": 1.0}
    assert metrics.recall_at(scores, [{3}], at=(1, 3, 4)) == {"r@1": 0.0, "r@3": 0.0, "r@4": 1.0}


def test_positives_do_not_push_each_other_down_and_ties_count_against_them() -> None:
    assert metrics.best_ranks(np.array([[0.5, 0.5, 0.5]]), [[1]]).tolist() == [3]
    assert metrics.best_ranks(np.array([[0.5, 0.5, 0.1]]), [[0, 1]]).tolist() == [1]


def test_recall_by_sorting_and_in_blocks() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 60))
    positives = [rng.choice(60, size=rng.integers(1, 6), replace=False).tolist() for _ in range(40)]
    expected = {
        f"r@{k}": np.mean([bool({*np.argsort(-scores[i])[:k]} & {*positives[i]}) for i in range(40)])
        for k in (1, 5, 10)
    }
    assert metrics.recall_at(scores, positives) == expected
    for size in (1, 7, 40):
        blocks = (scores[start : start + size] for start in range(0, 40, size))
        assert metrics.recall_at(blocks, positives) == expected


def test_what_cannot_be_scored_is_refused() -> None:
    scores = np.zeros((2, 3))
    with pytest.raises(ValueError, match="at least one positive for each of 2 queries"):
        metrics.recall_at(scores, [[0], []])
    with pytest.raises(ValueError, match="scores of 3 queries, at least one, got 2"):
        metrics.recall_at([scores], [[0], [0], [0]])
    with pytest.raises(ValueError, match="got 0"):
        metrics.recall_at([], [])
    with pytest.raises(ValueError, match="finite score"):
        metrics.recall_at(np.full((1, 2), np.nan), [[0]])
