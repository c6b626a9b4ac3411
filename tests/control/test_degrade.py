"""The ladder of measures: up with the load, down slowly, and what each rung does to a request."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniserve.control.degrade import BurningBudget, Ladder, Rung, SetRung, load_of, treat
from miniserve.errors import Overloaded, SetupError
from miniserve.types import FleetView, Priority, ReplicaState, ReplicaView, Request, SamplingParams

REQUEST = Request("q", "large", (1,), SamplingParams(max_tokens=400))


def at(load: float) -> FleetView:
    """Return a fleet of one replica, meant to have 100 requests."""
    return FleetView((ReplicaView("a", outstanding=round(100 * load)),))


def rungs(ladder: Ladder, loads: list[float], every_s: float = 10.0) -> list[int]:
    seen = []
    for tick, load in enumerate(loads):
        ladder.tick(every_s * tick, at(load))
        seen.append(int(ladder.rung))
    return seen


def test_the_ladder_goes_up_as_fast_as_the_load() -> None:
    assert rungs(Ladder(capacity=100), [0.5, 1.0, 1.3, 3.5]) == [0, 1, 2, 5]


def test_it_comes_down_one_rung_at_a_time_after_the_load_has_stayed_low() -> None:
    assert rungs(Ladder(capacity=100, hold_s=20), [2.5, *[0.1] * 10]) == [4, 4, 4, 3, 3, 3, 2, 2, 2, 1, 1]


def test_a_load_between_the_borders_changes_nothing() -> None:
    """0.8 is below the 0.9 that brought the measure, but not by the gap of 0.2."""
    assert rungs(Ladder(capacity=100, hold_s=0), [0.95, 0.8, 0.75, 0.8, 0.6]) == [1, 1, 1, 1, 0]


def test_a_moment_of_high_load_starts_the_wait_anew() -> None:
    assert rungs(Ladder(capacity=100, hold_s=20), [1.0, 0.5, 0.5, 0.8, 0.5, 0.5, 0.5]) == [1, 1, 1, 1, 1, 1, 0]


def test_it_says_what_changed_and_why_and_only_then() -> None:
    ladder = Ladder(capacity=100)
    assert ladder.tick(0.0, at(1.25)) == [SetRung(Rung.SHORT_ANSWER, 1.25)]
    assert ladder.tick(1.0, at(1.25)) == []


def test_a_burning_budget_raises_it_without_any_load_and_no_further_than_batch() -> None:
    ladder, budget = Ladder(capacity=100, hold_s=20), BurningBudget(every_s=30)
    seen = []
    for now_s in range(0, 260, 10):
        ladder.tick(now_s, at(0.1), budget.least(now_s, is_burning=now_s < 150))
        seen.append(int(ladder.rung))
    assert seen == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 3, 3, 3, 2, 2, 2, 1, 1, 1]


def test_a_higher_load_stands_above_a_burning_budget() -> None:
    ladder = Ladder(capacity=100)
    ladder.tick(0.0, at(3.5), BurningBudget().least(0.0, is_burning=True))
    assert ladder.rung == Rung.SHED_STANDARD


@settings(deadline=None)
@given(st.lists(st.floats(0.85, 0.95), min_size=2, max_size=100))
def test_noise_around_a_border_makes_it_change_once_at_most(loads: list[float]) -> None:
    seen = rungs(Ladder(capacity=100), loads)
    assert sum(a != b for a, b in pairwise(seen)) <= 1


def test_load_counts_what_waits_in_ready_replicas_only() -> None:
    fleet = FleetView(
        (
            ReplicaView("a", running=8, queue_depth=8, outstanding=4),
            ReplicaView("b", outstanding=8),
            ReplicaView("c", outstanding=99, state=ReplicaState.DRAINING),
        )
    )
    assert load_of(fleet, 8) == 1.5
    assert load_of(FleetView(), 8) == float("inf")


def test_measures_add_up() -> None:
    treated = [treat(REQUEST, rung, small_model="small", max_tokens=100) for rung in list(Rung)[:4]]

    assert [t.request.model for t in treated] == ["large", "small", "small", "small"]
    assert [t.request.sampling.max_tokens for t in treated] == [400, 400, 100, 100]
    assert [t.cache_first for t in treated] == [False, False, False, True]


@pytest.mark.parametrize(
    ("rung", "served"),
    [
        (Rung.CACHED_ANSWER, {Priority.INTERACTIVE, Priority.STANDARD, Priority.BATCH}),
        (Rung.SHED_BATCH, {Priority.INTERACTIVE, Priority.STANDARD}),
        (Rung.SHED_STANDARD, {Priority.INTERACTIVE}),
    ],
)
def test_lower_classes_are_shed_first_and_told_when_to_come_back(rung: Rung, served: set[Priority]) -> None:
    for priority in Priority:
        request = Request("q", "large", (1,), priority=priority)
        if priority in served:
            assert treat(request, rung, small_model="small", max_tokens=9).request.sampling.max_tokens == 9
        else:
            with pytest.raises(Overloaded, match=priority.name.lower()) as caught:
                treat(request, rung, small_model="small", max_tokens=9)
            assert caught.value.retry_after_s == 5.0


def test_impossible_ladders_are_refused() -> None:
    with pytest.raises(SetupError, match=r"capacity \(0\)"):
        Ladder(capacity=0)
    with pytest.raises(SetupError, match="5 rising loads"):
        Ladder(capacity=1, enter=(1, 2, 2, 3, 4))
    with pytest.raises(SetupError, match=r"0 < gap < 0\.9"):
        Ladder(capacity=1, gap=1.0)
    with pytest.raises(SetupError, match=r"max_tokens \(0\)"):
        treat(REQUEST, Rung.NORMAL, small_model="small", max_tokens=0)
