"""Confidence intervals hold what they promise, as often as they promise."""

from __future__ import annotations

import numpy as np
import pytest

from miniserve.observe.intervals import mean_interval, paired_interval, percentile_interval, percentile_ranks


def test_the_ranks_around_the_p99_of_a_thousand() -> None:
    assert percentile_ranks(1000, 99) == (983, 996)


@pytest.mark.parametrize(("n", "p"), [(100, 99), (300, 99), (0, 50), (1, 50), (5, 50), (3, 1)])
def test_too_few_values_bracket_nothing(n: int, p: float) -> None:
    assert percentile_ranks(n, p) is None
    assert percentile_interval(range(n), p) is None


def test_the_median_of_six_lies_between_the_smallest_and_the_largest() -> None:
    """All six on one side: 2 * 2^-6 = 3 %."""
    assert percentile_ranks(6, 50) == (1, 6)


@pytest.mark.parametrize(("n", "p"), [(1000, 99), (200, 50), (500, 95)])
def test_a_percentiles_interval_holds_it_as_often_as_it_says(n: int, p: float) -> None:
    rng = np.random.default_rng(1)
    true = float(np.exp(1.5 * np.sqrt(2) * _inverse_erf(2 * p / 100 - 1)))
    hits = 0
    for _ in range(2000):
        interval = percentile_interval(rng.lognormal(0, 1.5, n), p)
        assert interval is not None
        hits += true in interval

    assert 0.945 <= hits / 2000 <= 0.99  # at least the 95 % promised; ranks are whole numbers, so somewhat more


def _inverse_erf(x: float) -> float:
    from scipy.special import erfinv

    return float(erfinv(x))


def test_an_interval_tells_what_it_rests_on() -> None:
    interval = percentile_interval([float(v) for v in range(1000, 0, -1)], 99)

    assert interval is not None
    assert (interval.estimate, interval.low, interval.high, interval.n) == (990, 983, 996, 1000)


def test_students_interval_of_a_mean() -> None:
    """Mean 3, s = sqrt(2.5), t(4, 97.5 %) = 2.776445."""
    interval = mean_interval([1, 2, 3, 4, 5])

    assert interval.estimate == 3
    assert interval.half_width == pytest.approx(2.776445 * (2.5 / 5) ** 0.5, rel=1e-6)


def test_what_pairs_share_cancels_out() -> None:
    rng = np.random.default_rng(1)
    luck = rng.normal(0, 100, 10)
    ours, theirs = luck + rng.normal(1, 0.1, 10), luck + rng.normal(0, 0.1, 10)

    assert 0.0 not in paired_interval(ours, theirs)
    assert mean_interval(ours).half_width > 40
    assert paired_interval(ours, theirs).estimate == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: mean_interval([1.0]), "at least 2 independent values .*, not 1"),
        (lambda: mean_interval([1.0, 2.0], confidence=1), r"confidence \(1\)"),
        (lambda: paired_interval([1.0, 2.0], [1.0]), "not 2 and 1"),
        (lambda: percentile_ranks(10, 100), "100th percentile of 10"),
        (lambda: percentile_ranks(10, 50, 0), r"confidence \(0\)"),
    ],
)
def test_what_has_no_interval(call: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call()  # type: ignore[operator]
