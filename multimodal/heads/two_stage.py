"""The second stage of 2SFS (Farina et al. 2025, arXiv 2503.11609): a linear classifier that begins at the text vectors.

The first stage is the prompt whose vectors they are; the authors' own changes the towers, see `experiments.two_stages`.
Few steps at a higher rate are chosen by held-out shots; as published there are more and smaller ones, see `published`.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from multimodal.heads.head import Head, Shots

GRID = tuple({"steps": steps} for steps in (30, 100, 300, 1000))
SHOTS, TEXT = 1, True
LEARNING_RATE, DECAY = 2e-3, 1e-2


def published(shots: Shots) -> dict[str, float]:
    """Options of the authors' code: the second two fifths of 300 steps for each shot of a class."""
    return {"steps": 120 * int(shots.counts.max()), "learning_rate": 2e-4, "floor": 1e-6}


def fit(shots: Shots, steps: int, learning_rate: float = LEARNING_RATE, floor: float = 0.0) -> Head:
    """AdamW under a cosine schedule that ends at `floor`, each step on all shots. 0 steps: the text classifier."""
    shots = shots.single()
    weight = shots.text.clone().requires_grad_()
    optimizer = torch.optim.AdamW([weight], lr=learning_rate, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1), eta_min=floor)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(shots.scale * shots.features @ F.normalize(weight, dim=1).T, shots.labels).backward()
            optimizer.step()
            schedule.step()
    return Head.linear(shots.scale * F.normalize(weight.detach(), dim=1))
