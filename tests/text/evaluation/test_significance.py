"""Statistics against enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation import significance


def values(*numbers: float) -> dict[str, float]:
    return {f"q{i}": number for i, number in enumerate(numbers)}


def enumerated_p(differences: list[float]) -> float:
    observed = abs(sum(differences))
    flips = list(itertools.product((1, -1), repeat=len(differences)))
    extreme = sum(abs(sum(s * d for s, d in zip(f, differences, strict=True))) >= observed - 1e-12 for f in flips)
    return extreme / len(flips)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0, 2.0, 3.0], 2 / 8),  # only +++ and --- are as far out
        ([1.0, 2.0, -3.0], 1.0),
        ([1.0, 1.0, 1.0, -1.0], 10 / 16),  # sums of +-2 or more: all but the 6 that are 0
        ([0.5], 1.0),
        ([0.5, 0.0, 0.0, 0.0], 1.0),
        ([1.0, 2.0, 3.0, 0.0, 0.0], 2 / 8),  # zeros change nothing
        ([0.3, -0.1, 0.25, 0.7, 0.0, -0.2, 0.4], None),
    ],
)
def test_p_is_exact_for_few_queries(differences: list[float], p: float | None) -> None:
    result = significance.compare(values(*[0.0] * len(differences)), values(*differences), "ndcg@10")
    assert result.p_value == pytest.approx(enumerated_p(differences))
    if p is not None:
        assert result.p_value == pytest.approx(p)


def test_p_is_that_of_scipy_for_many_queries() -> None:
    from scipy.stats import permutation_test

    for mean in (0.0, 0.01, 0.03):
        differences = np.random.default_rng(5).normal(mean, 0.1, 60)
        ours = significance.compare(values(*[0.0] * 60), values(*differences), "ndcg@10").p_value
        theirs = permutation_test(
            (differences,), np.mean, permutation_type="samples", batch=1000, rng=1, vectorized=True
        )
        assert ours == pytest.approx(theirs.pvalue, abs=4 * (0.25 / 10_000) ** 0.5)  # 4 standard errors, at most


def test_p_is_never_0_at_random_and_smallest_by_enumeration() -> None:
    for queries, p in ((9, 2 / 2**9), (10, 1 / 1001), (3000, 1 / 1001)):  # 2**9 <= 1000 < 2**10
        result = significance.compare(values(*[0.0] * queries), values(*[0.5] * queries), "m", resamples=1000, seed=1)
        assert result.p_value == pytest.approx(p, abs=5e-3 if queries == 10 else 0)


def test_p_allows_for_rounding() -> None:
    result = significance.compare(values(0, 0, 0), values(0.1, 0.2, -0.3), "m")  # the sum is 2.8e-17
    assert result.p_value == 1.0


def test_comparison_counts_and_difference() -> None:
    result = significance.compare(values(0.5, 0.5, 0.5, 0.5), values(1.0, 0.75, 0.25, 0.5), "mrr@10")
    assert (result.helped, result.hurt, result.unchanged) == (2, 1, 1)
    assert result.difference == 0.125
    low, high = result.ci95
    assert -0.25 <= low < 0.125 < high <= 0.5
    assert result.as_dict() == {
        "metric": "mrr@10",
        "difference": 0.125,
        "ci95": [low, high],
        "p_value": result.p_value,
        "helped": 2,
        "hurt": 1,
        "unchanged": 1,
    }


def test_statistics_of_many_queries() -> None:
    rng = np.random.default_rng(0)
    baseline, noise = rng.random(400), rng.normal(0.02, 0.1, 400)
    a, b = values(*baseline), values(*(baseline + noise))
    result = significance.compare(a, b, "ndcg@10", resamples=2000, seed=3)
    assert result == significance.compare(a, b, "ndcg@10", resamples=2000, seed=3)
    assert result != significance.compare(a, b, "ndcg@10", resamples=2000, seed=4)
    reverse = significance.compare(b, a, "ndcg@10", resamples=2000, seed=3)
    assert reverse.difference == -result.difference
    assert reverse.ci95 == pytest.approx((-result.ci95[1], -result.ci95[0]))

    standard_error = noise.std() / 20  # the central limit theorem, at 400 queries
    assert result.ci95 == pytest.approx(
        (result.difference - 1.96 * standard_error, result.difference + 1.96 * standard_error),
        abs=0.15 * standard_error,
    )
    assert result.p_value < 0.01
    noise_only = significance.compare(a, values(*(baseline + noise - noise.mean())), "ndcg@10", resamples=2000)
    assert noise_only.p_value > 0.9 and noise_only.ci95[0] < 0 < noise_only.ci95[1]


@pytest.mark.parametrize(("baseline", "system", "ci"), [((0.5, 0.25), (0.5, 0.25), 0.0), ((0.5,), (0.75,), 0.25)])
def test_degenerate_comparisons(baseline: tuple[float, ...], system: tuple[float, ...], ci: float) -> None:
    result = significance.compare(values(*baseline), values(*system), "ndcg@10")
    assert (result.difference, result.ci95, result.p_value) == (ci, (ci, ci), 1.0)


def test_the_order_of_the_queries_of_the_system_does_not_matter() -> None:
    a, b = values(0.1, 0.2, 0.3), values(0.5, 0.2, 0.1)
    assert significance.compare(a, dict(reversed(b.items())), "m") == significance.compare(a, b, "m")


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UserError, match=r"same queries on both sides, got 2 and 3; 1 are on one side only .q2."):
        significance.compare(values(1, 1), values(1, 1, 1), "ndcg@10")
    with pytest.raises(UserError, match="no queries to compare on"):
        significance.compare({}, {}, "ndcg@10")
