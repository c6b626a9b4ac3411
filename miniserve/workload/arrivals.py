"""When requests come: endless series of times, each from a random generator of its own.

Knows nothing about what arrives. Every kind has a mean rate, so two kinds can be compared at the same load. Rates that
change over the day are in `rates`, and can be built on the kinds here, which are also curves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Protocol

from miniserve.workload.rates import RatePiece


class Arrivals(Protocol):
    """A point process on the time axis, starting at 0."""

    @property
    def rate_per_s(self) -> float:
        """Mean number of arrivals per second."""
        ...

    def rate_at(self, time_s: float) -> float:
        """Return the expected rate at `time_s`, before any randomness."""
        ...

    def times(self, rng: Random) -> Iterator[float]:
        """Yield arrival times in seconds, never decreasing, without end."""
        ...


@dataclass(frozen=True, slots=True)
class Poisson:
    """Many independent clients: gaps are exponential, and the past says nothing about the future.

    Raises: ValueError if the rate is not positive.
    """

    rate_per_s: float

    def __post_init__(self) -> None:
        if not self.rate_per_s > 0:
            raise ValueError(f"rate_per_s ({self.rate_per_s:g}) must be above 0")

    def rate_at(self, time_s: float) -> float:
        return self.rate_per_s

    def pieces(self, rng: Random) -> Iterator[RatePiece]:
        yield inf, self.rate_per_s, self.rate_per_s

    def times(self, rng: Random) -> Iterator[float]:
        now_s = 0.0
        while True:
            now_s += rng.expovariate(self.rate_per_s)
            yield now_s


@dataclass(frozen=True, slots=True)
class Bursts:
    """Calm and bursts alternate, each for an exponential time; within either, arrivals are Poisson.

    `rate_per_s` is the mean over both; a burst has `peak_per_s`, and the calm gets the rest.
    Raises: ValueError if the bursts alone would exceed the mean.
    """

    rate_per_s: float
    peak_per_s: float
    burst_s: float = 10.0  # mean duration
    calm_s: float = 50.0  # mean duration

    def __post_init__(self) -> None:
        if min(self.rate_per_s, self.burst_s, self.calm_s) <= 0:
            raise ValueError("rate_per_s, burst_s and calm_s must be above 0")
        most = self.rate_per_s / self.burst_fraction
        if not self.rate_per_s <= self.peak_per_s <= most * (1 + 1e-9):
            raise ValueError(
                f"peak_per_s ({self.peak_per_s:g}) must lie between rate_per_s ({self.rate_per_s:g}) and {most:g}, "
                "at which the calm between bursts is empty"
            )

    @property
    def burst_fraction(self) -> float:
        """Share of the time spent in bursts."""
        return self.burst_s / (self.burst_s + self.calm_s)

    @property
    def calm_per_s(self) -> float:
        share = self.burst_fraction
        return max(0.0, (self.rate_per_s - share * self.peak_per_s) / (1 - share))

    def rate_at(self, time_s: float) -> float:
        return self.rate_per_s

    def pieces(self, rng: Random) -> Iterator[RatePiece]:
        """Yield the phases, each at one rate; the first is a burst as often as bursts' share of the time."""
        in_burst = rng.random() < self.burst_fraction
        while True:
            rate, mean_s = (self.peak_per_s, self.burst_s) if in_burst else (self.calm_per_s, self.calm_s)
            yield rng.expovariate(1 / mean_s), rate, rate
            in_burst = not in_burst

    def times(self, rng: Random) -> Iterator[float]:
        now_s, in_burst, phase_ends_s = 0.0, False, rng.expovariate(1 / self.calm_s)
        while True:
            rate = self.peak_per_s if in_burst else self.calm_per_s
            now_s = now_s + rng.expovariate(rate) if rate > 0 else phase_ends_s
            if now_s >= phase_ends_s:  # nothing came before the phase ended; gaps have no memory: draw anew
                now_s, in_burst = phase_ends_s, not in_burst
                phase_ends_s += rng.expovariate(1 / (self.burst_s if in_burst else self.calm_s))
            else:
                yield now_s
