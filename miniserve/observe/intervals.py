"""How sure are we? Confidence intervals for a percentile, a mean, and a paired difference.

A percentile's interval needs no assumption about the distribution: the number of values below the true percentile is
binomial, so two of the sorted values bracket it. A mean's interval is Student's t over *independent* repetitions (one
number per seed), never over the requests of one run, which wait behind each other and are anything but independent.
Source: Hahn & Meeker, Statistical Intervals (1991), ch. 5; Law, Simulation Modeling and Analysis, ch. 9-10.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, stdtrit

from miniserve.observe.percentiles import rank


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, and bounds that contain the true value with the requested confidence."""

    estimate: float
    low: float
    high: float
    n: int  # how many independent values it is based on

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the t interval for the mean of independent values.

    Raises: ValueError for fewer than two values: one says nothing about how much they vary.
    """
    _check_confidence(confidence)
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval needs at least 2 independent values (seeds), not {n}")
    mean = float(np.mean(values))
    spread = float(np.std(values, ddof=1)) / n**0.5
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * spread
    return Interval(mean, mean - half, mean + half, n)


def paired_interval(ours: Sequence[float], theirs: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the interval for the mean of `ours - theirs`, seed by seed.

    With common random numbers both see the same arrivals and lengths, so what they share cancels out.
    Raises: ValueError if they are not pairs, or fewer than two.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"pairs need as many values on both sides, not {len(ours)} and {len(theirs)}")
    return mean_interval([a - b for a, b in zip(ours, theirs, strict=True)], confidence)


def percentile_ranks(n: int, p: float, confidence: float = 0.95) -> tuple[int, int] | None:
    """Return the ranks (1 to n) of the sorted values that bracket the true p-th percentile of a continuous quantity.

    The lower rank leaves out at most half of the error; the upper one is the first with which the pair reaches
    `confidence`. None: n values cannot bracket it (100 values say nothing about how large the p99 may be).
    Raises: ValueError if n is negative, p is not inside (0, 100), or confidence not inside (0, 1).
    """
    _check_confidence(confidence)
    if n < 0 or not 0 < p < 100:
        raise ValueError(f"no interval for the {p}th percentile of {n} values: need n >= 0 and 0 < p < 100")
    below = bdtr(np.arange(n, dtype=float), n, p / 100)  # below[k]: at most k values lie under the percentile
    low = int(np.searchsorted(below, (1 - confidence) / 2, side="right"))
    if low == 0:
        return None
    high = int(np.searchsorted(below, confidence + below[low - 1])) + 1
    return (low, high) if high <= n else None


def percentile_interval(values: Iterable[float], p: float, confidence: float = 0.95) -> Interval | None:
    """Return the p-th percentile of independent values with its interval; None if there are too few values for one."""
    ordered = np.sort(np.fromiter(values, dtype=np.float64))
    n = len(ordered)
    ranks = percentile_ranks(n, p, confidence)
    if ranks is None:
        return None
    low, high = ranks
    return Interval(float(ordered[rank(p, n) - 1]), float(ordered[low - 1]), float(ordered[high - 1]), n)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence ({confidence}) must lie between 0 and 1")
