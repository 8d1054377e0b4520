"""A linear probe: logistic regression on frozen vectors. A baseline of few-shot classifiers; sees no names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_prompts.evaluation.classification.scores import fit_temperature

STRENGTHS = tuple(10.0**power for power in range(-1, 5))  # C: the inverse of the weight of the L2 penalty
STRENGTH = 100.0  # where the samples are too few to choose it
FOLDS = 4
ITERATIONS = 1000


@dataclass(frozen=True)
class Probe:
    """Logits = features @ weight.T + bias.

    Args:
        weight: (C, D); the row of a class without a sample is 0.
        bias: (C,); -inf for a class without a sample, which so has probability 0.
        strength: the C that was used.
        temperature: what the logits were divided by; weight and bias are so already.
        chosen: whether C and temperature come from cross-validation.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    temperature: float = 1.0
    chosen: bool = False

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(n, D) -> (n, C) float64, rows sum to 1."""
        from scipy.special import softmax

        return softmax(features.astype(np.float64) @ self.weight.T + self.bias, axis=1)


def linear_probe(features: np.ndarray, labels: np.ndarray, classes: int, *, strength: float | None = None) -> Probe:
    """Multinomial logistic regression by L-BFGS, as Radford et al. 2021, section 3.2, for their linear probes.

    Args:
        features: (n, D), unit length, of the training samples only.
        labels: (n,) numbers below `classes`.
        strength: C. None: the one of STRENGTHS with the most right answers in stratified cross-validation on these
            very samples (the least log loss among equals), and the temperature that fits its held-out answers best;
            STRENGTH and no temperature where fewer than two classes have two samples each.

    The same input gives the same probe. One class alone gets probability 1.
    """
    features, labels = features.astype(np.float64), np.asarray(labels)
    present = np.unique(labels)
    temperature, chosen = 1.0, False
    if strength is None:
        found = _choose(features, labels)
        strength, temperature, chosen = (STRENGTH, 1.0, False) if found is None else (*found, True)
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, -np.inf)
    bias[present] = 0.0
    if len(present) > 1:
        weight[present], bias[present] = next(_path(features, labels, [strength]))
    return Probe(weight / temperature, bias / temperature, strength, temperature, chosen)


def _choose(features: np.ndarray, labels: np.ndarray) -> tuple[float, float] | None:
    """(C, temperature) by cross-validation over the classes that have two samples; None if those are fewer than two."""
    from scipy.special import log_softmax
    from sklearn.model_selection import StratifiedKFold

    _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if (counts > 1).sum() < 2:
        return None
    enough = counts[numbers] > 1
    features, (_, labels) = features[enough], np.unique(labels[enough], return_inverse=True)
    folds = list(StratifiedKFold(min(FOLDS, int(counts[counts > 1].min()))).split(features, labels))

    def held_out(strengths: Sequence[float]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        for training, rest in folds:  # every class is in every training part
            for number, (weight, bias) in enumerate(_path(features[training], labels[training], strengths)):
                yield number, features[rest] @ weight.T + bias, labels[rest]

    right, likelihood = np.zeros(len(STRENGTHS)), np.zeros(len(STRENGTHS))
    for number, logits, answers in held_out(STRENGTHS):
        right[number] += (logits.argmax(axis=1) == answers).sum()
        likelihood[number] += log_softmax(logits, axis=1)[np.arange(len(answers)), answers].sum()
    strength = STRENGTHS[int(np.lexsort((likelihood, right))[-1])]
    _, blocks, answered = zip(*held_out([strength]), strict=True)
    return strength, fit_temperature(np.concatenate(blocks), np.concatenate(answered))


def _path(
    features: np.ndarray, labels: np.ndarray, strengths: Sequence[float]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(weight (C, D), bias (C,)) for each strength, each started from the one before; C: the classes in `labels`."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(solver="lbfgs", max_iter=ITERATIONS, warm_start=True)
    for strength in strengths:
        with warnings.catch_warnings():  # weak penalties that do not converge, one sample a class: both are allowed
            warnings.simplefilter("ignore", UserWarning)
            model.set_params(C=strength).fit(features, labels)
        weight, bias = model.coef_.copy(), model.intercept_.copy()
        if len(weight) == 1:  # of two classes scikit-learn keeps the second one's logit only
            weight, bias = np.vstack([0 * weight, weight]), np.append(0 * bias, bias)
        yield weight, bias
