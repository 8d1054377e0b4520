"""Scores of a classifier and their calibration, as pure functions of arrays. Knows no model and no data set."""

from __future__ import annotations

import numpy as np

BINS = 15
TEMPERATURES = (0.01, 100.0)  # fit_temperature stays within


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """The share of samples whose class was found; both are (n,) class numbers.

    >>> accuracy(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]))
    0.75
    """
    predicted, labels = _same_length(predicted, labels)
    return float((predicted == labels).mean())


def mean_per_class(predicted: np.ndarray, labels: np.ndarray) -> float:
    """The accuracy within each class that has samples, averaged over those classes; both are (n,) class numbers.

    Class 0 has 1 of 1 right, class 1 has 1 of 3:

    >>> round(mean_per_class(np.array([0, 1, 0, 0]), np.array([0, 1, 1, 1])), 4)
    0.6667
    """
    predicted, labels = _same_length(predicted, labels)
    _, classes = np.unique(labels, return_inverse=True)
    return float((np.bincount(classes, predicted == labels) / np.bincount(classes)).mean())


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """How far confidence and accuracy lie apart, in [0, 1] (Guo et al. 2017, equation 3).

    Args:
        probabilities: (n, C), each row sums to 1; the confidence of a sample is its row's largest entry.
        labels: (n,) class numbers.
        bins: confidences are binned in that many intervals (a, b] of equal width in [0, 1].

    Two samples of confidence 0.9, one of them right, and one of 0.6 that is right: 2/3 of 0.4 and 1/3 of 0.4.

    >>> p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    >>> round(expected_calibration_error(p, np.array([0, 1, 1])), 4)
    0.4
    """
    probabilities, labels = _same_length(probabilities, labels)
    confidences = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    which = np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), confidences) - 1, 0, bins - 1)
    gaps = np.bincount(which, right - confidences, minlength=bins)  # (bins,) of n_bin (accuracy - confidence)
    return float(np.abs(gaps).sum() / len(labels))


def classification(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> dict[str, float]:
    """{"accuracy", "mean_per_class", "ece"} of (n, C) probabilities, as fractions; of equals the first class counts.

    >>> classification(np.array([[0.75, 0.25], [0.75, 0.25]]), np.array([0, 1]))
    {'accuracy': 0.5, 'mean_per_class': 0.5, 'ece': 0.25}
    """
    predicted = probabilities.argmax(axis=1)
    return {
        "accuracy": accuracy(predicted, labels),
        "mean_per_class": mean_per_class(predicted, labels),
        "ece": expected_calibration_error(probabilities, labels, bins),
    }


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T whose softmax(logits / T) gives the labels the largest likelihood (Guo et al. 2017, section 4.2).

    Args:
        logits: (n, C), of samples that were not trained on: on training samples T comes out too small.
        labels: (n,) class numbers.

    A label counts for (n + 1) / (n + 2), the other classes share the rest (Platt 1999, section 2.2): without that, a
    few samples that are all right would make every answer certain. Logits (2, 0) say that class 0 has 88 %, while it
    has 3 of 4 samples, each of which counts for 5/6: so 2/3, and 2 / T = log 2.

    >>> round(fit_temperature(np.array([[2.0, 0.0]] * 4), np.array([0, 0, 0, 1])), 3)
    2.885

    Dividing by T changes no prediction. Stays within TEMPERATURES.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits, labels = _same_length(logits, labels)
    n, C = logits.shape
    logits = logits.astype(np.float64)
    if not np.isfinite(logits).all():
        raise ValueError("expected finite logits to fit a temperature on")
    if C == 1:
        return 1.0
    own = logits[np.arange(n), labels]
    target = ((n + 1) * own + (logits.sum(axis=1) - own) / (C - 1)) / (n + 2)  # (n,) the mean logit of the targets

    def loss(log_temperature: float) -> float:  # convex in 1 / T, so it has a single minimum in log T
        T = np.exp(log_temperature)
        return float((logsumexp(logits / T, axis=1) - target / T).mean())

    found = minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def _same_length(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, labels = np.asarray(values), np.asarray(labels)
    if len(values) != len(labels) or not len(labels):
        raise ValueError(
            f"expected one label for each sample, and at least one sample, got {len(values)} and {len(labels)}"
        )
    return values, labels
