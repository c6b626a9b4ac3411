"""Rates that change: arrivals follow the curve exactly, curves can be put together, and bad ones are refused."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from miniserve.errors import SetupError
from miniserve.scenario import load
from miniserve.workload import Arrivals, Bursts, Noisy, Piecewise, Poisson, Spike, Spikes, Varying, Waves, diurnal, ramp
from miniserve.workload.rates import RatePiece, realised, rescaled

DAY_S = 86_400.0
CURVES: dict[str, Varying] = {
    "poisson": Poisson(2.0),
    "bursts": Bursts(2.0, 8.0),
    "piecewise": Piecewise(((0, 1), (100, 4), (100, 0), (300, 2)), repeat=True),
    "ramp": ramp(0.5, 5.0, ramp_s=600, begins_s=60),
    "waves": Waves(2.0, cv=0.2),
    "noisy": Noisy(Poisson(2.0), cv=0.5, every_s=10),
    "spikes": Spikes(diurnal(2.0, 0.2, 0.3, day_s=600), (Spike(50, 20, 3), Spike(100, 10, 0))),
    "diurnal": diurnal(2.0, 0.2, day_s=600),
}


def until(arrivals: Arrivals, rng: Random, end_s: float) -> list[float]:
    return list(itertools.takewhile(lambda t: t < end_s, arrivals.times(rng)))


def area(curve: Piecewise, to_s: float) -> float:
    """Integrate by the trapezoids of a fine grid, which knows nothing of how arrivals are drawn."""
    grid = [to_s * i / 2000 for i in range(2001)]
    return sum((curve.rate_at(a) + curve.rate_at(b)) / 2 * (b - a) for a, b in itertools.pairwise(grid))


@pytest.mark.parametrize("name", CURVES)
def test_times_never_go_back(name: str) -> None:
    times = list(itertools.islice(CURVES[name].times(Random(1)), 2000))
    assert times == sorted(times)
    assert times[0] >= 0


@pytest.mark.parametrize("name", [name for name in CURVES if name not in ("poisson", "bursts")])
def test_seen_through_its_own_curve_every_series_is_a_poisson_process(name: str) -> None:
    """The area between neighbours is exponential of mean 1: the exact statement about a rate that changes."""
    end_s = 1200.0
    curve = realised(CURVES[name], Random(3), end_s)
    times = until(CURVES[name], Random(3), end_s)
    areas = [area_between(curve, a, b) for a, b in itertools.pairwise([0.0, *times])]
    assert len(areas) > 1000
    assert stats.kstest(areas, "expon").pvalue > 1e-4


def area_between(curve: Piecewise, from_s: float, to_s: float) -> float:
    total = 0.0
    for (a, first), (b, last) in itertools.pairwise(curve.points):
        low, high = max(a, from_s), min(b, to_s)
        if high > low:
            slope = (last - first) / (b - a)
            total += (high - low) * (first + slope * ((low + high) / 2 - a))
    return total


def test_a_constant_curve_is_the_poisson_process() -> None:
    """Path by path: the same random numbers give the same times as the kind that was there before."""
    flat: list[RatePiece] = [(7.0, 2.0, 2.0)] * 500
    ours = list(itertools.islice(rescaled(flat, Random(4)), 1000))
    assert ours == pytest.approx(list(itertools.islice(Poisson(2.0).times(Random(4)), 1000)))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 50), st.floats(0, 20)), min_size=2, max_size=6), st.integers(0, 1000))
def test_counts_have_the_mean_that_the_area_says(steps: list[tuple[float, float]], seed: int) -> None:
    """Within six standard deviations of a Poisson count."""
    ends = itertools.accumulate((seconds for seconds, _ in steps), initial=0.0)
    points = tuple(zip(ends, [1.0, *(rate for _, rate in steps[:-1]), 1.0], strict=True))
    curve = Piecewise(points)
    end_s = points[-1][0]
    expected = curve.rate_per_s * end_s
    assert expected == pytest.approx(area(curve, end_s), rel=0.01, abs=0.01)
    assert abs(len(until(curve, Random(seed), end_s)) - expected) < 6 * math.sqrt(expected) + 6


def test_exchanging_the_curve_leaves_the_luck_of_the_nth_arrival() -> None:
    slow, fast = Piecewise(((0, 1),)), Piecewise(((0, 4),))
    one, other = (list(itertools.islice(curve.times(Random(5)), 500)) for curve in (slow, fast))
    assert one == pytest.approx([4 * t for t in other])


def test_a_curve_says_its_rate_at_any_time() -> None:
    curve = Piecewise(((0, 1), (10, 3), (10, 6), (20, 6)))
    assert [curve.rate_at(t) for t in (0, 5, 9.999, 10, 15, 99)] == [1, 2, pytest.approx(3, abs=1e-3), 6, 6, 6]
    again = Piecewise(curve.points, repeat=True)
    assert again.rate_at(25) == 2
    assert again.rate_per_s == pytest.approx((2 * 10 + 6 * 10) / 20)


def test_a_ramp_holds_its_last_rate() -> None:
    curve = ramp(1.0, 3.0, ramp_s=100, begins_s=50)
    assert [curve.rate_at(t) for t in (0, 50, 100, 150, 1e6)] == [1, 1, 2, 3, 3]
    times = until(curve, Random(6), 5000)
    assert sum(t > 1000 for t in times) / 4000 == pytest.approx(3.0, rel=0.05)


def test_a_spike_multiplies_for_its_time_only() -> None:
    curve = Spikes(Poisson(10.0), (Spike(100, 50, factor=3), Spike(150, 50, factor=0)))
    assert [curve.rate_at(t) for t in (99, 100, 149, 150, 199, 200)] == [10, 30, 30, 0, 0, 10]
    counts = Counter(int(t // 50) for t in until(curve, Random(7), 300))
    assert counts[2] == pytest.approx(1500, rel=0.1)
    assert counts[3] == 0
    assert counts[5] == pytest.approx(500, rel=0.15)


@pytest.mark.parametrize("night_to_peak", [0.03, 0.2, 1.0])
def test_a_day_has_its_mean_and_its_ratio_of_night_to_peak(night_to_peak: float) -> None:
    day = diurnal(2.0, night_to_peak)
    rates = [day.rate_at(t) for t in range(0, 86_400, 60)]
    assert statistics.fmean(rates) == pytest.approx(2.0, rel=1e-3)
    assert min(rates) / max(rates) == pytest.approx(night_to_peak, rel=0.01)
    if night_to_peak < 1:
        assert rates.index(max(rates)) * 60 == pytest.approx(0.6 * DAY_S, abs=600)
    assert day.rate_at(3 * DAY_S + 100) == pytest.approx(day.rate_at(100))


def test_the_default_day_peaks_at_three_times_its_mean() -> None:
    assert max(diurnal(1.0).rate_at(t) for t in range(0, 86_400, 60)) == pytest.approx(3.0, rel=0.02)


def test_noise_keeps_the_mean_and_has_the_named_spread() -> None:
    curve = realised(Noisy(Poisson(4.0), cv=0.5, every_s=10), Random(8), 100_000)
    rates = [rate for _, rate in curve.points[::2]]
    assert statistics.fmean(rates) == pytest.approx(4.0, rel=0.03)
    assert statistics.stdev(rates) / 4.0 == pytest.approx(0.5, rel=0.05)


def test_waves_have_exactly_their_mean_and_spread_in_every_period() -> None:
    for seed in range(5):
        curve = realised(Waves(3.0, cv=0.2, period_s=600), Random(seed), 600)
        rates = [curve.rate_at(t) for t in range(600)]
        assert curve.rate_per_s == pytest.approx(3.0)
        assert statistics.pstdev(rates) / 3.0 == pytest.approx(0.2, rel=0.01)
        assert min(rates) >= 0


def test_what_is_realised_differs_by_seed_and_what_is_expected_does_not() -> None:
    day = diurnal(1.0, noise_cv=0.3)
    one, again, other = (realised(day, Random(seed), 3600).points for seed in (1, 1, 2))
    assert one == again
    assert one != other


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "time back": (lambda: Piecewise(((0, 1), (10, 2), (5, 2))), "points must go forward in time: 5 comes after 10"),
    "late start": (lambda: Piecewise(((5, 1), (10, 2))), "points must begin at second 0"),
    "empty": (lambda: Piecewise(()), "points must begin at second 0"),
    "negative": (lambda: Piecewise(((0, 1), (10, -2))), r"rates of at least 0, not \(10, -2\)"),
    "nan": (lambda: Piecewise(((0, math.nan),)), "rates of at least 0"),
    "dead end": (lambda: Piecewise(((0, 1), (10, 0))), "must not end at rate 0"),
    "nobody": (lambda: Piecewise(((0, 0), (10, 0), (10, 5))), "the mean rate is 0"),
    "nothing to repeat": (lambda: Piecewise(((0, 1),), repeat=True), "need some time"),
    "ramp": (lambda: ramp(1, -1, 10), r"to_per_s \(-1\) above 0"),
    "ramp at once": (lambda: ramp(1, 2, 0), r"ramp_s \(0\) must be above 0"),
    "spike": (lambda: Spike(-1, 10), r"at_s \(-1\) must be at least 0"),
    "spike of no time": (lambda: Spike(1, 0), r"duration_s \(0\) must be above 0"),
    "spike of fewer than none": (lambda: Spike(1, 1, -2), r"factor \(-2\)"),
    "waves of no time": (lambda: Waves(1.0, 0.1, period_s=0), r"period_s \(0\) must be above 0"),
    "spikes overlap": (lambda: Spikes(Poisson(1), (Spike(10, 20), Spike(20, 5))), "the spike at 10 ends at 30"),
    "noise": (lambda: Noisy(Poisson(1), -0.1, 10), r"cv \(-0.1\)"),
    "waves": (lambda: Waves(1.0, cv=0.5), r"cv \(0.5\) must be at least 0 and at most 0.2"),
    "night": (lambda: diurnal(1.0, 0.0), r"night_to_peak \(0\) must be above 0"),
    "rate": (lambda: diurnal(-1.0), r"rate_per_s \(-1\)"),
    "noise of a day": (lambda: diurnal(1.0, noise_cv=-1), r"noise_cv \(-1\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_curves_that_make_no_sense_are_refused(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()


# --- in a file -----------------------------------------------------------------------------------------------------


@pytest.fixture
def scenario_file(tmp_path: Path) -> Callable[[str], Path]:
    def write(arrivals: str) -> Path:
        path = tmp_path / "demand.toml"
        path.write_text(f"[run]\nduration_s = 600\n[workload]\narrivals = {arrivals}\n")
        return path

    return write


def test_curves_are_put_together_in_a_file(scenario_file: Callable[[str], Path]) -> None:
    day = '{ kind = "diurnal", rate_per_s = 3, night_to_peak = 0.2, noise_cv = 0.1 }'
    path = scenario_file(
        f'{{ kind = "spikes", base = {day}, spikes = [{{ at_s = 60, duration_s = 30, factor = 2 }}] }}'
    )
    arrivals = load(path).workload.arrivals
    assert arrivals.rate_per_s == pytest.approx(3)
    assert arrivals.rate_at(61) == pytest.approx(2 * diurnal(3, 0.2).rate_at(61))


@pytest.mark.parametrize(
    ("arrivals", "problem"),
    [
        (
            '{ kind = "diurnal", rate_per_s = 3, nigth_to_peak = 0.2 }',
            "nigth_to_peak: unknown key; did you mean",
        ),
        ('{ kind = "diurnal" }', "`rate_per_s` is missing"),
        ('{ kind = "ramp", from_per_s = 1, to_per_s = 2, ramp_min = 5 }', "the unit is wrong: write `ramp_s`"),
        ('{ kind = "waves", rate_per_s = -2, cv = 0.1 }', "arrivals.rate_per_s: rate_per_s"),
        (
            '{ kind = "piecewise", points = [[0, 1], [60, 2], [30, 3]] }',
            "go forward in time: 30 comes after",
        ),
        ('{ kind = "piecewise", points = [[0, "1/s"]] }', r"points\[0\]\[1\]: \"1/s\" is not a number"),
        ('{ kind = "spikes", base = "poisson", spikes = [] }', "arrivals.base: `rate_per_s` is missing"),
        ('{ kind = "noisy", base = { kind = "noise" }, cv = 1, every_s = 1 }', 'base.kind: there is no "noise"; did'),
    ],
)
def test_a_file_with_a_bad_curve_is_refused_by_line_and_key(
    scenario_file: Callable[[str], Path], arrivals: str, problem: str
) -> None:
    with pytest.raises(SetupError, match=problem) as raised:
        load(scenario_file(arrivals))
    assert "demand.toml:4: workload.arrivals" in str(raised.value)
