"""Degenerate input: groups that do not vary, extreme units, tiny groups and huge effects agree with scipy, or are
refused in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from miniserve.abtest import sequential
from miniserve.abtest.always_valid import AlwaysValid
from miniserve.abtest.bootstrap import difference_of_means
from miniserve.abtest.cuped import cuped_theta
from miniserve.abtest.means import SampleSummary, welch_t, welch_t_of
from miniserve.abtest.power import normal_power, sample_size_means, sample_size_proportions, t_power
from miniserve.abtest.proportions import LEAST_EXPECTED, least_expected, two_proportion_z
from miniserve.abtest.srm import has_mismatch, srm_p_value

RNG = np.random.default_rng(0)

CONSTANTS = [
    ([0.04] * 10, [0.04] * 30),
    ([0.1] * 10, [0.1] * 30),
    ([3.1086244592868925e-09] * 693, [3.1086244592868925e-09] * 139),
    ([0.1] * 3, [0.3] * 3),
    ([1.0] * 3, [3.0] * 3),
    ([256.0] * 50, [256.0] * 70),
    ([1e9 + 0.1] * 20, [1e9 + 0.1] * 30),
    ([0.1 + 0.2, 0.3] * 5, [0.3] * 10),  # one number, computed in two ways
]


@pytest.mark.parametrize(("first", "second"), CONSTANTS)
def test_groups_of_one_number_are_refused_whatever_rounding_makes_of_their_mean(
    first: list[float], second: list[float]
) -> None:
    for test in (welch_t, lambda a, b: difference_of_means(a, b, RNG)):
        with pytest.raises(ValueError, match="neither group varies"):
            test(first, second)
    assert cuped_theta(RNG.normal(size=len(first)), first) == 0.0


def test_summaries_whose_spread_is_rounding_are_refused_like_the_values() -> None:
    with pytest.raises(ValueError, match="neither group varies"):
        welch_t_of(SampleSummary(0.04, 6.9e-18, 10), SampleSummary(0.05, 7e-18, 30))


@pytest.mark.parametrize("power", [0, -300, -500, -600, 300, 500, 600, -1020, 1019])
def test_the_unit_does_not_change_the_p_value(power: int) -> None:
    first, second = ([math.ldexp(value, power) for value in group] for group in ((1, 2, 3), (4, 5, 7)))
    found = welch_t(first, second)
    assert found.p_value == pytest.approx(stats.ttest_ind([1, 2, 3], [4, 5, 7], equal_var=False).pvalue, rel=1e-12)
    assert found.difference == pytest.approx(math.ldexp(10 / 3, power))


@pytest.mark.filterwarnings("ignore:Precision loss")  # scipy's, about the constant group
def test_one_constant_group_against_one_that_varies_is_scipys() -> None:
    first, second = [0.25] * 10, [0.1, 0.2, 0.3, 0.2]
    expected = stats.ttest_ind(second, first, equal_var=False)
    found = welch_t(first, second)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.low == pytest.approx(expected.confidence_interval().low, rel=1e-9)


@pytest.mark.parametrize("d", [*(d / 4 for d in range(2, 80)), 100.0, 1e6, 1e-3, 1e-8, -0.5])
@pytest.mark.parametrize(("alpha", "power"), [(0.05, 0.8), (0.01, 0.999999), (1e-6, 0.5)])
def test_every_effect_has_a_sample_size_of_at_least_2(d: float, alpha: float, power: float) -> None:
    n = sample_size_means(d, alpha=alpha, power=power)
    reached = t_power(d, n, alpha=alpha)
    assert (n == 2 and reached >= power) or reached == pytest.approx(power, abs=1e-7)


@pytest.mark.parametrize("call", [lambda: sample_size_means(math.inf), lambda: sample_size_means(1e-160),
                                  lambda: sample_size_proportions(5e-324, 1e-323),
                                  lambda: sample_size_proportions(0.5, 0.5000000000000001, formula="arcsine"),
                                  lambda: normal_power(math.inf, 10), lambda: t_power(1.0, math.inf)])  # fmt: skip
def test_effects_without_a_sample_size_are_refused(call: Callable[[], float]) -> None:
    with pytest.raises(ValueError, match=r"finite|too small for any number of users"):
        call()


@pytest.mark.parametrize(("p1", "p2"), [(1e-9, 2e-9), (0.5, 0.5 + 1e-12), (1e-300, 0.5), (1 - 1e-16, 0.5)])
def test_extreme_rates_have_finite_sample_sizes(p1: float, p2: float) -> None:
    assert 1 < sample_size_proportions(p1, p2) < math.inf


NUMBER_TYPES = [int, np.int64, np.int32, np.uint32, np.float64]


@pytest.mark.parametrize("number", NUMBER_TYPES)
def test_counts_may_be_numbers_of_any_type(number: Callable[[int], int]) -> None:
    """The sum of two int32 wraps at 2.1 billion."""
    trials = (number(2_000_000_000), number(2_000_000_000))
    found = two_proportion_z((number(1_400_000_000), number(1_400_050_000)), trials)
    table = [[1_400_000_000, 600_000_000], [1_400_050_000, 599_950_000]]
    assert found.p_value == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue, rel=1e-9)
    counts = [number(2_000_000_000), number(2_000_100_000)]
    assert srm_p_value(counts) == pytest.approx(stats.chisquare([2_000_000_000, 2_000_100_000]).pvalue, rel=1e-9)
    few = srm_p_value([number(500), number(530)], method="exact")
    assert few == pytest.approx(stats.binomtest(500, 1030).pvalue)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_counts_and_shares_that_are_no_numbers_are_refused(value: float) -> None:
    """A comparison with nan is false, so `p < alarm_p` would say "no mismatch"."""
    with pytest.raises(ValueError, match=r"a count \(.*\) must be a finite number"):
        has_mismatch([5000, value])
    with pytest.raises(ValueError, match="shares must be 2 numbers above 0"):
        srm_p_value([5000, 5000], [1.0, value])
    for call in (
        lambda: two_proportion_z((1, 2), (10, value)),
        lambda: two_proportion_z((1, value), (10, 10)),
        lambda: AlwaysValid(0.1).look(100, value, 1.0),
        lambda: AlwaysValid(0.1).look(100, 0.1, value),
    ):
        with pytest.raises(ValueError, match=str(value)):
            call()


def test_the_exact_method_ends_or_says_what_to_use_instead() -> None:
    assert srm_p_value([10**9, 10**9 + 70_000], method="exact") == pytest.approx(0.1176, abs=1e-3)
    with pytest.raises(ValueError, match=r"too many for the exact method.*use chi-square"):
        srm_p_value([10**18, 10**18 + 10**10], method="exact")
    assert srm_p_value([10**18, 10**18 + 10**10]) == pytest.approx(
        stats.chi2.sf(2 * (10**10 / 2) ** 2 / (10**18 + 10**10 / 2), 1), rel=1e-6
    )


@pytest.mark.parametrize(("successes", "trials"), [((0, 10), (1, 10)), ((0, 3), (3, 3)), ((1, 0), (2, 1000))])
def test_groups_too_small_for_z_are_sent_to_fishers_test(successes: tuple[int, int], trials: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="use Fisher's exact test"):
        two_proportion_z(successes, trials)


def test_groups_just_large_enough_for_z_come_near_fishers_test() -> None:
    for successes, trials in (((2, 8), (10, 10)), ((5, 5), (10, 400)), ((1, 9), (40, 40))):
        if least_expected(successes, trials) < LEAST_EXPECTED:
            continue
        table = [[s, n - s] for s, n in zip(successes, trials, strict=True)]
        assert two_proportion_z(successes, trials).p_value == pytest.approx(stats.fisher_exact(table).pvalue, abs=0.02)


# --- looks close together, and many of them ------------------------------------------------------------------------


@pytest.mark.parametrize("times", [[0.5, 0.50001, 1.0], [0.9, 0.90001, 1.0], [0.5, 0.5001, 1.0], [0.3, 0.6, 1.0]])
def test_looks_close_together_spend_what_an_independent_integral_says(times: Sequence[float]) -> None:
    borders = sequential.lan_demets(times)
    correlation = [[math.sqrt(min(a, b) / max(a, b)) for b in times] for a in times]
    walk = stats.multivariate_normal(np.zeros(3), correlation, allow_singular=True, maxpts=1_000_000, seed=1)
    within = walk.cdf(borders, lower_limit=[-border for border in borders])
    assert 1 - within == pytest.approx(0.05, abs=1e-4)
    assert sum(sequential.crossing_probabilities(borders, times)) == pytest.approx(0.05, abs=1e-6)


def test_a_second_look_right_after_the_first_hardly_changes_the_last_border() -> None:
    one, other = sequential.lan_demets([0.5, 1.0]), sequential.lan_demets([0.5, 0.50001, 1.0])
    assert other[-1] == pytest.approx(one[-1], abs=2e-4)


def test_looks_too_close_to_compute_are_refused() -> None:
    with pytest.raises(ValueError, match="too close to compute; leave one of them out"):
        sequential.lan_demets([0.5, 0.5 + 1e-9, 1.0])


def test_daily_looks_for_a_year_begin_before_there_is_anything_to_spend() -> None:
    borders = sequential.lan_demets(sequential.equal_looks(365))
    assert borders[0] == 8.0
    assert sum(sequential.crossing_probabilities(borders, sequential.equal_looks(365))) == pytest.approx(0.05, abs=1e-6)
