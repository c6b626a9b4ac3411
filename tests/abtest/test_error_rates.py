"""The tests err as often as they say: on experiments without an effect, with one, and under peeking."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats

from miniserve.abtest import sequential
from miniserve.abtest.always_valid import gavi_half_width, gavi_rho, mixture_border, msprt_half_width
from miniserve.abtest.bootstrap import BootstrapMethod, difference_of_means, difference_of_quantiles
from miniserve.abtest.cuped import cuped_t
from miniserve.abtest.harm import HarmTest, Trials
from miniserve.abtest.means import welch_t
from miniserve.abtest.power import normal_power, sample_size_means, sample_size_proportions, t_power
from miniserve.abtest.proportions import two_proportion_z

Rng = np.random.Generator
Record = Callable[[str, object], None]
MANY = pytest.param(2000, marks=pytest.mark.full)


def seldom(count: int, runs: int, rate: float) -> bool:
    """Say whether `count` of `runs` is no evidence (p > 0.001) against "at most `rate`"."""
    return bool(scipy.stats.binom.sf(count - 1, runs, rate) > 0.001)


# --- one look ------------------------------------------------------------------------------------------------------


def z_p(rng: Rng) -> float:
    return two_proportion_z(tuple(rng.binomial(20_000, 0.3, 2)), (20_000, 20_000)).p_value


def welch_p(rng: Rng) -> float:
    return welch_t(rng.normal(5, 1, 60), rng.normal(5, 3, 40)).p_value


def cuped_p(rng: Rng) -> float:
    (x, y), (u, v) = (rng.multivariate_normal([5, 5], [[1, 0.7], [0.7, 1]], 100).T for _ in range(2))
    return cuped_t((y, x), (v, u)).p_value


@pytest.mark.parametrize("runs", [200, MANY])
@pytest.mark.parametrize("p_value", [z_p, welch_p, cuped_p])
def test_p_values_of_a_a_tests_are_uniform(p_value: Callable[[Rng], float], runs: int, record_property: Record) -> None:
    rng = np.random.default_rng(7)
    ks = scipy.stats.kstest([p_value(rng) for _ in range(runs)], "uniform").pvalue
    record_property("a_a_runs", runs)
    record_property("ks_p", round(float(ks), 4))

    assert ks > 0.01


@pytest.mark.parametrize("runs", [200, MANY])
def test_power_is_what_the_sample_size_promises(runs: int, record_property: Record) -> None:
    rng = np.random.default_rng(8)
    n = round(sample_size_proportions(0.2, 0.25))
    found_z = sum(two_proportion_z(tuple(rng.binomial(n, [0.2, 0.25])), (n, n)).p_value < 0.05 for _ in range(runs))
    m = round(sample_size_means(0.5))
    found_t = sum(welch_t(rng.normal(0, 1, m), rng.normal(0.5, 1, m)).p_value < 0.05 for _ in range(runs))
    record_property("found_of_runs", [found_z, found_t, runs])

    tolerance = 0.03 if runs == 2000 else 0.09
    assert found_z / runs == pytest.approx(0.8, abs=tolerance)
    assert found_t / runs == pytest.approx(t_power(0.5, m), abs=tolerance)


def test_cuped_needs_half_the_users_where_the_past_explains_half() -> None:
    """rho 0.7: the standard error shrinks by sqrt(0.51), the difference stays."""
    rng = np.random.default_rng(9)
    (x, y), (u, v) = (rng.multivariate_normal([5, 5], [[1, 0.7], [0.7, 1]], 20_000).T for _ in range(2))
    plain, adjusted = welch_t(y, v + 0.1), cuped_t((y, x), (v + 0.1, u))

    assert (adjusted.high - adjusted.low) / (plain.high - plain.low) == pytest.approx(0.51**0.5, abs=0.01)
    assert adjusted.low < 0.1 < adjusted.high


@pytest.mark.parametrize("runs", [50, MANY])
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_intervals_hold_the_truth(method: BootstrapMethod, runs: int, record_property: Record) -> None:
    """Two exponential groups of 200. With 60 and 400 resamples it is 92 to 93 %: skew needs values, ends need draws."""
    rng = np.random.default_rng(10)
    held = 0
    for _ in range(runs):
        first, second = rng.exponential(1, 200), rng.exponential(2, 200)
        got = difference_of_means(first, second, rng, resamples=1000, method=method)
        held += got.low <= 1 <= got.high
    record_property("held_of_runs", [held, runs])

    low, high = (0.93, 0.97) if runs == 2000 else (0.84, 1.0)
    assert low <= held / runs <= high


@pytest.mark.parametrize("runs", [60, pytest.param(600, marks=pytest.mark.full)])
def test_bootstrap_intervals_of_a_p95_hold_the_truth(runs: int, record_property: Record) -> None:
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(runs):
        first, second = rng.lognormal(0, 0.5, (2, 300))
        got = difference_of_quantiles(first, second, 0.95, rng, resamples=300)
        held += got.low <= 0 <= got.high
    record_property("held_of_runs", [held, runs])

    assert held / runs >= 0.90  # few values lie beyond a p95; ties among resamples make the interval wide, not narrow


# --- many looks ----------------------------------------------------------------------------------------------------


def paths(rng: Rng, runs: int, n: int) -> np.ndarray:
    """Return, for each run, the sum of the first 1, 2, ..., n differences of two groups without an effect."""
    return rng.normal(0, 2**0.5, (runs, n)).cumsum(axis=1)


@pytest.mark.parametrize("runs", [200, MANY])
def test_always_valid_p_values_stay_valid_under_a_look_after_every_user(runs: int, record_property: Record) -> None:
    """The naive test beside it finds an effect that is not there in half of the runs."""
    rng = np.random.default_rng(12)
    n = np.arange(1, 5001)
    msprt = np.array([msprt_half_width(k, 2.0, 0.01) * k for k in n])
    gavi = np.array([gavi_half_width(k, 2.0) * k for k in n])
    typo = np.sqrt((2 * n + 1260) * np.log((2 * n + 1260) / (1260 + 0.05**2)))  # as some pages print GAVI
    crossed = dict.fromkeys(("msprt", "gavi", "naive", "typo"), 0)
    for _ in range(runs // 100):
        sums = np.abs(paths(rng, 100, 5000))
        crossed["msprt"] += int((sums > msprt).any(axis=1).sum())
        crossed["gavi"] += int((sums > gavi).any(axis=1).sum())
        crossed["naive"] += int((sums > 1.959964 * np.sqrt(2 * n))[:, 99:].any(axis=1).sum())
        crossed["typo"] += int((sums > typo).any(axis=1).sum())
    record_property("runs", runs)
    for name, count in crossed.items():
        record_property(f"false_positives_{name}", count)

    assert crossed["msprt"] <= 0.05 * runs
    assert crossed["gavi"] <= 0.05 * runs
    assert crossed["naive"] / runs == pytest.approx(0.447, abs=0.04 if runs == 2000 else 0.11)
    assert crossed["typo"] > 0.2 * runs


@pytest.mark.parametrize("runs", [400, pytest.param(20_000, marks=pytest.mark.full)])
def test_planned_looks_keep_alpha_and_unplanned_ones_do_not(runs: int, record_property: Record) -> None:
    rng = np.random.default_rng(13)
    z = rng.normal(0, 1, (runs, 10)).cumsum(axis=1) / np.sqrt(np.arange(1, 11))
    kinds = {
        "pocock": sequential.pocock(10),
        "obrien_fleming": sequential.obrien_fleming(10),
        "lan_demets": sequential.lan_demets(sequential.equal_looks(10)),
    }
    for name, borders in kinds.items():
        crossed = int((np.abs(z) > borders).any(axis=1).sum())
        record_property(f"false_positives_{name}", crossed)
        assert seldom(crossed, runs, 0.05)
    naive = (np.abs(z) > 1.959964).any(axis=1).mean()
    record_property("false_positive_rate_naive", round(float(naive), 4))
    assert naive == pytest.approx(sequential.peeking_error(10), abs=4 * (0.19 * 0.81 / runs) ** 0.5)


def test_the_border_of_the_mixture_is_narrowest_where_it_was_told() -> None:
    best = gavi_rho(5000)
    at = mixture_border(5000, best)
    assert all(at <= mixture_border(5000, best * factor) * 1.0005 for factor in (0.5, 0.8, 1.25, 2))


def harm_runs(rng: Rng, runs: int, canary: float, baseline: float, batches: int = 100) -> int:
    """Return how many canaries of 1,400 answers in 100 batches are found out at 5 %; the baseline has 99 times that."""
    found = 0
    for _ in range(runs):
        test = HarmTest(harm=0.03)
        bad = zip(rng.binomial(14, canary, batches), rng.binomial(1386, baseline, batches), strict=True)
        found += any(test.update(Trials(int(c), 14), Trials(int(b), 1386)) <= 0.05 for c, b in bad)
    return found


@pytest.mark.parametrize("runs", [200, MANY])
@pytest.mark.parametrize("rate", [0.002, 0.05, 0.3])
def test_harm_is_rarely_seen_where_there_is_none(rate: float, runs: int, record_property: Record) -> None:
    found = harm_runs(np.random.default_rng(14), runs, rate, rate)
    record_property("false_positives_of_runs", [found, runs])
    assert found <= 0.05 * runs


@pytest.mark.parametrize("runs", [100, MANY])
def test_a_harm_of_3_points_is_found_in_1400_answers(runs: int, record_property: Record) -> None:
    found = harm_runs(np.random.default_rng(15), runs, 0.086, 0.056)
    record_property("found_of_runs", [found, runs])
    assert found >= 0.9 * runs


def test_what_is_tolerated_is_not_found_and_twice_that_is() -> None:
    rng = np.random.default_rng(16)
    found = {0.02: 0, 0.06: 0}
    for canary in found:
        for _ in range(100):
            test = HarmTest(harm=0.04, tolerated=0.02)
            batches = rng.binomial(200, [canary, 0.0001], (50, 2))
            found[canary] += any(test.update(Trials(int(c), 200), Trials(int(b), 200)) <= 0.05 for c, b in batches)
    assert found[0.02] <= 5
    assert found[0.06] >= 95


def test_a_rate_that_drifts_through_the_day_is_no_harm() -> None:
    """The bad rate goes from 2 % to 30 % and the canary's share from 1 % to 50 %: in each batch the two are equal."""
    rng = np.random.default_rng(17)
    found = 0
    for _ in range(200):
        test = HarmTest(harm=0.03)
        for batch in range(40):
            rate, n = 0.02 + 0.007 * batch, (14, 1386) if batch < 20 else (700, 700)
            c, b = rng.binomial(n, rate)
            test.update(Trials(int(c), n[0]), Trials(int(b), n[1]))
        found += test.p_value <= 0.05
    assert found <= 10


def test_normal_power_matches_the_z_tests() -> None:
    assert normal_power(0.0, 100) == pytest.approx(0.05)
