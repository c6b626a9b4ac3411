"""Predict the next values from past ones: five forecasts of an evenly spaced series, and a band around any of them.

    Naive          the last value                                        flat
    SeasonalNaive  the value of a season ago                             the last season once more
    Ewma           a mean that fades (simple exponential smoothing)      flat
    Holt           a level and a trend                                   a straight line
    HoltWinters    a level, a trend, and a value for each step of a day  the line, with the season on top

All are written as corrections: `error = value - forecast`, and each part absorbs a share of the error. A forecast knows
numbers, but no time and no replicas. A more elaborate forecast is not automatically better: compare it with `Naive`
and, where days are alike, with `SeasonalNaive` on your own demand.

Source: Hyndman, Athanasopoulos, Forecasting: Principles and Practice, section 5.2 (the naive ones) and chapter 8,
additive forms.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

from miniserve.errors import SetupError


class Forecast(Protocol):
    """Learns from one value after another."""

    def observe(self, value: float) -> None: ...

    def ahead(self, steps: int) -> float:
        """Return the value expected `steps` (1 or more) after the last one seen; 0 if none has been."""
        ...


class Naive:
    """The next value will equal the last one."""

    def __init__(self) -> None:
        self._last = 0.0

    def observe(self, value: float) -> None:
        _check_finite(value)
        self._last = value

    def ahead(self, steps: int) -> float:
        return self._last


class SeasonalNaive:
    """The next value will equal the one of a season ago. It acts as `Naive` during the first season."""

    def __init__(self, *, season_steps: int = 288) -> None:  # a day of five-minute steps
        _check_season(season_steps)
        self._season: deque[float] = deque(maxlen=season_steps)  # the next step's value first, once it is full

    def observe(self, value: float) -> None:
        _check_finite(value)
        self._season.append(value)

    def ahead(self, steps: int) -> float:
        season = self._season
        if len(season) < (season.maxlen or 0):
            return season[-1] if season else 0.0
        return season[(steps - 1) % len(season)]


class Ewma:
    """Exponentially weighted moving average. `start`: the level before the first value (default: that value)."""

    def __init__(self, *, level_weight: float = 0.3, start: float | None = None) -> None:
        _check_weights(level_weight=level_weight)
        self._weight = level_weight
        self._level = start

    def observe(self, value: float) -> None:
        _check_finite(value)
        level = value if self._level is None else self._level
        self._level = level + self._weight * (value - level)

    def ahead(self, steps: int) -> float:
        return self._level or 0.0


class Holt:
    """Level and trend. The first two values set both; then the recursion runs over all values, including those two."""

    def __init__(self, *, level_weight: float = 0.5, trend_weight: float = 0.2) -> None:
        _check_weights(level_weight=level_weight, trend_weight=trend_weight)
        self._level_weight, self._trend_weight = level_weight, trend_weight
        self._level = self._trend = 0.0
        self._seen = 0

    def observe(self, value: float) -> None:
        _check_finite(value)
        self._seen += 1
        if self._seen == 1:
            self._level = value
            return
        if self._seen == 2:
            self._trend = value - self._level
            self._correct(self._level)
        self._correct(value)

    def _correct(self, value: float) -> None:
        error = value - (self._level + self._trend)
        self._level += self._trend + self._level_weight * error
        self._trend += self._level_weight * self._trend_weight * error

    def ahead(self, steps: int) -> float:
        return self._level + steps * self._trend


class HoltWinters:
    """Level, trend and season. It acts as `Holt` during the first season, when there is nothing to compare with."""

    def __init__(
        self,
        *,
        season_steps: int = 288,  # a day of five-minute steps
        level_weight: float = 0.5,
        trend_weight: float = 0.1,
        season_weight: float = 0.3,
    ) -> None:
        _check_season(season_steps)
        _check_weights(level_weight=level_weight, trend_weight=trend_weight, season_weight=season_weight)
        self._steps = season_steps
        self._weights = level_weight, trend_weight, season_weight
        self._until_season = Holt(level_weight=level_weight, trend_weight=trend_weight)
        self._seen: list[float] = []  # the first season
        self._level = self._trend = 0.0
        self._season: deque[float] = deque()  # the next step's part first

    def observe(self, value: float) -> None:
        _check_finite(value)
        if self._season:
            self._correct(value)
            return
        self._until_season.observe(value)
        self._seen.append(value)
        if len(self._seen) == self._steps:
            self._level = sum(self._seen) / self._steps
            self._season.extend(each - self._level for each in self._seen)

    def _correct(self, value: float) -> None:
        of_level, of_trend, of_season = self._weights
        part = self._season.popleft()
        error = value - (self._level + self._trend + part)
        self._level += self._trend + of_level * error
        self._trend += of_level * of_trend * error
        self._season.append(part + of_season * error)

    def ahead(self, steps: int) -> float:
        if not self._season:
            return self._until_season.ahead(steps)
        return self._level + steps * self._trend + self._season[(steps - 1) % self._steps]


class Band:
    """A forecast and its usual error: what was forecast `steps` ahead is compared with what came.

    `upper` is the forecast plus `deviations` times the root-mean-square error, in which old errors fade over `memory`
    steps. With 1.64, one value in twenty lies above it if errors are normal.
    """

    def __init__(self, forecast: Forecast, *, steps: int, deviations: float = 1.64, memory: int = 60) -> None:
        if steps < 1 or memory < 1 or not deviations >= 0:
            raise SetupError(f"steps ({steps}) and memory ({memory}) must be at least 1, deviations ({deviations}) 0")
        self._forecast = forecast
        self._steps = steps
        self._deviations = deviations
        self._memory = memory
        self._said: deque[float] = deque()  # forecasts whose time has not come yet
        self._errors = 0
        self._mean_square = 0.0

    def observe(self, value: float) -> None:
        _check_finite(value)
        if len(self._said) == self._steps:
            self._errors += 1
            error = value - self._said.popleft()
            self._mean_square += (error * error - self._mean_square) / min(self._errors, self._memory)
        self._forecast.observe(value)
        self._said.append(self._forecast.ahead(self._steps))

    @property
    def error(self) -> float:
        """Root-mean-square error so far; 0 until the first forecast can be checked."""
        return math.sqrt(self._mean_square)

    def upper(self) -> float:
        """Return the highest value to expect in the next `steps` steps."""
        highest = max(self._forecast.ahead(step) for step in range(1, self._steps + 1))
        return highest + self._deviations * self.error


FORECASTS: dict[str, type[Forecast]] = {
    "naive": Naive,
    "seasonal-naive": SeasonalNaive,
    "ewma": Ewma,
    "holt": Holt,
    "holt-winters": HoltWinters,
}


def _check_season(season_steps: int) -> None:
    if season_steps < 2:
        raise SetupError(f"season_steps ({season_steps}) must be at least 2")


def _check_weights(**weights: float) -> None:
    for name, weight in weights.items():
        if not 0 < weight <= 1:
            raise SetupError(f"{name} ({weight:g}) must be above 0 and at most 1")


def _check_finite(value: float) -> None:
    """Raises: ValueError for nan or infinity, which every later forecast would inherit."""
    if not math.isfinite(value):
        raise ValueError(f"a forecast learns from finite numbers, not {value}")
