"""LP++ (Huang et al. 2024, arXiv 2404.02285): a linear probe beside the text, with a multiplier a class for the text.

Step sizes and where it starts come from the data, so nothing needs to be chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.heads.head import Head, Shots

BLEND, STEPS, EVERY, MOMENTUM = 250.0, 300, 10, 0.9  # of the authors' code
GRID = ({"blend": BLEND}, {"blend": 0.0}, {"blend": 100.0}, {"blend": 1000.0})
SHOTS, TEXT = 1, True


def start(shots: Shots, blend: float = BLEND) -> tuple[Tensor, Tensor]:
    """(weight (C, D), alpha (C,)): the sums of each class's features; the mean over the classes of the mean cosine of
    shots and their own text, times `blend` (section 4.3)."""
    weight = shots.one_hot.T @ shots.features
    own = (shots.means * shots.text).sum(dim=1)
    return weight, torch.full((len(weight),), blend * float(own.mean()), dtype=weight.dtype)


def published(shots: Shots) -> dict[str, float]:
    """Options of the authors' code."""
    return {"blend": BLEND, "summed": 1}


def fit(shots: Shots, blend: float = BLEND, steps: int = STEPS, summed: float = 0) -> Head:
    """Gradient descent whose steps are bounded by the Lipschitz constants of the two blocks (Proposition 2).

    summed: 1: the multipliers move by the sum of their gradients at all steps so far, which the authors' code never
    sets back, 0: by that of the step.
    """
    shots = shots.single()
    x, n = shots.features, len(shots.features)
    weight, alpha = start(shots, blend)
    bias = torch.zeros_like(alpha)
    cosines = x @ shots.text.T
    rate = 4 * n / float(torch.linalg.eigvalsh(x @ x.T if n < x.shape[1] else x.T @ x)[-1])
    text_rate = n / (4 * float(cosines.square().sum(dim=0).max()))
    moved, shifted, slope = torch.zeros_like(weight), torch.zeros_like(bias), torch.zeros_like(alpha)
    for step in range(1, steps + 1):
        error = (F.softmax(x @ weight.T + bias + alpha * cosines, dim=1) - shots.one_hot) / n
        moved, shifted = MOMENTUM * moved + error.T @ x, MOMENTUM * shifted + error.sum(dim=0)
        weight, bias = weight - rate * moved, bias - rate * shifted
        if summed or step % EVERY == 0:
            slope = summed * slope + (error * cosines).sum(dim=0)
        if step % EVERY == 0:
            alpha = alpha - text_rate * slope
    return Head.linear(weight + alpha[:, None] * shots.text, bias)
