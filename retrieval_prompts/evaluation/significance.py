"""Paired tests of two systems on the same queries: intervals and p-values. Knows no model, run or file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval_prompts.errors import UserError, few

ALPHA = 0.05  # the p-value below which two systems are called different, everywhere
BLOCK = 2_000_000  # resampled values at once: bounds the memory of the statistics


@dataclass(frozen=True)
class Comparison:
    metric: str
    difference: float  # mean of system - baseline
    ci95: tuple[float, float]
    p_value: float  # two-sided
    helped: int  # queries on which the system is better
    hurt: int
    unchanged: int

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "ci95": list(self.ci95)}


def compare(
    baseline: Mapping[str, float],
    system: Mapping[str, float],
    metric: str,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Is the system better than the baseline on this metric? Both map query id -> value, for the same queries.

    ci95: percentile bootstrap of the mean difference over queries (Efron and Tibshirani 1993, chapter 13).
    p_value: two-sided paired permutation test, that is random flips of the sign of each query's difference, which
    are enumerated where `resamples` allow it (Smucker et al. 2007, "A comparison of statistical significance tests for
    information retrieval evaluation"). The same seed gives the same numbers. With a single query the interval is a
    point and p is 1. Raises UserError if the query sets differ or are empty.
    """
    if baseline.keys() != system.keys():
        odd = sorted(baseline.keys() ^ system.keys())
        raise UserError(
            f"expected the same queries on both sides, got {len(baseline)} and {len(system)};"
            f" {len(odd)} are on one side only ({few(odd)})"
        )
    if not baseline:
        raise UserError("there are no queries to compare on")
    differences = np.array([system[query] - baseline[query] for query in baseline])  # (queries,)
    return Comparison(
        metric=metric,
        difference=float(differences.mean()),
        ci95=_bootstrap(differences, resamples, seed),
        p_value=_sign_flips(differences[differences != 0], resamples, seed),
        helped=int((differences > 0).sum()),
        hurt=int((differences < 0).sum()),
        unchanged=int((differences == 0).sum()),
    )


def _bootstrap(differences: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    from scipy.stats import bootstrap

    if np.all(differences == differences[0]):
        return float(differences[0]), float(differences[0])
    interval = bootstrap(
        (differences,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, BLOCK // len(differences)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _sign_flips(differences: np.ndarray, resamples: int, seed: int) -> float:
    """The share of sign patterns whose sum is as far from 0 as the observed one; a zero has no sign, so leave it out.

    scipy.stats.permutation_test as one matrix product a block, some 20 times as fast. Of random patterns the observed
    one is counted as one more, so p is never 0 (Phipson and Smyth 2010).
    """
    n = len(differences)  # n = 0: one pattern, p = 1
    exact = n < resamples.bit_length()  # 2**n <= resamples
    patterns = 2**n if exact else resamples
    total, rounding = differences.sum(), 1e-12 * np.abs(differences).sum()
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // max(1, n))
    extreme = 0
    for start in range(0, patterns, rows):
        pattern = np.arange(start, min(start + rows, patterns))
        if exact:
            flipped = pattern[:, None] >> np.arange(n) & 1
        else:
            flipped = rng.integers(0, 2, size=(len(pattern), n), dtype=np.int8)
        sums = total - 2 * (flipped @ differences)  # (rows,)
        extreme += int((np.abs(sums) >= abs(total) - rounding).sum())
    return extreme / patterns if exact else (extreme + 1) / (patterns + 1)
