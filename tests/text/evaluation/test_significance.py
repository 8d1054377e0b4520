"""Statistics by hand, against enumeration and against scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from toy_comparisons import one_pair

from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation import significance
from retrieval_prompts.evaluation.significance import adjust, detectable, queries_needed


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


# --- pairs of systems -----------------------------------------------------------------------------------------------


def test_effect_sizes_by_hand() -> None:
    found = one_pair([0.5, 0.5, 0.5, 0.5, 0.5], [0.6, 0.4, 0.8, 0.9, 0.5])  # differences +1 -1 +3 +4 0, in tenths
    assert [found.a, found.b] == pytest.approx([0.5, 0.64])
    assert found.deviation == pytest.approx(math.sqrt((0.04**2 + 0.24**2 + 0.16**2 + 0.26**2 + 0.14**2) / 4))
    assert found.d_z == pytest.approx(0.14 / math.sqrt(0.043))
    assert found.rank_biserial == pytest.approx((1.5 + 3 + 4 - 1.5) / 10)  # ranks 1.5 1.5 3 4; 0 has none
    assert (found.queries, found.p_adjusted, found.p) == (5, None, found.test.p_value)


def test_the_same_as_scipy() -> None:
    from scipy.stats import ttest_1samp, wilcoxon

    rng = np.random.default_rng(3)
    before = rng.random(80)
    after = np.clip(before + rng.normal(0.03, 0.2, 80) * (rng.random(80) < 0.7), 0, 1)
    found = one_pair(before, after)
    assert found.p_t == pytest.approx(ttest_1samp(after - before, 0).pvalue)
    assert found.p_wilcoxon == pytest.approx(wilcoxon(np.round(after - before, 12), zero_method="wilcox").pvalue)
    assert found.test == significance.compare(values(*before), values(*after), "ndcg@10", 999)
    assert found.d_z == pytest.approx((after - before).mean() / np.std(after - before, ddof=1))


def test_equal_differences_are_ties_whatever_they_were_rounded_to() -> None:
    found = one_pair([0.1, 0.2, 0.7, 0.5], [0.3, 0.4, 0.9, 0.3])  # three times +0.2 and once -0.2, in decimals
    assert found.rank_biserial == pytest.approx((3 - 1) / 4)


def test_turned_round_the_signs_change() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(30), rng.random(30)
    there, back = one_pair(a, b), one_pair(b, a)
    assert back.test.difference == -there.test.difference
    assert there.d_z is not None and there.rank_biserial is not None
    assert [back.d_z, back.rank_biserial] == pytest.approx([-there.d_z, -there.rank_biserial])
    for name in ("p_t", "p_wilcoxon", "deviation", "detectable"):
        assert getattr(back, name) == pytest.approx(getattr(there, name))


@pytest.mark.parametrize(
    ("before", "after", "defined"),
    [
        ([0.5, 0.2], [0.5, 0.2], {"deviation"}),
        ([0.5, 0.2, 0.1], [0.6, 0.3, 0.2], {"deviation", "p_wilcoxon", "rank_biserial"}),  # all +0.1
        ([0.5], [0.6], {"p_wilcoxon", "rank_biserial"}),
    ],
)
def test_what_is_undefined_is_none(before: list[float], after: list[float], defined: set[str]) -> None:
    found = one_pair(before, after)
    names = {"p_t", "p_wilcoxon", "deviation", "d_z", "rank_biserial", "detectable"}
    assert {name for name in names if getattr(found, name) is not None} == defined
    assert found.deviation in (None, pytest.approx(0, abs=1e-12))


def test_detectable_difference_is_that_of_the_tables() -> None:
    # Two-sided paired t-test at 0.05 and 80 %: d = 0.2, 0.5 and 0.8 take 199, 34 and 15 pairs (G*Power 3.1)
    for effect, queries in ((0.2, 199), (0.5, 34), (0.8, 15)):
        assert detectable(1.0, queries) <= effect < detectable(1.0, queries - 1)
        assert queries_needed(1.0, effect) == queries
        assert queries_needed(0.3, 0.3 * effect) == queries
    assert detectable(0.4, 10_000) == pytest.approx(2.8016 * 0.4 / 100, rel=1e-3)
    assert queries_needed(0.0001, 0.5) == 2


def test_detectable_difference_is_detected_four_times_out_of_five() -> None:
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(1)
    differences = rng.normal(detectable(0.3, 40), 0.3, size=(4000, 40))
    found = float((ttest_1samp(differences, 0, axis=1).pvalue < 0.05).mean())
    assert found == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 4000))


# --- corrections --------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert adjust([0.01, 0.04, 0.03, 0.005], "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust([0.5, 0.4, 0.9], "holm") == [1.0, 1.0, 1.0]  # 3 x 0.4, then never less
    assert adjust([0.02], "holm") == [0.02]
    assert adjust([0.01, 0.01], "holm") == [0.02, 0.02]


def test_benjamini_hochberg_by_hand() -> None:
    assert adjust([0.01, 0.04, 0.03, 0.005], "bh") == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert adjust([0.01, 0.02, 0.9], "bh") == pytest.approx([0.03, 0.03, 0.9])
    assert adjust([0.01, 0.9], "none") == [0.01, 0.9]
    assert adjust([], "bh") == adjust([], "holm") == []


@pytest.mark.parametrize("correction", ["holm", "bh"])
def test_corrections_keep_the_order_and_only_raise(correction: str) -> None:
    raw = list(np.random.default_rng(2).random(20) ** 3)
    adjusted = adjust(raw, correction)
    assert all(before <= after <= 1 for before, after in zip(raw, adjusted, strict=True))
    order = np.argsort(raw)
    assert all(np.diff(np.array(adjusted)[order]) >= 0)
    turned = adjust(raw[::-1], correction)
    assert turned[::-1] == pytest.approx(adjusted)


def test_unknown_correction() -> None:
    with pytest.raises(UserError, match="unknown correction 'bonferroni'; expected holm, bh, none"):
        adjust([0.1], "bonferroni")
