"""The linear probe: what it learns, how it chooses, and that it says the same thing twice."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_prompts.evaluation.classification import linear_probe as probes
from retrieval_prompts.evaluation.classification.linear_probe import STRENGTH, STRENGTHS, linear_probe
from retrieval_prompts.evaluation.classification.scores import classification, fit_temperature


def clusters(each: int, classes: int = 5, seed: int = 0, noise: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (classes * each, 16) around one direction a class; the directions do not depend on the seed."""
    centres = np.random.default_rng(99).normal(size=(classes, 16))
    labels = np.repeat(np.arange(classes), each)
    features = centres[labels] + noise * np.random.default_rng(seed).normal(size=(len(labels), 16))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32), labels


def test_it_generalises_and_is_calibrated() -> None:
    features, labels = clusters(each=16)
    test, answers = clusters(each=200, seed=1)
    probe = linear_probe(features, labels, 5)
    scores = classification(probe.probabilities(test), answers)
    assert scores["accuracy"] > 0.9 and scores["ece"] < 0.06
    assert probe.chosen and probe.strength in STRENGTHS
    assert probe.weight.shape == (5, 16) and probe.bias.shape == (5,)


def test_it_is_deterministic_and_does_not_depend_on_the_order_of_the_classes() -> None:
    features, labels = clusters(each=8)
    first, again = linear_probe(features, labels, 5), linear_probe(features, labels, 5)
    assert np.array_equal(first.weight, again.weight) and np.array_equal(first.bias, again.bias)
    order = np.array([3, 0, 4, 1, 2])
    renamed = linear_probe(features, order[labels], 5)
    test, _ = clusters(each=10, seed=1)
    assert renamed.strength == first.strength
    assert np.allclose(renamed.probabilities(test)[:, order], first.probabilities(test), atol=1e-3)


def test_it_is_scikit_learns_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    test, _ = clusters(each=10, seed=1)
    for classes in (2, 3, 5):  # of two classes scikit-learn keeps one logit
        features, labels = clusters(each=6, classes=classes)
        expected = LogisticRegression(C=10.0, max_iter=1000).fit(features.astype(np.float64), labels)
        probe = linear_probe(features, labels, classes, strength=10.0)
        assert (probe.strength, probe.temperature, probe.chosen) == (10.0, 1.0, False)
        assert np.allclose(probe.probabilities(test), expected.predict_proba(test.astype(np.float64)), atol=1e-12)


def test_strength_and_temperature_come_from_held_out_training_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    monkeypatch.setattr(probes, "STRENGTHS", STRENGTHS[:3])  # stronger penalties converge to many digits
    features, labels = clusters(each=8, noise=1.5)
    features = features.astype(np.float64)
    held_out = {
        strength: cross_val_predict(
            LogisticRegression(C=strength, max_iter=1000),
            features,
            labels,
            cv=StratifiedKFold(4),
            method="decision_function",
        )
        for strength in STRENGTHS[:3]
    }
    right = {strength: (logits.argmax(axis=1) == labels).sum() for strength, logits in held_out.items()}
    probe = linear_probe(features, labels, 5)
    assert right[probe.strength] == max(right.values())
    assert probe.temperature == pytest.approx(fit_temperature(held_out[probe.strength], labels), rel=1e-3)


def test_one_sample_a_class_uses_the_fixed_strength() -> None:
    features, labels = clusters(each=1)
    probe = linear_probe(features, labels, 5)
    assert (probe.strength, probe.temperature, probe.chosen) == (STRENGTH, 1.0, False)
    assert probe.probabilities(features).argmax(axis=1).tolist() == [0, 1, 2, 3, 4]


def test_a_class_with_one_sample_beside_others_with_more() -> None:
    features, labels = clusters(each=6)
    keep = np.r_[0, 6:30]  # class 0 has one left: it is learned, and takes no part in the choice
    probe = linear_probe(features[keep], labels[keep], 5)
    assert probe.chosen
    assert probe.probabilities(features[:1]).argmax() == 0


def test_classes_without_samples_get_nothing() -> None:
    features, labels = clusters(each=4, classes=3)
    probe = linear_probe(features, labels + 1, 6)
    probabilities = probe.probabilities(features)
    assert probabilities.shape == (12, 6)
    assert (probabilities[:, [0, 4, 5]] == 0).all() and np.allclose(probabilities.sum(axis=1), 1)
    alone = linear_probe(features[:4], np.full(4, 2), 3).probabilities(features)
    assert alone.tolist() == [[0, 0, 1]] * 12
