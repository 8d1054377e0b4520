"""What a figure about a prompt is worth: the same figure of prompts that nobody trained.

Two nulls: random vectors, drawn as an untrained prompt is and brought to the lengths of the trained vectors, and the
initial prompt, where it is known what training began from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.significance import ALPHA
from retrieval_prompts.prompts.initialize import initial_vectors
from retrieval_prompts.towers.text import TextTower

SEEDS = 1 << 20  # where random prompts begin to count: the seeds before them are what trainings start from


@dataclass(frozen=True)
class Beside:
    """A figure, and what random prompts make of it.

    Args:
        null_mean, null_low, null_high: over the random prompts.
        draws: how many they are.
        p_value: the share of them, the prompt itself counted as one more, that are as far out (Phipson and Smyth
            2010); where both sides count, twice that of the nearer side.
        initial: of the prompt before training; None where that is not known.
    """

    value: float
    null_mean: float
    null_low: float
    null_high: float
    draws: int
    p_value: float
    initial: float | None = None

    @classmethod
    def of(cls, value: float, null: Sequence[float], initial: float | None = None, *, side: str = "both") -> Beside:
        """The figure beside those of random prompts, at least one. `side`: "above", "below" or "both"."""
        drawn = np.asarray(null, dtype=np.float64)
        shares = {"above": (drawn >= value).sum() + 1, "below": (drawn <= value).sum() + 1}
        count = shares[side] if side != "both" else 2 * min(shares.values())
        p = min(1.0, float(count) / (len(drawn) + 1))
        return cls(float(value), float(drawn.mean()), float(drawn.min()), float(drawn.max()), len(drawn), p, initial)

    @property
    def beaten(self) -> bool:
        """Whether neither random prompts explain the figure nor the prompt before training, which may be as far out."""
        out, before = self.value - self.null_mean, 0.0 if self.initial is None else self.initial - self.null_mean
        return self.p_value < ALPHA and not (out * before > 0 and abs(before) >= abs(out))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def too_few(draws: int) -> list[str]:
    """What so many random prompts cannot show, as a note; none where they are enough."""
    if ALPHA * (draws + 1) > 2:
        return []
    least = math.floor(2 / ALPHA)
    return [
        f"Of figures that may lie on either side of random ones, --draws {draws} can show none to be beyond them; it "
        f"takes {least} or more."
    ]


def random_prompt(tower: TextTower, kind: str, like: Tensor, seed: int) -> Tensor:
    """A random prompt of the shape of another, each vector of the length of the one in its place.

    Args:
        like: (..., layers, length, width). Of a prefix the keys and the values have their own lengths.
        seed: of the draw, from 0; no training starts from such vectors.

    Directions are those of `initialize.initial_vectors` with "gaussian": the mean and deviation of the model's own.
    """
    drawn = initial_vectors(tower, kind, like.shape[-2], "gaussian", SEEDS + seed).to(like)
    parts = 1 if kind == "input" else 2
    split, wanted = (each.unflatten(-1, (parts, -1)) for each in (drawn, like))
    length = wanted.norm(dim=-1, keepdim=True) / split.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return (split * length).flatten(-2)


def initial_prompt(biencoder: BiEncoder, side: str, like: Tensor) -> Tensor | None:
    """What training began from, of the settings that the prompts keep; None where they keep none, or others.

    Args:
        like: the trained vectors (layers, length, width); of a feedback prompt the static ones.
    """
    settings = biencoder.training_record.get("settings")
    if not isinstance(settings, dict) or settings.get("kind") != biencoder.kind:
        return None
    init, seed, of = settings.get("init"), settings.get("seed"), settings.get("side")
    known = isinstance(init, str) and isinstance(seed, int) and of in (side, "both")
    if not known or settings.get("length") != like.shape[-2]:
        return None
    try:
        with torch.no_grad():
            return initial_vectors(biencoder.tower, biencoder.kind, like.shape[-2], str(init), int(str(seed)))
    except UserError:
        return None
