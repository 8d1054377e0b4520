"""CLAP (Silva-Rodriguez et al. 2024, arXiv 2312.12730): prototypes that begin at the texts and are held near them.

A class whose own text already tells its shots well is held harder; nothing needs to be chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.heads.head import Head, Shots

STEPS, LEARNING_RATE, MOMENTUM = 300, 0.1, 0.9
GRID: tuple[dict[str, float]] = ({},)
SHOTS, TEXT = 1, True


def multipliers(shots: Shots) -> Tensor:
    """(C,): the mean probability that the texts give to the class's shots (section 4.2)."""
    right = F.softmax(shots.logits, dim=1)[torch.arange(len(shots.labels)), shots.labels]
    return shots.one_hot.T @ right / shots.counts


def penalty(weight: Tensor, shots: Shots, held: Tensor) -> Tensor:
    """The mean over the classes of held_c |w_c - t_c|^2 (equation 7)."""
    return (held * (weight - shots.text).square().sum(dim=1)).mean()


def fit(shots: Shots, steps: int = STEPS) -> Head:
    """Stochastic gradient descent's settings of the authors' code, each step on all shots."""
    shots = shots.single()
    held, weight = multipliers(shots), shots.text.clone().requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=LEARNING_RATE, momentum=MOMENTUM)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            logits = shots.scale * shots.features @ F.normalize(weight, dim=1).T
            (F.cross_entropy(logits, shots.labels) + penalty(weight, shots, held)).backward()
            optimizer.step()
            schedule.step()
    return Head.linear(shots.scale * F.normalize(weight.detach(), dim=1))
