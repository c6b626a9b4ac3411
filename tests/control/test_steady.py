"""Bounds, patience, the consolidation check; who is taken away; and what an autoscaler may not do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.control.autoscaler import Reactive, ScalingAction
from miniserve.control.checked import Checked
from miniserve.control.scale_in import Changes, changes
from miniserve.control.steady import Steady
from miniserve.errors import PolicyError, SetupError
from miniserve.types import Drain, FleetView, ReplicaState, ReplicaView, ScaleTo


@dataclass
class Script:
    """Wants what it is told to want."""

    wishes: list[int]
    said: list[FleetView] = field(default_factory=list)

    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        self.said.append(view)
        return [ScaleTo(self.wishes.pop(0))] if self.wishes else []


def of(number: int, each: int = 0, requests: int = 0) -> FleetView:
    return FleetView(tuple(ReplicaView(f"r-{i}", outstanding=each) for i in range(number)), requests=requests)


def sizes(wishes: list[int], start: int = 4, every_s: float = 60.0, each: int = 0, **arguments: Any) -> list[int]:
    """Return how large a fleet is after each wish, if it does at once what it is told."""
    steady, now, result = Steady(Script(list(wishes)), **arguments), start, []
    for i in range(len(wishes)):
        (action,) = steady.tick(i * every_s, of(now, each))
        assert isinstance(action, ScaleTo)
        now = action.replicas
        result.append(now)
    return result


def test_growth_is_at_once_and_shrinking_waits_until_the_high_wish_is_old() -> None:
    assert sizes([8, 3, 3, 3, 3, 3, 3, 3], down_after_s=300) == [8, 8, 8, 8, 8, 8, 3, 3]


def test_a_dip_takes_nothing_down() -> None:
    assert sizes([4, 1, 1, 4, 1, 1, 4], down_after_s=300) == [4] * 7


def test_the_fleet_shrinks_to_the_most_that_was_wanted_lately() -> None:
    assert sizes([6, 5, 4, 3, 2, 1, 1, 1], start=6, down_after_s=120) == [6, 6, 6, 5, 4, 3, 2, 1]


def test_slack_keeps_some_more_than_was_wanted_but_asks_for_none() -> None:
    assert sizes([4, 4, 3, 3, 2, 2, 5], slack=1, down_after_s=0) == [4, 4, 4, 4, 3, 3, 5]


def test_growth_can_be_made_patient_too() -> None:
    assert sizes([4, 9, 4, 9, 8, 7], up_after_s=120, down_after_s=0) == [4, 4, 4, 4, 4, 7]


def test_the_first_wish_does_not_take_down_what_the_run_begins_with() -> None:
    assert sizes([1, 1], start=5, down_after_s=60) == [5, 5]
    assert sizes([1, 1, 1], start=5, down_after_s=60)[-1] == 1


def test_bounds_hold_to_the_replica() -> None:
    assert sizes([0, 99], down_after_s=0, min_replicas=2, max_replicas=7) == [2, 7]
    assert sizes([2, 7], down_after_s=0, min_replicas=2, max_replicas=7) == [2, 7]


def test_a_fleet_that_lost_replicas_is_filled_up_even_by_one_who_says_nothing() -> None:
    steady = Steady(Script([]), min_replicas=3)
    assert steady.tick(0.0, of(1)) == [ScaleTo(3)]


def test_a_warm_pool_comes_on_top_but_stays_within_the_bounds() -> None:
    assert sizes([4, 7, 9], warm_pool=2, max_replicas=10) == [6, 9, 10]


def test_nothing_is_removed_that_would_make_the_rest_too_full() -> None:
    """Of 4 with 6 requests each: 3 would have 8, just within 0.8 of 10, and 2 would have 12."""
    assert sizes([1], each=6, down_after_s=0, most_outstanding=10) == [3]
    assert sizes([1], each=7, down_after_s=0, most_outstanding=10) == [4]
    assert sizes([1], each=0, down_after_s=0, most_outstanding=10) == [1]


def test_a_fleet_of_none_wakes_up_when_somebody_comes() -> None:
    steady = Steady(Reactive(target=10), min_replicas=0, down_after_s=0)
    assert steady.tick(0.0, of(0, requests=0)) == [ScaleTo(0)]
    assert steady.tick(15.0, of(0, requests=1)) == [ScaleTo(1)]


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.integers(0, 5),
    st.integers(0, 5),
    st.sampled_from([0.0, 90.0, 300.0]),
)
def test_whatever_is_wanted_the_bounds_hold_and_no_wish_is_exceeded(
    wishes: list[int], least: int, more: int, down_after_s: float
) -> None:
    most, start = least + more, least
    result = sizes(wishes, start=start, min_replicas=least, max_replicas=most, down_after_s=down_after_s)
    assert all(least <= each <= most for each in result)
    assert all(each >= min(wish, most) for each, wish in zip(result, wishes, strict=True))
    assert max(result) <= max(start, *wishes, least)


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_replicas": 3, "max_replicas": 2},
        {"min_replicas": -1},
        {"warm_pool": -1},
        {"slack": -1},
        {"down_after_s": -1.0},
    ],
)
def test_impossible_bounds_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(SetupError):
        Steady(Script([]), **arguments)


# --- who goes ------------------------------------------------------------------------------------------------------


def test_starting_ones_go_first_then_those_with_the_least_to_do() -> None:
    view = FleetView(
        (
            ReplicaView("old", outstanding=2),
            ReplicaView("busy", outstanding=9),
            ReplicaView("young", outstanding=2),
            ReplicaView("coming", ReplicaState.STARTING),
            ReplicaView("leaving", ReplicaState.DRAINING),
            ReplicaView("dead", ReplicaState.DOWN),
        )
    )
    assert changes(view, 4) == Changes()
    assert changes(view, 6) == Changes(start=2)
    assert [changes(view, n).drain for n in (3, 2, 1, 0)] == [
        ("coming",),
        ("coming", "young"),
        ("coming", "young", "old"),
        ("coming", "young", "old", "busy"),
    ]


# --- anybody's -----------------------------------------------------------------------------------------------------


class Raises:
    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        raise ZeroDivisionError("no replicas")


class Mutates:
    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        view.replicas[0].outstanding = 0  # type: ignore[misc]
        return []


@dataclass
class Answers:
    answer: Any

    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        return self.answer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("autoscaler", "message"),
    [
        (Raises(), "policy Raises failed on its tick at 30.0 s: it raised ZeroDivisionError: no replicas"),
        (Mutates(), "policy Mutates failed on its tick at 30.0 s: it tried to change what it was shown"),
        (Answers(None), "it returned None, not a list of actions"),
        (Answers(7), "it returned 7, not a list"),
        (Answers([7]), "it returned 7: an autoscaler may answer ScaleTo and Drain"),
        (Answers([ScaleTo(2.5)]), "`replicas` must be a whole number of 0 or more"),  # type: ignore[arg-type]
        (Answers([ScaleTo(-1)]), "`replicas` must be a whole number"),
        (Answers([ScaleTo(True)]), "`replicas` must be a whole number"),
        (Answers([Drain("r-9")]), "there is no such replica; there are r-0, r-1"),
    ],
)
def test_a_broken_contract_names_the_autoscaler_and_the_tick(autoscaler: Any, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Checked(autoscaler).tick(30.0, of(2))
    assert message in str(caught.value)
    assert type(autoscaler).__name__ in str(caught.value)


def test_a_kept_contract_is_passed_on_with_other_actions() -> None:
    actions = [Drain("r-1"), ScaleTo(3)]
    assert Checked(Answers(actions)).tick(0.0, of(2)) == actions
    assert Steady(Checked(Answers(tuple(actions)))).tick(0.0, of(2)) == [ScaleTo(3), Drain("r-1")]
