"""Forecasts against published numbers and a series worked out by hand."""

from __future__ import annotations

import math
import random

import pytest

from miniserve.control.forecast import FORECASTS, Band, Ewma, Forecast, Holt, HoltWinters, Naive, SeasonalNaive
from miniserve.errors import SetupError

# Hyndman, Athanasopoulos, Forecasting: Principles and Practice: oil in Saudi Arabia 1996-2007, air passengers 1990-2004
OIL = (
    446.6565229, 454.4733065, 455.6629740, 423.6322388, 456.2713279, 440.5880501,
    425.3325201, 485.1494479, 506.0481621, 526.7919833, 514.2688890, 494.2110193,
)  # fmt: skip
AIR = (
    17.5534, 21.86, 23.8866, 26.9293, 26.8885, 28.8314, 30.0751, 30.9535, 30.1857, 31.5797, 32.5776, 33.4774, 39.0216,
    41.3864, 41.5966,
)  # fmt: skip


def after(forecast: Forecast, values: tuple[float, ...]) -> Forecast:
    for value in values:
        forecast.observe(value)
    return forecast


@pytest.mark.parametrize(
    ("weight", "start", "expected"),
    [(0.2, None, 484.802468), (0.6, None, 501.837461), (0.891998, 447.47844, 496.493543)],
)
def test_smoothing_the_oil_series_gives_the_published_forecast(
    weight: float, start: float | None, expected: float
) -> None:
    ewma = after(Ewma(level_weight=weight, start=start), OIL)
    assert ewma.ahead(1) == pytest.approx(expected, abs=2e-5)  # the last case's weight is printed to six digits
    assert ewma.ahead(7) == ewma.ahead(1)


def test_holt_on_air_passengers_gives_the_published_line() -> None:
    holt = after(Holt(level_weight=0.8, trend_weight=0.2), AIR)
    line = [holt.ahead(steps) for steps in range(1, 6)]
    assert line == pytest.approx([43.757, 45.5935, 47.4301, 49.2666, 51.1032], abs=1e-4)


def test_holt_winters_by_hand() -> None:
    """Season of 4. First season: level 25, trend 0, parts -15 -5 5 15. All weights 1/2; each line is one value more.

    value  forecast                 error   level     trend     the part becomes
     14    25 + 0 - 15      = 10       4     27        1         -13
     24    27 + 1 - 5       = 23       1     28.5      1.25       -4.5
     30    28.5 + 1.25 + 5  = 34.75   -4.75  27.375    0.0625      2.625
     50    27.375+.0625+15  = 42.4375  7.5625 31.21875 1.953125   18.78125
    """
    forecast = HoltWinters(season_steps=4, level_weight=0.5, trend_weight=0.5, season_weight=0.5)
    after(forecast, (10, 20, 30, 40))
    assert [forecast.ahead(steps) for steps in (1, 2, 3, 4, 5)] == [10, 20, 30, 40, 10]
    for value, expected in ((14, 10), (24, 23), (30, 34.75), (50, 42.4375)):
        assert forecast.ahead(1) == expected
        forecast.observe(value)
    level, trend = 31.21875, 1.953125
    parts = (-13, -4.5, 2.625, 18.78125)
    assert [forecast.ahead(n) for n in (1, 2, 3, 4)] == [level + n * trend + part for n, part in enumerate(parts, 1)]


def test_holt_winters_recovers_an_exact_trend_and_season() -> None:
    season = (5.0, -3.0, 0.0, 4.0, -6.0)

    def value(step: int) -> float:
        return 100 + 0.7 * step + season[step % 5]

    forecast = HoltWinters(season_steps=5)
    after(forecast, tuple(value(step) for step in range(1000)))
    for steps in range(1, 12):
        assert forecast.ahead(steps) == pytest.approx(value(999 + steps), abs=1e-6)


def test_the_value_of_a_season_ago_is_what_comes_next() -> None:
    """The closed form: the forecast for T + h is y at T + h - m(k + 1), k whole seasons being in h - 1."""
    series = tuple(math.sqrt(step) for step in range(50))
    season, last = 7, len(series) - 1
    forecast = after(SeasonalNaive(season_steps=season), series)
    for steps in range(1, 30):
        assert forecast.ahead(steps) == series[last + steps - season * ((steps - 1) // season + 1)]


def test_a_demand_that_repeats_is_forecast_without_error_and_one_that_drifts_is_off_by_a_season() -> None:
    forecast = SeasonalNaive(season_steps=24)
    for step in range(24 * 5):
        value = 10 + step % 24 + 2.0 * (step // 24)
        if step >= 24:
            assert value - forecast.ahead(1) == 2.0, "what a day adds"
        forecast.observe(value)


def test_the_season_ago_is_the_last_value_until_there_is_a_season() -> None:
    forecast, naive = SeasonalNaive(season_steps=50), Naive()
    for value in AIR:
        forecast.observe(value)
        naive.observe(value)
        assert [forecast.ahead(n) for n in (1, 5, 60)] == [naive.ahead(n) for n in (1, 5, 60)]


def test_holt_winters_is_holt_until_it_has_seen_a_season() -> None:
    holt, winters = Holt(), HoltWinters(season_steps=50, level_weight=0.5, trend_weight=0.2)
    after(holt, AIR)
    after(winters, AIR)
    assert [winters.ahead(n) for n in (1, 5)] == [holt.ahead(n) for n in (1, 5)]


@pytest.mark.parametrize("name", FORECASTS)
def test_a_constant_is_forecast_as_it_is_and_nothing_as_zero(name: str) -> None:
    assert FORECASTS[name]().ahead(3) == 0
    assert after(FORECASTS[name](), (7.0,) * 400).ahead(3) == pytest.approx(7.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", FORECASTS)
def test_a_value_that_is_no_number_is_refused_and_forgotten(name: str, value: float) -> None:
    forecast = FORECASTS[name]()
    for learner in (forecast, Band(forecast, steps=1)):
        learner.observe(1.0)
        with pytest.raises(ValueError, match="finite numbers"):
            learner.observe(value)
        learner.observe(1.0)
    assert math.isfinite(forecast.ahead(1))


def test_the_last_value_is_hard_to_beat_on_a_random_walk() -> None:
    """Where the future owes nothing to a season, looking for one costs: why every comparison has `Naive` in it."""
    luck = random.Random(3)
    errors = {"naive": 0.0, "holt-winters": 0.0}
    forecasts: dict[str, Forecast] = {"naive": Naive(), "holt-winters": HoltWinters(season_steps=24)}
    value = 100.0
    for _ in range(2000):
        value += luck.gauss(0, 1)
        for name, forecast in forecasts.items():
            errors[name] += (value - forecast.ahead(1)) ** 2
            forecast.observe(value)
    assert errors["naive"] < errors["holt-winters"]


def test_the_band_is_as_wide_as_the_errors_that_came() -> None:
    luck = random.Random(1)
    band = Band(Naive(), steps=2, deviations=2.0, memory=100_000)
    values = [luck.gauss(50, 3) for _ in range(20_000)]
    for value in values:
        band.observe(value)
    assert band.error == pytest.approx(3 * math.sqrt(2), rel=0.03)  # of a difference of two independent values
    assert band.upper() == pytest.approx(values[-1] + 2 * band.error)


def test_the_band_covers_the_highest_step_up_to_the_horizon() -> None:
    forecast = HoltWinters(season_steps=4)
    band = Band(forecast, steps=3, deviations=0.0)
    for value in (10, 40, 20, 10):
        band.observe(value)
    assert band.upper() == 40  # the second step; the third is lower again


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ewma(level_weight=0),
        lambda: Holt(trend_weight=1.5),
        lambda: HoltWinters(season_steps=1),
        lambda: SeasonalNaive(season_steps=1),
        lambda: HoltWinters(season_weight=float("nan")),
        lambda: Band(Naive(), steps=0),
        lambda: Band(Naive(), steps=1, deviations=-1),
    ],
)
def test_senseless_numbers_are_refused(make: object) -> None:
    with pytest.raises(SetupError):
        make()  # type: ignore[operator]
