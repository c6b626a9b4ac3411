"""What scaling would cost an oracle that knows the demand in advance: the yardstick for autoscalers.

    rate of each minute ── fewest replicas that keep the SLO at that rate ── ordered one cold start ahead ──> hours

The *capacity* of n replicas is the highest steady Poisson rate at which they keep the SLO for 99 % of requests; the
oracle uses the fewest replicas whose capacity reaches the minute's highest rate. Capacities are measured
(`bench.autoscale`), not n times that of one replica, because a larger fleet smooths out more randomness. A replica that
is needed from some minute on is paid for from one cold start earlier, and a replica that is needed again within a cold
start is kept.

The oracle knows the rate behind the arrivals, not each arrival. This module knows only numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from miniserve.errors import SetupError

MINUTE_S = 60.0


def minutes_of(rate_at: Callable[[float], float], until_s: float, looks: int = 6) -> list[float]:
    """Return the highest rate of each minute from 0 to `until_s`, among `looks` evenly spaced points in it."""
    return [
        max(rate_at((minute + look / looks) * MINUTE_S) for look in range(looks))
        for minute in range(math.ceil(until_s / MINUTE_S))
    ]


def replicas_for(rate_per_s: float, capacity_per_s: Mapping[int, float]) -> int:
    """Return the fewest replicas whose capacity is at least the rate. Between measured sizes, capacity is linear.

    Raises: SetupError if the largest one measured is not enough.
    """
    sizes = sorted(capacity_per_s)
    for size in range(sizes[0], sizes[-1] + 1):
        if _capacity(size, sizes, capacity_per_s) >= rate_per_s:
            return size
    raise SetupError(f"{rate_per_s:g} requests/s exceed the capacity of {sizes[-1]} replicas, the most measured")


def _capacity(size: int, sizes: Sequence[int], capacity_per_s: Mapping[int, float]) -> float:
    below = max(each for each in sizes if each <= size)
    above = min(each for each in sizes if each >= size)
    if below == above:
        return capacity_per_s[size]
    share = (size - below) / (above - below)
    return capacity_per_s[below] + share * (capacity_per_s[above] - capacity_per_s[below])


def plan(rates_per_s: Sequence[float], capacity_per_s: Mapping[int, float], cold_start_s: float) -> list[int]:
    """Return the replicas paid for in each minute: those needed in it or within one cold start after it."""
    needed = [replicas_for(rate, capacity_per_s) for rate in rates_per_s]
    lead = math.ceil(cold_start_s / MINUTE_S)
    return [max(needed[minute : minute + lead + 1]) for minute in range(len(needed))]


def hours(paid: Sequence[int]) -> float:
    """Return the replica-hours of a plan."""
    return sum(paid) * MINUTE_S / 3600
