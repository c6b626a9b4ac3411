"""Is one success rate higher than another? The two-proportion z test.

Pooled: if there is no difference, both groups have the same rate, so its variance is estimated from all the data. That
is right for a p-value. Unpooled: each group has its own variance, which is right for an interval around a difference
that may well exist. Close to the border of significance the two can disagree.
Both are approximations: with fewer than 5 successes or failures to expect in a group they find what is not there.
Source: Fleiss, Levin & Paik, Statistical Methods for Rates and Proportions, ch. 3.
"""

from __future__ import annotations

import math

from miniserve.abtest.checks import check_fraction, check_trials, count_of
from miniserve.abtest.effect import Estimate, two_sided, z_quantile

LEAST_EXPECTED = 5.0  # Cochran's rule: with 0 of 1 against 10 of 10, z says p = 0.0009 where Fisher's test says 0.09


def two_proportion_z(
    successes: tuple[float, float],
    trials: tuple[float, float],
    *,
    alpha: float = 0.05,
    pooled: bool = True,
    pooled_interval: bool = False,
    continuity: bool = False,
) -> Estimate:
    """Compare two success rates; the effect is the second minus the first.

    `pooled` applies to the p-value, `pooled_interval` to the interval; `continuity` widens the interval by half a
    success in each group. Raises: ValueError for impossible counts, if nothing varies (all succeeded, or none did), or
    if the groups are too small for z (`LEAST_EXPECTED`).
    """
    check_fraction("alpha", alpha)
    for s, n in zip(successes, trials, strict=True):
        check_trials(s, n)
    successes, trials = _plain(successes), _plain(trials)
    first, second = (s / n for s, n in zip(successes, trials, strict=True))
    pooled_se, unpooled_se = _standard_errors(successes, trials)
    se = pooled_se if pooled else unpooled_se
    if se == 0:
        raise ValueError(f"{successes} of {trials}: without a success and a failure there is nothing to test")
    if (least := least_expected(successes, trials)) < LEAST_EXPECTED:
        raise ValueError(
            f"{successes} of {trials}: a group would have {least:.2g} successes or failures, and a z test needs "
            f"{LEAST_EXPECTED:g}; use Fisher's exact test (scipy.stats.fisher_exact)"
        )
    half = z_quantile(alpha) * (pooled_se if pooled_interval else unpooled_se)
    half += (1 / trials[0] + 1 / trials[1]) / 2 if continuity else 0.0
    difference = second - first
    z = difference / se
    return Estimate(difference, difference - half, difference + half, z, two_sided(z))


def least_expected(successes: tuple[float, float], trials: tuple[float, float]) -> float:
    """Return the fewest successes or failures that a group would have if both had the same rate."""
    happened = sum(_plain(successes))
    return min(happened, sum(_plain(trials)) - happened) * min(trials) / sum(_plain(trials))


def one_proportion_z(successes: float, trials: float, value: float, *, alpha: float = 0.05) -> Estimate:
    """Compare a success rate with a fixed `value`; the variance is the sample's own."""
    check_trials(successes, trials)
    check_fraction("value", value)
    successes, trials = count_of(successes), count_of(trials)
    rate = successes / trials
    se = math.sqrt(rate * (1 - rate) / trials)
    if se == 0:
        raise ValueError(f"{successes} of {trials}: without a success and a failure the sample has no variance")
    half, z = z_quantile(alpha) * se, (rate - value) / se
    return Estimate(rate - value, rate - value - half, rate - value + half, z, two_sided(z))


def _plain(counts: tuple[float, float]) -> tuple[float, float]:
    return count_of(counts[0]), count_of(counts[1])


def _standard_errors(successes: tuple[float, float], trials: tuple[float, float]) -> tuple[float, float]:
    """Return the difference's standard error, pooled and unpooled."""
    rate = sum(successes) / sum(trials)
    pooled = rate * (1 - rate) * (1 / trials[0] + 1 / trials[1])
    own = ((s / n, n) for s, n in zip(successes, trials, strict=True))
    return math.sqrt(pooled), math.sqrt(sum(p * (1 - p) / n for p, n in own))
