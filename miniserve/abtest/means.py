"""Is one mean higher than another? Welch's t test, which allows each group its own variance.

Latency, tokens and cost are long-tailed: a mean needs many values before it is close to normal. Hundreds of users per
group are enough; with twenty, use the bootstrap; for a tail, compare the quantile itself.
Source: Welch 1947, "The generalization of Student's problem when several different population variances are involved".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtr, stdtrit

from miniserve.abtest.checks import Floats, as_sample, check_fraction
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
    return SampleSummary(float(array.mean()), float(array.std(ddof=1)), len(array))


def welch_t(first: Sequence[float] | Floats, second: Sequence[float] | Floats, *, alpha: float = 0.05) -> Estimate:
    """Compare two means; the effect is the second minus the first."""
    return welch_t_of(summarize(first), summarize(second), alpha=alpha)


def welch_t_of(first: SampleSummary, second: SampleSummary, *, alpha: float = 0.05) -> Estimate:
    """Compare two means, given only the groups' summaries.

    Raises: ValueError if neither group varies, or alpha is not inside (0, 1).
    """
    check_fraction("alpha", alpha)
    parts = [group.sd**2 / group.n for group in (first, second)]
    se2 = sum(parts)
    if se2 == 0:
        raise ValueError("neither group varies: there is nothing to test")
    df = se2**2 / (parts[0] ** 2 / (first.n - 1) + parts[1] ** 2 / (second.n - 1))
    difference = second.mean - first.mean
    t = difference / math.sqrt(se2)
    half = float(stdtrit(df, 1 - alpha / 2)) * math.sqrt(se2)
    return Estimate(difference, difference - half, difference + half, t, 2 * float(stdtr(df, -abs(t))), df)
