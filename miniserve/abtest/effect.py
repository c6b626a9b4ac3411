"""A difference between two groups, and how sure we are of it."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import ndtr, ndtri

from miniserve.abtest.checks import check_fraction


@dataclass(frozen=True, slots=True)
class Estimate:
    """The second group minus the first, with its confidence interval and test."""

    difference: float
    low: float  # the confidence interval
    high: float
    statistic: float  # z or t
    p_value: float  # two-sided
    df: float = float("inf")  # degrees of freedom; infinite for a z

    @property
    def significant(self) -> bool:
        """Return whether the interval excludes zero."""
        return not self.low <= 0 <= self.high


def z_quantile(alpha: float) -> float:
    """Return the z that a standard normal value exceeds, on either side, with probability `alpha`."""
    check_fraction("alpha", alpha)
    return -float(ndtri(alpha / 2))


def two_sided(z: float) -> float:
    """Return the two-sided p-value of a z."""
    return 2 * float(ndtr(-abs(z)))
