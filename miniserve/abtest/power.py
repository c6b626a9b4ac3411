"""How many users does an experiment need? To be asked before it, not after.

All sizes are per group, two-sided unless stated otherwise, and not rounded: round up. They assume one look at the end.
Source: Fleiss, Levin & Paik, ch. 4 (proportions); Cohen, Statistical Power Analysis, ch. 2 and 6 (means, arcsine).
"""

from __future__ import annotations

import math
from typing import Literal

from scipy.optimize import brentq
from scipy.special import nctdtr, ndtr, ndtri, stdtrit

from miniserve.abtest.checks import check_finite, check_fraction, check_positive

SizeFormula = Literal["pooled", "unpooled", "arcsine", "baseline"]

_LEAST_PER_GROUP = 2.0


def _z(alpha: float, power: float, sides: int) -> tuple[float, float]:
    """Return the two normal quantiles that every size formula uses."""
    check_fraction("alpha", alpha)
    check_fraction("power", power)
    if sides not in (1, 2):
        raise ValueError(f"a test has 1 or 2 sides, not {sides}")
    if power <= alpha:
        raise ValueError(f"power ({power}) must be above alpha ({alpha}), which chance alone reaches")
    return -float(ndtri(alpha / sides)), float(ndtri(power))


# --- proportions ---------------------------------------------------------------------------------------------------


def sample_size_proportions(
    p1: float, p2: float, *, alpha: float = 0.05, power: float = 0.8, formula: SizeFormula = "pooled", sides: int = 2
) -> float:
    """Return the users per group needed to detect p1 against p2 with this power.

    `pooled`: the test uses the pooled variance, the truth does not (as in the z test of `proportions.py`). `unpooled`:
    both use the groups' own variances. `arcsine`: Cohen's h. `baseline`: the first group's variance under the null
    hypothesis, as in a well-known online calculator.
    """
    check_fraction("p1", p1)
    check_fraction("p2", p2)
    if p1 == p2:
        raise ValueError(f"no number of users can tell {p1} from itself")
    za, zb = _z(alpha, power, sides)
    if formula == "arcsine":
        return _squared_ratio(za + zb, cohens_h(p1, p2))
    own = p1 * (1 - p1) + p2 * (1 - p2)
    mean = (p1 + p2) / 2
    if formula not in ("pooled", "unpooled", "baseline"):
        raise ValueError(f"formula ({formula!r}) must be pooled, unpooled, arcsine or baseline")
    under_null = {"pooled": 2 * mean * (1 - mean), "unpooled": own, "baseline": 2 * p1 * (1 - p1)}[formula]
    return _squared_ratio(za * math.sqrt(under_null) + zb * math.sqrt(own), p1 - p2)


def _squared_ratio(spread: float, effect: float) -> float:
    """Return (spread / effect)^2, the form of every size. Raises: ValueError if no number can hold it."""
    ratio = spread / effect if effect else math.inf
    if not ratio * ratio < math.inf:
        raise ValueError(f"the effect ({effect:g}) is too small for any number of users")
    return ratio * ratio


def cohens_h(p1: float, p2: float) -> float:
    """Return the distance between two proportions on the scale where all have the same variance, over sqrt(2)."""
    return abs(2 * math.asin(math.sqrt(p1)) - 2 * math.asin(math.sqrt(p2))) / math.sqrt(2)


# --- means ---------------------------------------------------------------------------------------------------------


def normal_power(d: float, n: float, *, alpha: float = 0.05) -> float:
    """Return the power of a z test with `n` per group for a difference of `d` standard deviations."""
    _check_size(n)
    check_finite("d", d)
    za, shift = _z(alpha, 0.5 + alpha / 2, 2)[0], abs(d) * math.sqrt(n / 2)
    return float(ndtr(shift - za) + ndtr(-shift - za))


def t_power(d: float, n: float, *, alpha: float = 0.05) -> float:
    """Return the power of a t test with `n` per group: the noncentral t distribution."""
    check_fraction("alpha", alpha)
    _check_size(n)
    check_finite("d", d)
    df, shift = 2 * n - 2, abs(d) * math.sqrt(n / 2)
    border = float(stdtrit(df, 1 - alpha / 2))
    return 1 - _nct_below(df, shift, border) + _nct_below(df, shift, -border)


def _nct_below(df: float, shift: float, border: float) -> float:
    """Return the noncentral t distribution up to `border`; the normal one where scipy has no number (large shifts)."""
    below = float(nctdtr(df, shift, border))
    return float(ndtr(border - shift)) if math.isnan(below) else below


def sample_size_means(d: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the users per group a t test needs to detect `d` standard deviations; the rule of thumb is 16 / d^2.

    2 is the least: one value per group shows no variance.
    """
    check_positive("|d|", abs(d))
    za, zb = _z(alpha, power, 2)
    if t_power(d, _LEAST_PER_GROUP, alpha=alpha) >= power:
        return _LEAST_PER_GROUP
    enough = 2 * _squared_ratio(za + zb, d) + 10
    while t_power(d, enough, alpha=alpha) < power:  # the t distribution's tails, at a tiny alpha
        enough *= 2
    return float(brentq(lambda n: t_power(d, n, alpha=alpha) - power, _LEAST_PER_GROUP, enough, xtol=1e-9))


def minimum_detectable_effect(sd: float, n: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest difference of means that `n` per group detect with this power (normal approximation)."""
    check_positive("sd", sd)
    _check_size(n)
    return sum(_z(alpha, power, 2)) * math.sqrt(2 * sd**2 / n)


def _check_size(n: float) -> None:
    check_finite("n", n)
    if not n >= 1.5:
        raise ValueError(f"n ({n}) must be at least 2 per group")
