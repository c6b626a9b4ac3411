"""Sample ratio mismatch: did the groups come out at the sizes they were meant to have?

If not, whatever removed users (a crash in one variant, a redirect, a bot filter) has selected them by their behaviour,
and every other figure of the experiment is void. So check this first, with a threshold so low that it hardly ever
raises a false alarm.
Source: Fabijan et al., KDD 2019, "Diagnosing Sample Ratio Mismatch in Online Controlled Experiments".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from scipy.special import chdtrc
from scipy.stats import binomtest

from miniserve.abtest.checks import count_of
from miniserve.abtest.effect import two_sided

MOST_EXACT = 10**12  # users; far beyond, scipy's search for the other tail does not end
ALARM_P = 0.0005  # the lower of the two thresholds in use (0.0005 and 0.001)

SrmMethod = Literal["chi-square", "exact", "normal", "normal-corrected"]


def srm_p_value(
    counts: Sequence[float], shares: Sequence[float] | None = None, *, method: SrmMethod = "chi-square"
) -> float:
    """Return the probability that chance alone makes the groups this uneven.

    `shares` are what the groups were meant to get (default: equal). Chi-square takes any number of groups, the others
    two: the exact binomial, and its normal approximation with and without the continuity correction.
    Raises: ValueError for missing, negative or infinite counts, shares that are not positive, or an unsuitable method.
    """
    counts = [count_of(count) for count in counts]
    expected = _expected(counts, shares)
    if method == "chi-square":
        return float(chdtrc(len(counts) - 1, chi_square(counts, shares)))
    if method not in ("exact", "normal", "normal-corrected"):
        raise ValueError(f"method ({method!r}) must be chi-square, exact, normal or normal-corrected")
    if len(counts) != 2:
        raise ValueError(f"method {method!r} compares 2 groups, not {len(counts)}: use chi-square")
    total = sum(counts)
    share = expected[0] / total
    if method == "exact":
        if total > MOST_EXACT:
            raise ValueError(
                f"{total:g} users are too many for the exact method (at most {MOST_EXACT:g}): use chi-square"
            )
        return float(binomtest(int(counts[0]), int(total), share).pvalue)
    off = abs(counts[0] - expected[0]) - (0.5 if method == "normal-corrected" else 0.0)
    return two_sided(max(0.0, off) / math.sqrt(total * share * (1 - share)))


def chi_square(counts: Sequence[float], shares: Sequence[float] | None = None) -> float:
    """Return the chi-square statistic; its degrees of freedom are the number of groups minus one."""
    counts = [count_of(count) for count in counts]
    return sum((seen - due) ** 2 / due for seen, due in zip(counts, _expected(counts, shares), strict=True))


def has_mismatch(counts: Sequence[float], shares: Sequence[float] | None = None, *, alarm_p: float = ALARM_P) -> bool:
    """Return whether the experiment's other figures must be thrown away."""
    return srm_p_value(counts, shares) < alarm_p


def _expected(counts: Sequence[float], shares: Sequence[float] | None) -> list[float]:
    shares = [1.0] * len(counts) if shares is None else shares
    if len(counts) < 2 or min(counts) < 0 or sum(counts) == 0:
        raise ValueError(f"counts must be 2 or more numbers >= 0, not all 0: {list(counts)}")
    if len(shares) != len(counts) or not all(0 < share < math.inf for share in shares):
        raise ValueError(f"shares must be {len(counts)} numbers above 0, not {list(shares)}")
    return [sum(counts) * share / sum(shares) for share in shares]
