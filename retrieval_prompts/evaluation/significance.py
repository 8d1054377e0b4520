"""Paired tests of two systems on the same queries: intervals, p-values, effect sizes. Knows no model, run or file."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from retrieval_prompts.errors import UserError, few

ALPHA = 0.05  # the p-value below which two systems are called different, everywhere
POWER = 0.8  # the chance at which a difference counts as one that so many queries find
MATTERS = 0.01  # the smallest difference of a metric that matters, where nobody says another
FEW = 30  # queries under which a bootstrap interval is too narrow, and one query more or less can turn the result
CORRECTIONS = ("holm", "bh", "none")
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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        """What `as_dict` gave, perhaps with more beside it.

        Raises:
            KeyError: for what is missing.
        """
        known = {field.name: values[field.name] for field in fields(cls)}
        return cls(**{**known, "ci95": tuple(known["ci95"])})

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "ci95": list(self.ci95)}

    @property
    def queries(self) -> int:
        return self.helped + self.hurt + self.unchanged

    def turned(self) -> Comparison:
        """The same test seen from the other side: baseline - system."""
        low, high = self.ci95
        return replace(self, difference=-self.difference, ci95=(-high, -low), helped=self.hurt, hurt=self.helped)


@dataclass(frozen=True)
class Paired:
    """B against A, one metric, on the queries of one data set; fractions.

    Args:
        test: the headline: sign-flip permutation test and bootstrap interval.
        p_adjusted: its p after a correction for several data sets, if there was one.
        p_t, p_wilcoxon: of the paired t-test and the Wilcoxon signed-rank test; None where they are undefined.
        deviation: standard deviation of the differences over queries; None for a single query.
        d_z: mean difference / deviation (Cohen 1988); None where all differences are the same.
        rank_biserial: matched-pairs rank-biserial correlation, -1 (B always worse) to 1 (Kerby 2014); None where no
            query differs.
        detectable: the smallest difference that as many queries find 4 times out of 5; see `detectable`.
        judged_only: the difference when both rankings are stripped of unjudged documents ("condensed", Sakai 2007);
            None where only relevant documents are judged, for then nothing but those would be left.
    """

    a: float
    b: float
    test: Comparison
    p_t: float | None
    p_wilcoxon: float | None
    deviation: float | None
    d_z: float | None
    rank_biserial: float | None
    detectable: float | None
    judged_only: float | None = None
    p_adjusted: float | None = None

    @property
    def p(self) -> float:
        """The p-value that decides."""
        return self.test.p_value if self.p_adjusted is None else self.p_adjusted

    @property
    def queries(self) -> int:
        return self.test.queries

    def as_dict(self) -> dict[str, Any]:
        plain = asdict(self)
        del plain["test"]
        return {**self.test.as_dict(), **plain}


def compare(
    baseline: Mapping[str, float],
    system: Mapping[str, float],
    metric: str,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Is the system better than the baseline on this metric? Both map query id -> value, for the same queries.

    ci95: percentile bootstrap of the mean difference over queries (Efron and Tibshirani 1993, chapter 13). p_value:
    two-sided paired permutation test, that is random flips of the sign of each query's difference, which are enumerated
    where `resamples` allow it (Smucker et al. 2007, "A comparison of statistical significance tests for information
    retrieval evaluation"). The same seed gives the same numbers. With a single query the interval is a point and p is
    1.

    Raises:
        UserError: if the query sets differ or are empty.
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


def paired(
    a: Mapping[str, float], b: Mapping[str, float], metric: str, resamples: int = 10_000, seed: int = 0
) -> Paired:
    """Compare query -> value of two systems on the same queries.

    Raises:
        UserError: if the queries are not the same.
    """
    from scipy.stats import rankdata, ttest_rel, wilcoxon

    test = compare(a, b, metric, resamples, seed)
    before, after = (np.array([values[query] for query in a]) for values in (a, b))
    differences = np.round(after - before, 12)  # so that equal differences are ties, whatever they were rounded to
    n = len(differences)
    moved = differences[differences != 0]
    deviation = float(differences.std(ddof=1)) if n > 1 else None
    varies = deviation is not None and np.ptp(differences) > 0
    ranks = rankdata(np.abs(moved))
    return Paired(
        a=math.fsum(before) / n,
        b=math.fsum(after) / n,
        test=test,
        p_t=float(ttest_rel(after, before).pvalue) if varies else None,
        p_wilcoxon=float(wilcoxon(moved).pvalue) if len(moved) else None,
        deviation=deviation,
        d_z=test.difference / deviation if deviation and varies else None,
        rank_biserial=float((ranks * np.sign(moved)).sum() / ranks.sum()) if len(moved) else None,
        detectable=detectable(deviation, n) if deviation and varies else None,
    )


def detectable(deviation: float, queries: int) -> float:
    """The smallest true difference that a two-sided paired t-test at 0.05 finds with a power of 80 %.

    From the non-central t distribution (Cohen 1988; Sakai 2016, "Statistical power and sample sizes"); `deviation` is
    that of the differences over at least 2 queries. About 2.8 * deviation / sqrt(queries).
    """
    from scipy.special import nctdtrinc, stdtrit

    critical = stdtrit(queries - 1, 1 - ALPHA / 2)
    return float(nctdtrinc(queries - 1, 1 - POWER, critical)) * deviation / math.sqrt(queries)


def queries_needed(deviation: float, difference: float) -> int:
    """How many queries find a difference (> 0) that `detectable` asks for, if they vary as these do; at least 2."""
    about = math.ceil((2.8 * deviation / difference) ** 2)
    return bisect_left(range(2 * about + 12), True, lo=2, key=lambda n: detectable(deviation, n) <= difference)


def adjust(p_values: Sequence[float], correction: str) -> list[float]:
    """p-values of several data sets, corrected so that many data sets do not make a discovery of chance.

    "holm": the chance of one false discovery or more stays under 0.05 (Holm 1979). "bh": the expected share of false
    ones among the discoveries does (Benjamini and Hochberg 1995). "none": as they are.

    Raises:
        UserError: for another.
    """
    if correction not in CORRECTIONS:
        raise UserError(f"unknown correction {correction!r}; expected {', '.join(CORRECTIONS)}")
    if correction == "none" or not p_values:
        return list(p_values)
    if correction == "bh":
        from scipy.stats import false_discovery_control

        return [float(p) for p in false_discovery_control(p_values)]
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


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
