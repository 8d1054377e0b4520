"""ProKeR (Bendou et al. 2025, arXiv 2501.11175): kernel ridge regression of what the texts leave unsaid. Untrained."""

from __future__ import annotations

from itertools import product

import torch

from multimodal.heads.head import Head, Shots, kernel

BETA = 1.0
BETAS, STRENGTHS = (0.3, BETA), (0.03, 0.1, 1.0, 3.0, 10.0, 30.0)
GRID: list[dict[str, float | None]] = [{"beta": BETA, "ridge": None}]
GRID += [{"beta": beta, "ridge": ridge} for beta, ridge in product(BETAS, STRENGTHS)]
SHOTS, TEXT = 1, True
WIDTHS, RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0), (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def fit(shots: Shots, beta: float = BETA, ridge: float | None = None) -> Head:
    """The f that minimises sum |f(x) - y|^2 + ridge |f - t|^2, t the cosines with the texts (proximal, section 3.2):
    f = t + K (K + ridge I)^-1 (y - t), on the scale of the model's logits. A large ridge leaves the texts.

    ridge: None: the one of the largest evidence; see `likely_ridge`.
    """
    ridge = likely_ridge(shots) if ridge is None else ridge
    K = kernel(shots.features, shots.features, beta)
    values = torch.linalg.solve(K + ridge * torch.eye(len(K), dtype=K.dtype), _unsaid(shots))
    return Head.around(shots.scale * shots.text, shots.features, shots.scale * values, beta)


def likely_ridge(shots: Shots) -> float:
    """The ridge, over all WIDTHS of the kernel, that makes the shots likeliest as draws of a Gaussian process around
    the texts (Rasmussen and Williams 2006, equation 2.30, the variance profiled out). Nothing needs to be held out:
    pictures of different classes that look alike say that looks tell little."""
    return min((-evidence(shots, beta, ridge), ridge) for beta, ridge in product(WIDTHS, RIDGES))[1]


def evidence(shots: Shots, beta: float, ridge: float) -> float:
    """The logarithm of the marginal likelihood, up to a constant."""
    left = _unsaid(shots)
    left = left - left.mean(dim=1, keepdim=True)
    n, C = left.shape
    K = kernel(shots.features, shots.features, beta)
    root = torch.linalg.cholesky(K + ridge * torch.eye(n, dtype=K.dtype))
    variance = (left * torch.cholesky_solve(left, root)).sum() / (n * C)
    return float(-0.5 * n * C * torch.log(variance) - C * torch.log(torch.diag(root)).sum())


def _unsaid(shots: Shots) -> torch.Tensor:
    """(n, C): what is left of the labels beside the cosines with the texts."""
    return shots.one_hot - shots.features @ shots.text.T
