"""Tip-Adapter (Zhang et al. 2022, arXiv 2111.03930, equations 3 to 5): the shots vote for their classes, untrained."""

from __future__ import annotations

from itertools import product

from multimodal.heads.head import Head, Shots

ALPHAS, BETAS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0), (1.0, 5.5, 15.0)
GRID = tuple(
    {"alpha": alpha, "beta": beta}
    for alpha, beta in sorted(product(ALPHAS, BETAS), key=lambda pair: pair != (1.0, 5.5))
)  # first what the authors start from
SHOTS, TEXT = 1, True


def fit(shots: Shots, alpha: float, beta: float) -> Head:
    """alpha: the weight of the shots beside the text; at 0 this is the text classifier. beta: how near they must be."""
    return Head.around(shots.scale * shots.text, shots.features, alpha * shots.one_hot, beta)
