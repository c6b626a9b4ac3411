"""The available curves: ramps, days, spikes, noise, and slow waves. `rates` draws arrivals from them.

`Spikes` and `Noisy` multiply another curve, so you can write a noisy day with a spike just as you say it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, pairwise, repeat
from random import Random

from miniserve.workload.rates import Curve, Piecewise, RatePiece, Step, Varying, curve_rng, scaled


def ramp(from_per_s: float, to_per_s: float, ramp_s: float, begins_s: float = 0.0) -> Piecewise:
    """Return a steady rate that changes linearly to another one, which then holds."""
    if not (from_per_s >= 0 and to_per_s > 0):
        raise ValueError(f"from_per_s ({from_per_s:g}) must be at least 0, and to_per_s ({to_per_s:g}) above 0")
    if not (ramp_s > 0 and begins_s >= 0):
        raise ValueError(f"ramp_s ({ramp_s:g}) must be above 0, and begins_s ({begins_s:g}) at least 0")
    return Piecewise(((0.0, from_per_s), (begins_s, from_per_s), (begins_s + ramp_s, to_per_s)))


@dataclass(frozen=True, slots=True)
class Spike:
    """For a while, `factor` times as many requests. Below 1 it is a dip."""

    at_s: float
    duration_s: float
    factor: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.at_s < math.inf:
            raise ValueError(f"at_s ({self.at_s:g}) must be at least 0")
        if not 0 < self.duration_s < math.inf:
            raise ValueError(f"duration_s ({self.duration_s:g}) must be above 0, and finite")
        if not 0 <= self.factor < math.inf:
            raise ValueError(f"factor ({self.factor:g}) must be at least 0")


@dataclass(frozen=True, slots=True)
class Spikes(Curve):
    """Another curve with spikes. `rate_per_s` is the other curve's: spikes come on top and end."""

    base: Varying
    spikes: tuple[Spike, ...]

    def __post_init__(self) -> None:
        for before, spike in pairwise(self.spikes):
            if spike.at_s < before.at_s + before.duration_s:
                ends = f"the spike at {before.at_s:g} ends at {before.at_s + before.duration_s:g}"
                raise ValueError(f"spikes must not overlap: {ends}, but the next begins at {spike.at_s:g}")

    @property
    def rate_per_s(self) -> float:
        return self.base.rate_per_s

    def rate_at(self, time_s: float) -> float:
        now = (spike.factor for spike in self.spikes if spike.at_s <= time_s < spike.at_s + spike.duration_s)
        return self.base.rate_at(time_s) * next(now, 1.0)

    def pieces(self, rng: Random) -> Iterator[RatePiece]:
        return scaled(self.base.pieces(rng), self._steps())

    def _steps(self) -> Iterator[Step]:
        now_s = 0.0
        for spike in self.spikes:
            yield spike.at_s - now_s, 1.0
            yield spike.duration_s, spike.factor
            now_s = spike.at_s + spike.duration_s
        yield math.inf, 1.0


@dataclass(frozen=True, slots=True)
class Noisy(Curve):
    """Another curve times gamma noise of mean 1: every `every_s` a new factor, with coefficient of variation `cv`."""

    base: Varying
    cv: float
    every_s: float

    def __post_init__(self) -> None:
        if not (0 <= self.cv < math.inf and 0 < self.every_s < math.inf):
            raise ValueError(f"cv ({self.cv:g}) must be at least 0, and every_s ({self.every_s:g}) above 0")

    @property
    def rate_per_s(self) -> float:
        return self.base.rate_per_s

    def rate_at(self, time_s: float) -> float:
        return self.base.rate_at(time_s)

    def pieces(self, rng: Random) -> Iterator[RatePiece]:
        own = curve_rng(rng)
        if self.cv == 0:
            return self.base.pieces(rng)
        variance = self.cv**2
        steps = ((self.every_s, own.gammavariate(1 / variance, variance)) for _ in repeat(0))
        return scaled(self.base.pieces(rng), steps)


@dataclass(frozen=True, slots=True)
class Waves(Curve):
    """A rate that wanders slowly: waves of `period_s`, half of it, a third, ... with random phases.

    The variance of the n-th is 1/n of the first's, so neighbouring minutes are alike and distant ones are not. `cv` is
    the rate's coefficient of variation. Every whole period has exactly the mean rate and exactly this variance;
    independent noise would have them only in the long run.
    """

    rate_per_s: float
    cv: float
    period_s: float = 3600.0
    waves: int = 8

    def __post_init__(self) -> None:
        if not (0 < self.rate_per_s < math.inf and 0 < self.period_s < math.inf and self.waves >= 1):
            values = f"rate_per_s ({self.rate_per_s:g}) and period_s ({self.period_s:g}) must be above 0"
            raise ValueError(f"{values}, and waves ({self.waves}) at least 1")
        most = 1 / sum(self._shape())
        if not 0 <= self.cv <= most:
            raise ValueError(f"cv ({self.cv:g}) must be at least 0 and at most {most:g}: the rate would fall below 0")

    def _shape(self) -> list[float]:
        """Return the height of each wave if the coefficient of variation is 1."""
        numbers = range(1, self.waves + 1)
        share = sum(1 / n for n in numbers)
        return [math.sqrt(2 / (n * share)) for n in numbers]

    def rate_at(self, time_s: float) -> float:
        return self.rate_per_s

    def pieces(self, rng: Random) -> Iterator[RatePiece]:
        heights = [self.cv * height for height in self._shape()]
        phases = [rng.uniform(0, 2 * math.pi) for _ in heights]
        knots = 45 * self.waves  # per period: 45 for the shortest wave, so straight lines are close enough
        rates = [self._rate(k / knots, heights, phases) for k in range(knots)]
        each_s = self.period_s / knots
        return cycle([(each_s, first, last) for first, last in pairwise([*rates, rates[0]])])

    def _rate(self, share: float, heights: list[float], phases: list[float]) -> float:
        angles = (2 * math.pi * n * share + phase for n, phase in enumerate(phases, 1))
        waves = (height * math.cos(angle) for height, angle in zip(heights, angles, strict=True))
        return self.rate_per_s * (1 + sum(waves))


# Over a day, large services peak at about 3 times the mean; with our curve that means a night at 3 % of the peak
NIGHT_TO_PEAK = 0.03
_KNOTS = 288  # per day: one every five minutes


def diurnal(
    rate_per_s: float,
    night_to_peak: float = NIGHT_TO_PEAK,
    noise_cv: float = 0.0,
    noise_s: float = 300.0,
    peak_at_fraction: float = 0.6,  # share of the day, from midnight: 14:24
    day_s: float = 86_400.0,
) -> Noisy:
    """Return a smooth, repeating day: exp(cosine), scaled to the mean `rate_per_s`, times gamma noise."""
    if not (0 < rate_per_s < math.inf and 0 < day_s < math.inf):
        raise ValueError(f"rate_per_s ({rate_per_s:g}) and day_s ({day_s:g}) must be above 0")
    if not 0 < night_to_peak <= 1:
        raise ValueError(f"night_to_peak ({night_to_peak:g}) must be above 0 and at most 1")
    if not 0 <= peak_at_fraction <= 1:
        raise ValueError(f"peak_at_fraction ({peak_at_fraction:g}) must be between 0 and 1")
    if not noise_cv >= 0 or not noise_s > 0:
        raise ValueError(f"noise_cv ({noise_cv:g}) must be at least 0, and noise_s ({noise_s:g}) above 0")
    sharpness = -math.log(night_to_peak) / 2
    shares = [k / _KNOTS for k in range(_KNOTS + 1)]
    heights = [math.exp(sharpness * math.cos(2 * math.pi * (share - peak_at_fraction))) for share in shares]
    mean = math.fsum(heights[1:]) / _KNOTS
    day = tuple((share * day_s, rate_per_s * height / mean) for share, height in zip(shares, heights, strict=True))
    return Noisy(Piecewise(day, repeat=True), noise_cv, noise_s)
