"""The yardstick, by hand."""

from __future__ import annotations

import pytest

from miniserve.errors import SetupError
from miniserve.planning.clairvoyant import hours, minutes_of, plan, replicas_for

CAPACITY_PER_S = {1: 1.0, 2: 2.5, 4: 6.5}


@pytest.mark.parametrize(("rate", "replicas"), [(0, 1), (1.0, 1), (1.01, 2), (2.5, 2), (2.6, 3), (4.5, 3), (6.5, 4)])
def test_the_fewest_whose_capacity_is_enough(rate: float, replicas: int) -> None:
    assert replicas_for(rate, CAPACITY_PER_S) == replicas


def test_more_than_was_measured_is_refused() -> None:
    with pytest.raises(SetupError, match="7 requests/s exceed the capacity of 4 replicas"):
        replicas_for(7, CAPACITY_PER_S)


def test_each_minute_has_its_highest_rate() -> None:
    assert minutes_of(lambda time_s: time_s / 60, 180, looks=2) == [0.5, 1.5, 2.5]


def test_replicas_are_asked_for_a_cold_start_ahead_and_kept_where_they_come_back() -> None:
    rates = [1, 1, 1, 2, 1, 1, 2, 1, 1, 1]
    assert plan(rates, CAPACITY_PER_S, 0) == [1, 1, 1, 2, 1, 1, 2, 1, 1, 1]
    assert plan(rates, CAPACITY_PER_S, 120) == [1, 2, 2, 2, 2, 2, 2, 1, 1, 1]
    assert plan(rates, CAPACITY_PER_S, 61) == plan(rates, CAPACITY_PER_S, 120)
    assert hours(plan(rates, CAPACITY_PER_S, 120)) == pytest.approx(16 / 60)
