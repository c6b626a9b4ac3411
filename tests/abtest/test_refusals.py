"""Impossible questions are refused with the value and what is allowed; simple properties of the rest."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniserve.abtest import sequential
from miniserve.abtest.always_valid import AlwaysValid, gavi_half_width, mixture_ratio, msprt_half_width
from miniserve.abtest.bootstrap import difference_of_means, difference_of_quantiles
from miniserve.abtest.cuped import cuped_t, cuped_theta, variance_factor
from miniserve.abtest.harm import HarmTest, Trials, log_evidence
from miniserve.abtest.means import SampleSummary, welch_t, welch_t_of
from miniserve.abtest.power import minimum_detectable_effect, normal_power, sample_size_means
from miniserve.abtest.power import sample_size_proportions as size
from miniserve.abtest.proportions import LEAST_EXPECTED, least_expected, one_proportion_z, two_proportion_z
from miniserve.abtest.srm import has_mismatch, srm_p_value
from miniserve.errors import SetupError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: two_proportion_z((11, 1), (10, 10)), r"successes \(11\) must lie between 0 and"),
        (lambda: two_proportion_z((-1, 1), (10, 10)), r"successes \(-1\)"),
        (lambda: two_proportion_z((0, 0), (0, 10)), "at least 1 trial, not 0"),
        (lambda: two_proportion_z((10, 10), (10, 10)), "nothing to test"),
        (lambda: two_proportion_z((1, 2), (10, 10), alpha=1.0), r"alpha \(1.0\) must lie strictly between 0 and 1"),
        (lambda: one_proportion_z(1, 10, 0.0), r"value \(0.0\)"),
        (lambda: one_proportion_z(0, 10, 0.5), "no variance"),
        (lambda: welch_t([1.0], [1.0, 2.0]), "at least 2 numbers"),
        (lambda: welch_t([1.0, math.nan], [1.0, 2.0]), "not finite"),
        (lambda: welch_t([1.0, 1.0], [2.0, 2.0]), "nothing to test"),
        (lambda: welch_t_of(SampleSummary(0, 1, 2), SampleSummary(0, 1, 2), alpha=0), r"alpha \(0\)"),
        (lambda: SampleSummary(0, -1, 5), "sd >= 0"),
        (lambda: difference_of_means([1, 2], [1, 2], RNG, resamples=5), r"resamples \(5\)"),
        (lambda: difference_of_means([1, 2], [1, 2], RNG, method="x"), "percentile"),  # type: ignore[arg-type]
        (lambda: difference_of_quantiles([1.0] * 999, [1.0] * 999, 0.99, RNG), "at least 1000 values in each"),
        (lambda: difference_of_quantiles([1, 2], [1, 2], 1.5, RNG), r"q \(1.5\)"),
        (lambda: cuped_theta([1.0, 2.0], [1.0, 2.0, 3.0]), "each of the 2 outcomes"),
        (lambda: variance_factor(1.1), r"rho \(1.1\)"),
        (lambda: size(0.1, 0.1), "tell 0.1 from itself"),
        (lambda: size(0.0, 0.1), r"p1 \(0.0\)"),
        (lambda: size(0.1, 0.2, power=1.0), r"power \(1.0\)"),
        (lambda: size(0.1, 0.2, alpha=0.5, power=0.4), "must be above alpha"),
        (lambda: size(0.1, 0.2, sides=3), "1 or 2 sides, not 3"),
        (lambda: size(0.1, 0.2, formula="x"), "formula"),  # type: ignore[arg-type]
        (lambda: sample_size_means(0.0), r"\|d\| \(0.0\)"),
        (lambda: normal_power(0.5, 1), r"n \(1\)"),
        (lambda: minimum_detectable_effect(-1.0, 10), r"sd \(-1.0\)"),
        (lambda: srm_p_value([5]), "2 or more numbers"),
        (lambda: srm_p_value([5, -1]), "2 or more numbers >= 0"),
        (lambda: srm_p_value([0, 0]), "not all 0"),
        (lambda: srm_p_value([5, 5], [1.0]), "shares must be 2"),
        (lambda: srm_p_value([5, 5, 5], method="exact"), "use chi-square"),
        (lambda: srm_p_value([5, 5], method="x"), "method"),  # type: ignore[arg-type]
        (lambda: sequential.pocock(0), "at least 1 look, not 0"),
        (lambda: sequential.pocock(3, alpha=2), r"alpha \(2\)"),
        (lambda: sequential.lan_demets([0.5, 0.4]), "rising numbers within"),
        (lambda: sequential.lan_demets([0.5, 1.2]), "rising numbers within"),
        (lambda: sequential.lan_demets([0.5, 1.0], spending=lambda t, a: a * (1 - t / 2)), "spending must rise"),
        (lambda: sequential.power_spending(0), r"phi \(0\)"),
        (lambda: sequential.crossing_probabilities([1.0, -2.0]), r"border \(-2.0\)"),
        (lambda: sequential.first_crossing([1.0, 2.0], [3.0]), "2 looks, but only 1"),
        (lambda: mixture_ratio(0, 0.1, 1, 1), r"n \(0\)"),
        (lambda: msprt_half_width(10, 1, 0), r"tau2 \(0\)"),
        (lambda: gavi_half_width(10, -1), r"variance \(-1\)"),
        (lambda: AlwaysValid(-1), r"tau2 \(-1\)"),
    ],
)
def test_impossible_questions_are_refused(call: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Trials(3, 2), r"bad answers \(3\) must lie between 0 and the number of answers \(2\)"),
        (lambda: Trials(-1, 2), r"bad answers \(-1\)"),
        (lambda: HarmTest(0.0), "tolerated < harm"),
        (lambda: HarmTest(0.1, tolerated=0.2), "tolerated < harm"),
        (lambda: HarmTest(0.1, limit=0.95), r"limit \(0.95\)"),
    ],
)
def test_impossible_guardrails_are_refused(call: Callable[[], object], says: str) -> None:
    with pytest.raises(SetupError, match=says):
        call()


counts = st.tuples(st.integers(1, 400), st.integers(1, 400), st.integers(0, 400), st.integers(0, 400))


@settings(deadline=None)
@given(counts)
def test_swapping_the_groups_swaps_the_sign(numbers: tuple[int, int, int, int]) -> None:
    n, m, s, t = numbers
    s, t = min(s, n), min(t, m)
    if least_expected((s, t), (n, m)) >= LEAST_EXPECTED:
        one, other = two_proportion_z((s, t), (n, m)), two_proportion_z((t, s), (m, n))
        assert one.difference == pytest.approx(-other.difference)
        assert one.p_value == pytest.approx(other.p_value)
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


rates = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)  # scipy overflows at 1e-308


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 15), st.integers(1, 15), st.floats(0.01, 0.6), rates, st.sampled_from([0.0, 0.01]))
def test_evidence_of_harm_has_expectation_1_at_most(
    n_c: int, n_b: int, guess: float, rate: float, tolerated: float
) -> None:
    """Exactly, over all outcomes, for any common rate and any guess: this is what makes the running product valid."""
    from scipy.stats import binom

    canary_rate = min(1.0, rate + tolerated)
    pc, pb = binom.pmf(range(n_c + 1), n_c, canary_rate), binom.pmf(range(n_b + 1), n_b, canary_rate - tolerated)
    expectation = sum(
        pc[c] * pb[b] * math.exp(log_evidence(Trials(c, n_c), Trials(b, n_b), guess, 0.05, tolerated))
        for c in range(n_c + 1)
        for b in range(n_b + 1)
    )
    assert expectation <= 1 + 1e-9


def test_a_batch_without_a_baseline_says_nothing_unless_there_is_a_limit() -> None:
    relative, absolute = HarmTest(0.05), HarmTest(0.05, limit=0.01)
    for test in (relative, absolute):
        test.update(Trials(50, 100), Trials())
    assert relative.p_value == 1.0
    assert absolute.p_value < 1e-6


def test_evidence_that_was_enough_once_is_kept() -> None:
    test = AlwaysValid(0.01)
    found = test.look(1000, 0.2, 2.0)
    assert found < 0.001
    assert test.look(2000, 0.0, 2.0) == found


def test_the_past_of_a_constant_figure_explains_nothing() -> None:
    assert cuped_theta([1.0, 2.0, 3.0], [4.0, 4.0, 4.0]) == 0.0
    y, x = [1.0, 2.0, 4.0], [4.0, 4.0, 4.0]
    assert cuped_t((y, x), (x, x)).difference == pytest.approx(welch_t(y, x).difference)


def test_a_mismatch_needs_strong_evidence() -> None:
    assert has_mismatch([821588, 815482])
    assert not has_mismatch([530, 470])  # p 0.058
    assert not has_mismatch([900, 100], [9, 1])


def test_the_first_crossing_is_the_first() -> None:
    assert sequential.first_crossing([1.0, -2.5, 3.0], sequential.pocock(3)) == 1
    assert sequential.first_crossing([1.0], sequential.pocock(3)) is None
