"""Plain logistic regression on the features, without texts (Radford et al. 2021, section 3.2)."""

from __future__ import annotations

import torch

from multimodal.heads.head import Head, Shots
from retrieval_prompts.evaluation.classification.linear_probe import linear_probe

GRID = tuple({"strength": strength} for strength in (10.0, 100.0, 1.0))  # of its inverse penalty
SHOTS, TEXT = 1, False


def fit(shots: Shots, strength: float) -> Head:
    """strength: the inverse of the weight of the L2 penalty."""
    found = linear_probe(shots.features.numpy(), shots.labels.numpy(), len(shots.text), strength=strength)
    return Head.linear(torch.from_numpy(found.weight), torch.from_numpy(found.bias))
