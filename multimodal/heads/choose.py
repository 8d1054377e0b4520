"""Which head, and with which options: by shots that are held out, never by test pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal.heads import head_file
from multimodal.heads.head import Shots
from retrieval_prompts.evaluation.classification.scores import fit_temperature

AUTO = ("proker", "gda", "tip-adapter", "probe")  # fitted in seconds; the first was best, or near it, in development
ORDER = ("none", *AUTO)  # which of equals: what adds least first
ALONE = "proker"  # where nothing can be held out: its evidence needs nothing


@dataclass(frozen=True)
class Fold:
    """Shots to fit on, and others (m, D) with their labels (m,) to answer for."""

    shots: Shots
    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Held:
    """What one head answered for all that was held out.

    Args:
        name: of the head; "none": the prompt's texts.
        text: the name of the texts under it.
        count: of what was held out.
        right: the share of right answers.
        loss: the mean log loss, calibrated.
        temperature: that fits the answers best.
    """

    name: str
    text: str
    options: Mapping[str, Any]
    count: int
    right: float
    loss: float
    temperature: float

    @classmethod
    def of(cls, name: str, text: str, options: Mapping[str, Any], logits: Tensor, labels: Tensor) -> Held:
        """logits: (m, C), before the temperature."""
        temperature = fit_temperature(logits.numpy(), labels.numpy())
        right = float((logits.argmax(dim=1) == labels).double().mean())
        loss = float(torch.nn.functional.cross_entropy(logits / temperature, labels))
        return cls(name, text, options, len(labels), right, loss, temperature)


def tried(name: str, text: str, folds: Sequence[Fold], grid: Sequence[Mapping[str, Any]]) -> list[Held]:
    """One head's answers with each of these options; none where the folds have too few shots for it."""
    file = head_file(name)
    if any(int(fold.shots.counts.max()) < file.SHOTS for fold in folds):
        return []
    labels = torch.cat([fold.labels for fold in folds])
    return [
        Held.of(
            name,
            text,
            options,
            torch.cat([file.fit(fold.shots, **options).logits(fold.features) for fold in folds]),
            labels,
        )
        for options in grid
        if None not in options.values()
    ]


def best(held: Iterable[Held]) -> Held:
    """Of those within a standard error of the most right answers, the one of the least log loss, which says more."""
    every = list(held)
    least = _enough(every)
    return min((each for each in every if each.right >= least), key=lambda each: each.loss)


def simplest(held: Iterable[Held]) -> Held:
    """Of those within a standard error of the most right answers, the first of ORDER (Breiman et al. 1984, section
    3.4.3: the one-standard-error rule)."""
    every = list(held)
    least = _enough(every)
    return min((each for each in every if each.right >= least), key=lambda each: (ORDER.index(each.name), each.loss))


def _enough(held: Sequence[Held]) -> float:
    most = max(each.right for each in held)
    return most - float(np.sqrt(most * (1 - most) / held[0].count))
