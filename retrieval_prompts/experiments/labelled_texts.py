"""A classifier of texts beside what needs no training: the frozen model with the names, and a probe on its vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.evaluation.classification.linear_probe import linear_probe
from retrieval_prompts.evaluation.classification.scores import classification
from retrieval_prompts.training.task import Positions
from retrieval_prompts.training.tasks.two_parts import TwoParts, similarities

SYSTEMS = {"frozen": "frozen, names of labels", "probe": "linear probe", "tuned": "with prompts"}
METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "ece": "ECE"}
Scores = dict[str, dict[str, float]]


def compared(
    classifier: TwoParts,
    texts: Sequence[str],
    labels: Positions,
    train: tuple[Sequence[str], Positions] | None = None,
) -> Scores:
    """System of SYSTEMS -> accuracy, macro-F1 and calibration error of test texts, as fractions.

    Args:
        labels: (n,) numbers of the test texts' labels.
        train: the texts and labels that the classifier was trained on, for the probe; None: without one.
    """
    frozen = BiEncoder(classifier.biencoder.tower)
    vectors = frozen.query_vectors(texts)
    named = similarities(vectors, classifier.documents)
    found = {"frozen": scored(_one_hot(named.argmax(axis=1), named.shape[1]), labels)}
    found["frozen"].pop("ece")  # of similarities there is none
    if train is not None:
        probe = linear_probe(frozen.query_vectors(train[0]), train[1], len(classifier.documents))
        found["probe"] = scored(probe.probabilities(vectors), labels)
    return found | {"tuned": scored(classifier.probabilities(texts), labels)}


def scored(probabilities: NDArray, labels: Positions) -> dict[str, float]:
    """{"accuracy", "macro_f1", "ece"}; macro-F1 over the labels that occur, as truth or as prediction."""
    from sklearn.metrics import f1_score

    found = classification(probabilities, labels)
    f1 = f1_score(labels, probabilities.argmax(axis=1), average="macro", zero_division=0)
    return {"accuracy": found["accuracy"], "macro_f1": float(f1), "ece": found["ece"]}


def _one_hot(numbers: Positions, classes: int) -> NDArray:
    return np.eye(classes)[numbers]
