"""GDA (Wang et al. 2024, arXiv 2402.04087): a Gaussian a class with a common covariance, beside the text. Untrained."""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal.heads.head import Head, Shots

GRID = tuple({"gain": value} for value in (1e-3, 1e-5, 3e-5, 1e-4, 3e-4, 3e-3, 1e-2, 3e-2))
LEAST = 1e-6  # of the trace: shots of a class that are all the same would make the precision infinite
SHOTS, TEXT = 2, True  # of a single shot a class nothing is known of how a class varies


def precision(shots: Shots) -> Tensor:
    """(D, D): D ((n - 1) S + tr(S) I)^-1 of the covariance S within the classes (equation 7, of Kubokawa and
    Srivastava 2008)."""
    n, D = shots.features.shape
    apart = shots.features - shots.means[shots.labels]
    S = apart.T @ apart / (n - 1)
    return D * torch.linalg.inv((n - 1) * S + torch.trace(S).clamp(min=LEAST) * torch.eye(D, dtype=S.dtype))


def fit(shots: Shots, gain: float) -> Head:
    """gain: the weight alpha of the Gaussians beside the text is gain * n, for the precision falls as 1 / n (equations
    5 and 8). The classes are equally likely."""
    weight, alpha = shots.means @ precision(shots), gain * len(shots.features)
    bias = -0.5 * (weight * shots.means).sum(dim=1) - torch.log(torch.tensor(float(len(weight))))
    return Head.linear(shots.scale * shots.text + alpha * weight, alpha * bias)
