"""Tip-Adapter-F (Zhang et al. 2022, section 3.2): Tip-Adapter whose keys are trained, begun at the shots."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional as F

from multimodal.heads import tip_adapter
from multimodal.heads.head import Head, Shots

GRID = tuple({"alpha": alpha, "beta": beta} for alpha, beta in ((1.0, 5.5), (5.0, 1.0), (20.0, 1.0)))
SHOTS, TEXT = 1, True
STEPS, LEARNING_RATE, EPSILON = 30, 1e-3, 1e-4


def fit(shots: Shots, alpha: float, beta: float, steps: int = STEPS) -> Head:
    """AdamW under a cosine schedule as the authors' code has it, each step on all shots. steps 0: Tip-Adapter."""
    shots = shots.single()
    head = tip_adapter.fit(shots, alpha, beta)
    keys = head.keys.clone().requires_grad_()
    optimizer = torch.optim.AdamW([keys], lr=LEARNING_RATE, eps=EPSILON)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(replace(head, keys=keys).logits(shots.features), shots.labels).backward()
            optimizer.step()
            schedule.step()
    return replace(head, keys=keys.detach())
