"""How much would a difference vary if we drew the data again? Draw it again from itself.

Each resample takes as many values as the group has, with replacement. The percentile interval takes its ends from the
resampled differences. BCa adjusts those ends for bias and for a spread that changes with the value; its jackknife suits
smooth statistics such as a mean, so for a quantile use the default, percentile.
Source: Efron & Tibshirani, An Introduction to the Bootstrap, ch. 13-14.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri

from miniserve.abtest.checks import Floats, as_sample, check_fraction, varies

Statistic = Callable[[Floats], Floats]  # [..., n] -> [...]: of the last axis
BootstrapMethod = Literal["percentile", "bca"]
_CHUNK = 1 << 22  # resampled values held at once: 32 MB


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """A difference and its interval."""

    difference: float
    low: float
    high: float


def mean(values: Floats) -> Floats:
    """The statistic "mean"."""
    return np.asarray(values.mean(axis=-1))


def quantile(q: float) -> Statistic:
    """Return the statistic "q-quantile".

    Raises: ValueError if q is not inside (0, 1).
    """
    check_fraction("q", q)
    return lambda values: np.asarray(np.quantile(values, q, axis=-1))


def difference_of_means(
    first: Sequence[float] | Floats,
    second: Sequence[float] | Floats,
    rng: np.random.Generator,
    *,
    alpha: float = 0.05,
    resamples: int = 2000,
    method: BootstrapMethod = "percentile",
) -> Bootstrapped:
    """Return the second group's mean minus the first's, with its interval."""
    return _difference(first, second, mean, rng, alpha, resamples, method)


def difference_of_quantiles(
    first: Sequence[float] | Floats,
    second: Sequence[float] | Floats,
    q: float,
    rng: np.random.Generator,
    *,
    alpha: float = 0.05,
    resamples: int = 2000,
    method: BootstrapMethod = "percentile",
) -> Bootstrapped:
    """Return the second group's q-quantile minus the first's, with its interval.

    Raises: ValueError if a group is so small that fewer than 10 values lie beyond the quantile (under 1,000 for a p99):
    resampling cannot show what was never seen.
    """
    check_fraction("q", q)
    fewest = min(len(first), len(second))
    needed = math.ceil(10 / min(q, 1 - q) - 1e-9)
    if fewest < needed:
        raise ValueError(f"the {q:g}-quantile needs at least {needed} values in each group, not {fewest}")
    return _difference(first, second, quantile(q), rng, alpha, resamples, method)


def _difference(
    first: Sequence[float] | Floats,
    second: Sequence[float] | Floats,
    statistic: Statistic,
    rng: np.random.Generator,
    alpha: float,
    resamples: int,
    method: BootstrapMethod,
) -> Bootstrapped:
    check_fraction("alpha", alpha)
    if resamples < 100:
        raise ValueError(f"resamples ({resamples}) must be at least 100: the ends of the interval come from them")
    if method not in ("percentile", "bca"):
        raise ValueError(f"method ({method!r}) must be 'percentile' or 'bca'")
    a, b = as_sample("the first group", first), as_sample("the second group", second)
    if not varies(a) and not varies(b):
        raise ValueError("neither group varies: drawing again shows nothing new")
    seen = float(statistic(b) - statistic(a))
    drawn = _resampled(b, statistic, rng, resamples) - _resampled(a, statistic, rng, resamples)
    levels = np.array([alpha / 2, 1 - alpha / 2])
    if method == "bca":
        levels = _bca_levels(levels, drawn, seen, _skew([_jackknife(a, statistic), -_jackknife(b, statistic)]))
    low, high = np.quantile(drawn, levels)
    return Bootstrapped(seen, float(low), float(high))


def _resampled(values: Floats, statistic: Statistic, rng: np.random.Generator, resamples: int) -> Floats:
    n = len(values)
    rows = max(1, _CHUNK // n)
    parts = [
        statistic(values[rng.integers(0, n, (min(rows, resamples - start), n))]) for start in range(0, resamples, rows)
    ]
    return np.concatenate(parts)


def _bca_levels(levels: Floats, drawn: Floats, seen: float, acceleration: float) -> Floats:
    """Move the two levels by the bias z0 and the acceleration."""
    below = ((drawn < seen).mean() + (drawn <= seen).mean()) / 2
    z0 = float(ndtri(min(max(below, 0.5 / len(drawn)), 1 - 0.5 / len(drawn))))  # never infinite
    z = z0 + ndtri(levels)
    return np.asarray(ndtr(z0 + z / (1 - acceleration * z)))


def _jackknife(values: Floats, statistic: Statistic) -> Floats:
    """Return how much each value moves its group's statistic, scaled to the group's size."""
    n = len(values)
    left_out = np.array([float(statistic(np.delete(values, i))) for i in range(n)])
    return np.asarray((n - 1) * (left_out - left_out.mean()) / n)


def _skew(influences: list[Floats]) -> float:
    """Return the acceleration: a sixth of the skewness of the influence of single values."""
    cubes = sum(float((part**3).sum()) for part in influences)
    squares = sum(float((part**2).sum()) for part in influences)
    return cubes / (6 * squares**1.5) if squares > 0 else 0.0
