"""Is one mean higher than another? Welch's t test, which allows each group its own variance.

Latency, tokens and cost are long-tailed: a mean needs many values before it is close to normal. Hundreds of users per
group are enough; with twenty, use the bootstrap; for a tail, compare the quantile itself.
Source: Welch 1947, "The generalization of Student's problem when several different population variances are involved".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from miniserve.abtest.checks import Floats, as_sample, check_finite, check_fraction, spread_beyond_rounding
from miniserve.abtest.effect import Estimate


@dataclass(frozen=True, slots=True)
class SampleSummary:
    """What Welch's test needs to know about a group; `sd` divides by n - 1."""

    mean: float
    sd: float
    n: int

    def __post_init__(self) -> None:
        """Raises: ValueError for fewer than two values or a negative or infinite spread."""
        if self.n < 2 or not 0 <= self.sd < math.inf or not math.isfinite(self.mean):
            raise ValueError(f"a group needs n >= 2, a finite mean and sd >= 0, not {self}")


def summarize(values: Sequence[float] | Floats) -> SampleSummary:
    """Return mean, standard deviation and size of one group."""
    array = as_sample("a group", values)
    # Squares of values beyond 1e154 overflow and below 1e-162 vanish; a power of two moves them without rounding.
    exponent = int(np.frexp(np.abs(array).max())[1])
    scaled = np.ldexp(array, -exponent)
    mean, sd = (math.ldexp(float(value), exponent) for value in (scaled.mean(), scaled.std(ddof=1)))
    return SampleSummary(mean, spread_beyond_rounding(sd, abs(mean)), len(array))


def welch_t(first: Sequence[float] | Floats, second: Sequence[float] | Floats, *, alpha: float = 0.05) -> Estimate:
    """Compare two means; the effect is the second minus the first."""
    return welch_t_of(summarize(first), summarize(second), alpha=alpha)


def welch_t_of(first: SampleSummary, second: SampleSummary, *, alpha: float = 0.05) -> Estimate:
    """Compare two means, given only the groups' summaries.

    Raises: ValueError if neither group varies by more than rounding, or alpha is not inside (0, 1).
    """
    check_fraction("alpha", alpha)
    spreads = [spread_beyond_rounding(group.sd, abs(group.mean)) for group in (first, second)]
    unit = max(spreads)  # the test does not depend on it, and squares of what is divided by it stay in range
    if unit == 0:
        raise ValueError("neither group varies: there is nothing to test")
    parts = [(sd / unit) ** 2 / group.n for sd, group in zip(spreads, (first, second), strict=True)]
    df = sum(parts) ** 2 / (parts[0] ** 2 / (first.n - 1) + parts[1] ** 2 / (second.n - 1))
    se = math.sqrt(sum(parts)) * unit
    difference = second.mean - first.mean
    check_finite("the difference of means", difference)
    t = difference / se
    half = float(stdtrit(df, 1 - alpha / 2)) * se
    return Estimate(difference, difference - half, difference + half, t, 2 * float(stdtr(df, -abs(t))), df)
