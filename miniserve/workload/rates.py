"""Rates that change: curves of requests per second, and exact sampling of arrivals from them.

A curve is a series of pieces (seconds, rate at the start, rate at the end), linear in between. Arrivals are drawn by
time rescaling: gaps of a Poisson process of rate 1 are measured along the area under the curve. So each arrival takes
one random number whatever the curve is, and exchanging the curve leaves the n-th arrival's number unchanged. Randomness
in the curve itself comes from a separate generator.

A random curve has two faces: `rate_at` is what to expect, `realised` is what a seed made of it. `curves` lists the
curves there are. Knows nothing about what arrives.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, cycle, pairwise
from random import Random
from typing import Protocol

RatePiece = tuple[
    float, float, float
]  # seconds (the last may be infinite), requests per second at its start and at its end
Step = tuple[float, float]  # seconds, factor


class Varying(Protocol):
    """Arrivals whose rate is a curve."""

    @property
    def rate_per_s(self) -> float:
        """Mean number of arrivals per second."""
        ...

    def rate_at(self, time_s: float) -> float:
        """Return the expected rate at `time_s`, before any randomness."""
        ...

    def pieces(self, rng: Random) -> Iterator[RatePiece]:
        """Yield the curve from 0 on, endlessly or with an infinite last piece. `rng` is for the curve itself."""
        ...

    def times(self, rng: Random) -> Iterator[float]:
        """Yield arrival times in seconds, never decreasing."""
        ...


class Curve:
    """Arrivals from a curve, by time rescaling."""

    __slots__ = ()

    def pieces(self, rng: Random) -> Iterator[RatePiece]:
        raise NotImplementedError

    def times(self, rng: Random) -> Iterator[float]:
        return rescaled(self.pieces(curve_rng(rng)), rng)


def curve_rng(rng: Random) -> Random:
    """Return a generator for the curve itself, seeded with one number drawn before the first arrival's."""
    return Random(rng.getrandbits(64))


def rescaled(pieces: Iterable[RatePiece], rng: Random) -> Iterator[float]:
    """Yield a Poisson process of this rate: the n-th time is where the area equals the n-th time at rate 1."""
    begin_s, area_left = 0.0, rng.expovariate(1.0)
    for seconds, first, last in pieces:
        area = first * seconds if first == last else (first + last) / 2 * seconds
        slope = 0.0 if first == last else (last - first) / seconds
        while area_left < area:
            root = math.sqrt(max(0.0, first * first + 2 * slope * area_left))
            yield begin_s + min(seconds, 2 * area_left / (first + root))
            area_left += rng.expovariate(1.0)
        area_left -= area
        begin_s += seconds


def realised(arrivals: Varying, rng: Random, until_s: float) -> Piecewise:
    """Return the rates behind `arrivals.times(rng)`, from 0 to `until_s`: for a plot or for an oracle."""
    points: list[tuple[float, float]] = []
    now_s = 0.0
    for seconds, first, last in arrivals.pieces(curve_rng(rng)):
        end_s = min(now_s + seconds, until_s)
        share = (end_s - now_s) / seconds if math.isfinite(seconds) and seconds > 0 else 1.0
        points += [(now_s, first), (end_s, first + (last - first) * share)]
        now_s = end_s
        if now_s >= until_s:
            break
    return Piecewise(tuple(points))


def scaled(pieces: Iterable[RatePiece], steps: Iterator[Step]) -> Iterator[RatePiece]:
    """Yield `pieces` multiplied by the endless `steps`, cut wherever a step ends."""
    step_left_s, factor = next(steps)
    for whole_s, begin, last in pieces:
        seconds, first = whole_s, begin
        slope = 0.0 if begin == last else (last - begin) / whole_s
        while seconds > step_left_s:
            middle = first + slope * step_left_s
            yield step_left_s, first * factor, middle * factor
            seconds, first = seconds - step_left_s, middle
            step_left_s, factor = next(steps)
        yield seconds, first * factor, last * factor
        step_left_s -= seconds


@dataclass(frozen=True, slots=True)
class Piecewise(Curve):
    """Straight lines between `points` (seconds, requests per second); two points at the same time make a jump.

    After the last point the curve starts again with `repeat`; otherwise the last rate holds. `rate_per_s` is the mean
    up to the last point. Raises: ValueError if time goes backwards, a rate is negative, or the mean is 0.
    """

    points: tuple[tuple[float, float], ...]
    repeat: bool = False
    _times: tuple[float, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        _check_points(self.points, self.repeat)
        object.__setattr__(self, "_times", tuple(time_s for time_s, _ in self.points))
        if self.rate_per_s == 0:
            raise ValueError("points must not all have rate 0 up to the last of them: the mean rate is 0")

    @property
    def rate_per_s(self) -> float:
        if self._times[-1] == 0:
            return self.points[-1][1]
        return sum(seconds * (first + last) / 2 for seconds, first, last in self._once()) / self._times[-1]

    def rate_at(self, time_s: float) -> float:
        if self.repeat:
            time_s %= self._times[-1]
        i = bisect_right(self._times, time_s)
        if i == 0 or i == len(self._times):
            return self.points[min(i, len(self._times) - 1)][1]
        (low_s, low), (high_s, high) = self.points[i - 1], self.points[i]
        return low + (high - low) * (time_s - low_s) / (high_s - low_s)

    def pieces(self, rng: Random) -> Iterator[RatePiece]:
        if self.repeat:
            return cycle(self._once())
        last = self.points[-1][1]
        return chain(self._once(), [(math.inf, last, last)])

    def _once(self) -> Iterator[RatePiece]:
        for (from_s, first), (to_s, last) in pairwise(self.points):
            if to_s > from_s:
                yield to_s - from_s, first, last


def _check_points(points: tuple[tuple[float, float], ...], again: bool) -> None:
    if not points or points[0][0] != 0:
        raise ValueError(f"points must begin at second 0, not at {points[:1]}")
    for (before_s, _), (time_s, _) in pairwise(points):
        if not time_s >= before_s:
            raise ValueError(f"points must go forward in time: {time_s:g} comes after {before_s:g}")
    for time_s, rate in points:
        if not (0 <= rate < math.inf and time_s < math.inf):
            raise ValueError(f"points must have finite times and rates of at least 0, not ({time_s:g}, {rate:g})")
    if again and (points[-1][0] == 0 or not any(rate for _, rate in points)):
        raise ValueError("points that repeat need some time and a rate above 0")
    if not again and points[-1][1] == 0:
        raise ValueError("points must not end at rate 0, which would hold forever; end above 0, or repeat")
