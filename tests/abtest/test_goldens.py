"""The statistics agree with published figures and with other implementations, to the digits that were printed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from miniserve.abtest import sequential
from miniserve.abtest.always_valid import gavi_half_width, mixture_ratio, msprt_half_width
from miniserve.abtest.bootstrap import difference_of_means
from miniserve.abtest.cuped import variance_factor
from miniserve.abtest.means import SampleSummary, welch_t, welch_t_of
from miniserve.abtest.power import (
    SizeFormula,
    minimum_detectable_effect,
    normal_power,
    sample_size_means,
    sample_size_proportions,
    t_power,
)
from miniserve.abtest.proportions import one_proportion_z, two_proportion_z
from miniserve.abtest.srm import SrmMethod, chi_square, srm_p_value

# --- proportions ---------------------------------------------------------------------------------------------------


def test_two_proportions() -> None:
    """tea-tasting's own test: 19 of 53 against 13 of 47."""
    effect = two_proportion_z((19, 13), (53, 47), pooled_interval=True, continuity=True)

    assert effect.statistic == pytest.approx(-0.8762214, abs=5e-8)
    assert effect.p_value == pytest.approx(0.3809096823, abs=5e-11)
    assert effect.difference == pytest.approx(-0.08189482, abs=5e-9)
    assert (effect.low, effect.high) == pytest.approx((-0.2851524, 0.1213628), abs=5e-8)
    assert not effect.significant


def test_proportions_of_the_statsmodels_documentation() -> None:
    one = one_proportion_z(5, 83, 0.05)
    two = two_proportion_z((12, 5), (99, 83))

    assert (one.statistic, one.p_value) == pytest.approx((0.3921260263, 0.6949650981), abs=5e-11)
    assert (two.statistic, two.p_value) == pytest.approx((-1.4078304151, 0.1591812918), abs=5e-11)


# --- means ---------------------------------------------------------------------------------------------------------


def test_welch_from_summaries() -> None:
    """gbstats' own test."""
    effect = welch_t_of(SampleSummary(0.41, 3.9, 3407), SampleSummary(0.70, 6.2, 3461))

    assert effect.statistic == pytest.approx(2.3240228, abs=5e-8)
    assert effect.df == pytest.approx(5841.742, abs=5e-4)
    assert effect.p_value == pytest.approx(0.02015840, abs=5e-9)
    assert (effect.low, effect.high) == pytest.approx((0.0453779, 0.5346221), abs=5e-8)
    assert effect.significant


def test_welch_from_data_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 1, 40), rng.normal(1.5, 3, 25)
    theirs = scipy.stats.ttest_ind(second, first, equal_var=False)
    low, high = theirs.confidence_interval()
    ours = welch_t(first, second)

    assert (ours.statistic, ours.p_value, ours.low, ours.high) == pytest.approx(
        (theirs.statistic, theirs.pvalue, low, high), rel=1e-9
    )


def test_what_cuped_leaves() -> None:
    assert [round(variance_factor(rho), 2) for rho in (0.5, 0.7, 0.9)] == [0.75, 0.51, 0.19]


def test_bca_agrees_with_scipy() -> None:
    """Two draws of 20,000 resamples differ by some thousandths of the interval's width."""
    rng = np.random.default_rng(3)
    first, second = rng.exponential(1, 60), rng.exponential(2, 50)
    theirs = scipy.stats.bootstrap(
        (second, first),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        n_resamples=20_000,
        method="BCa",
        rng=np.random.default_rng(4),
    ).confidence_interval
    ours = difference_of_means(first, second, rng, resamples=20_000, method="bca")

    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02 * (theirs.high - theirs.low))


# --- sample ratio mismatch -----------------------------------------------------------------------------------------


def test_a_mismatch_of_thousandths_in_a_large_experiment() -> None:
    """Kohavi's example."""
    counts = (821588, 815482)

    assert chi_square(counts) == pytest.approx(22.774369, abs=5e-7)
    assert srm_p_value(counts) == pytest.approx(1.8218e-06, abs=5e-11)
    assert srm_p_value((600, 400)) == pytest.approx(2.5396e-10, abs=5e-15)


@pytest.mark.parametrize(
    ("method", "p"),
    [("exact", 0.61729941), ("normal-corrected", 0.61707508), ("normal", 0.54850624), ("chi-square", 0.54850624)],
)
def test_an_ordinary_split_by_every_method(method: SrmMethod, p: float) -> None:
    assert srm_p_value((53, 47), method=method) == pytest.approx(p, abs=5e-9)


# --- power ---------------------------------------------------------------------------------------------------------


def test_power_of_a_difference_of_means() -> None:
    assert normal_power(0.3, 80) == pytest.approx(0.475100870572638, abs=5e-16)
    assert t_power(0.3, 80) == pytest.approx(0.4705117, abs=5e-8)
    assert sample_size_means(0.5) == pytest.approx(63.7656, abs=5e-5)
    assert t_power(0.5, sample_size_means(0.5)) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("p1", "p2", "formula", "n", "digits"),
    [
        (0.05, 0.06, "pooled", 8157.7, 0.05),
        (0.05, 0.06, "unpooled", 8155.0, 0.05),
        (0.05, 0.06, "arcsine", 8142.6, 0.05),
        (0.10, 0.12, "pooled", 3840.8, 0.05),
        (0.20, 0.25, "pooled", 1093.7, 0.05),
        (0.20, 0.25, "baseline", 1030, 0.5),
    ],
)
def test_users_for_two_proportions(p1: float, p2: float, formula: SizeFormula, n: float, digits: float) -> None:
    assert sample_size_proportions(p1, p2, formula=formula) == pytest.approx(n, abs=digits)


def test_the_smallest_effect_is_the_inverse_of_the_size() -> None:
    n = 2 * (1.959963985 + 0.841621234) ** 2 / 0.25
    assert minimum_detectable_effect(2.0, n) == pytest.approx(1.0, abs=1e-8)


# --- planned looks -------------------------------------------------------------------------------------------------


def test_what_peeking_costs() -> None:
    inflation = [round(sequential.peeking_error(looks), 4) for looks in (1, 2, 3, 4, 5, 10, 20)]
    assert inflation == [0.05, 0.0831, 0.1073, 0.1262, 0.1417, 0.1934, 0.2479]


def test_pocock() -> None:
    assert [round(sequential.pocock(k)[0], 3) for k in (1, 2, 3, 4, 5, 10)] == [
        1.960,
        2.178,
        2.289,
        2.361,
        2.413,
        2.555,
    ]


def test_obrien_fleming() -> None:
    assert [round(sequential.obrien_fleming(k)[-1], 3) for k in (1, 2, 3, 4, 5, 10)] == [
        1.960,
        1.977,
        2.004,
        2.024,
        2.040,
        2.087,
    ]
    borders = sequential.obrien_fleming(5)
    assert borders == pytest.approx([borders[-1] * math.sqrt(5 / k) for k in range(1, 6)])


@pytest.mark.parametrize(
    ("spending", "borders"),
    [
        (sequential.obrien_fleming_spending, [4.8769, 3.3570, 2.6803, 2.2898, 2.0310]),  # see below
        (sequential.pocock_spending, [2.4380, 2.4268, 2.4102, 2.3966, 2.3860]),
        (sequential.power_spending(2), [3.0902, 2.7141, 2.4728, 2.2799, 2.1140]),
        (sequential.obrien_fleming_total_spending, [4.3826, 3.0997, 2.5534, 2.2538, 2.0635]),
    ],
)
def test_lan_demets(spending: sequential.Spending, borders: list[float]) -> None:
    ours = sequential.lan_demets(sequential.equal_looks(5), spending=spending)
    assert [round(border, 4) for border in ours] == borders


def test_the_last_border_is_confirmed_by_another_integral() -> None:
    """2.03103: some print 2.0311. A multivariate normal over all five looks at once says which it is."""
    times = np.array(sequential.equal_looks(5))
    borders = np.array(sequential.lan_demets(times.tolist()))
    cov = np.minimum.outer(times, times) / np.sqrt(np.outer(times, times))
    inside = scipy.stats.multivariate_normal.cdf(borders, cov=cov, lower_limit=-borders, abseps=1e-7, releps=1e-7)

    assert 1 - inside == pytest.approx(0.05, abs=2e-6)  # at 2.0311 it would be 0.049994


# --- any look ------------------------------------------------------------------------------------------------------


def test_the_mixture() -> None:
    ratio = mixture_ratio(1000, 0.1, variance=2.0, tau2=0.01)

    assert ratio == pytest.approx(3.2787, abs=5e-5)
    assert 1 / ratio == pytest.approx(0.3050, abs=5e-5)
    assert msprt_half_width(1000, 2.0, 0.01) == pytest.approx(0.13667, abs=5e-6)
    assert 1.959964 * math.sqrt(2 / 1000) == pytest.approx(0.08765, abs=5e-6)


@pytest.mark.parametrize(("n", "ratio"), [(1000, 1.72), (5000, 1.55), (20000, 1.60)])
def test_how_much_wider_gavi_is_than_one_look(n: int, ratio: float) -> None:
    fixed = 1.959964 * math.sqrt(1 / n)
    assert gavi_half_width(n, 1.0, best_at=5000) / fixed == pytest.approx(ratio, abs=0.005)
