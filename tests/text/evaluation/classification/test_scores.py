"""Metrics against values computed by hand and against other people's definitions of them."""

from __future__ import annotations

import doctest
import itertools

import numpy as np
import pytest

from retrieval_prompts.evaluation.classification import scores


def test_the_worked_examples() -> None:
    assert doctest.testmod(scores).attempted >= 4
    assert doctest.testmod(scores).failed == 0


def test_mean_per_class_weighs_classes_not_samples() -> None:
    labels = np.array([0] * 98 + [5, 5])  # class numbers need not be dense; classes without samples do not count
    assert scores.mean_per_class(np.zeros(100, dtype=int), labels) == 0.5
    assert scores.accuracy(np.zeros(100, dtype=int), labels) == 0.98


def reference_ece(confidences: np.ndarray, right: np.ndarray, bins: int) -> float:
    """Guo et al.'s own loop over bins (their ECELoss)."""
    edges, total = np.linspace(0, 1, bins + 1), 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidences > low) & (confidences <= high)
        if inside.any():
            total += abs(confidences[inside].mean() - right[inside].mean()) * inside.mean()
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_is_that_of_guo(bins: int) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(5, 0.3), size=500)
    probabilities[:5] = np.eye(5)  # confidence 1 belongs to the last bin
    probabilities[5:10] = [0.2] * 5  # on the edge between two bins
    labels = rng.integers(0, 5, 500)
    expected = reference_ece(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins)
    assert scores.expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected, abs=1e-12)


def test_ece_of_the_perfect_and_of_the_sure_and_wrong() -> None:
    assert scores.expected_calibration_error(np.eye(3), np.arange(3)) == 0
    assert scores.expected_calibration_error(np.eye(3), np.array([1, 2, 0])) == 1
    assert scores.expected_calibration_error(np.full((4, 4), 0.25), np.arange(4)) == 0


def test_a_temperature_that_was_put_in_is_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 6)) * 2
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # drawn from softmax(logits)
    for factor in (0.2, 1.0, 5.0):
        assert scores.fit_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.03)
    assert scores.fit_temperature(logits.astype(np.float16), labels) == pytest.approx(1, rel=0.03)


def test_a_temperature_lowers_the_loss_and_the_calibration_error() -> None:
    rng = np.random.default_rng(1)
    honest = 2 * rng.normal(size=(2000, 4))
    labels = (honest + rng.gumbel(size=honest.shape)).argmax(axis=1)
    logits = 5 * honest

    def softmax(values: np.ndarray) -> np.ndarray:
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    before = scores.classification(softmax(logits), labels)
    after = scores.classification(softmax(logits / scores.fit_temperature(logits, labels)), labels)
    assert after["accuracy"] == before["accuracy"]
    assert before["ece"] > 0.2 and after["ece"] < 0.03


def test_a_temperature_of_few_samples_makes_no_answer_certain() -> None:
    for n in (2, 8, 100):
        for factor in (0.1, 10.0):
            logits = factor * np.eye(2)[np.arange(n) % 2]  # all right: by likelihood alone T would be 0
            T = scores.fit_temperature(logits, np.arange(n) % 2)
            assert 1 / (1 + np.exp(-factor / T)) == pytest.approx((n + 1) / (n + 2), abs=1e-4)


def test_a_temperature_stays_within_its_bounds() -> None:
    low, high = scores.TEMPERATURES
    assert scores.fit_temperature(10 * np.eye(3), np.array([1, 2, 0])) == pytest.approx(high, rel=0.01)  # all wrong
    assert scores.fit_temperature(1e-9 * np.eye(3), np.arange(3)) == pytest.approx(low, rel=0.01)
    assert scores.fit_temperature(np.zeros((2, 1)), np.zeros(2, dtype=int)) == 1.0
    with pytest.raises(ValueError, match="finite"):
        scores.fit_temperature(np.array([[np.nan, 0.0]]), np.array([0]))


# --- retrieval ----------------------------------------------------------------------------------------------------


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="one label for each sample, and at least one sample, got 2 and 3"):
        scores.accuracy(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="at least one sample"):
        scores.expected_calibration_error(np.zeros((0, 3)), np.zeros(0))
