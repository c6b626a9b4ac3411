"""Autoscalers on views made by hand: the rules of those they are modelled on, to the replica."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from miniserve.control.autoscaler import (
    Autoscaler,
    Combined,
    QueueBased,
    Reactive,
    ScalingAction,
    Scheduled,
    TargetTracking,
    check_horizon,
)
from miniserve.control.forecast import Forecast, Naive
from miniserve.control.predictive import Predictive
from miniserve.errors import SetupError
from miniserve.types import FleetView, ReplicaState, ReplicaView, ScaleTo


def fleet(
    *outstanding: int, starting: int = 0, draining: int = 0, down: int = 0, waiting: int = 0, requests: int = 0
) -> FleetView:
    """Return a view of ready replicas with so many requests each, and some in other states."""
    ready = [
        ReplicaView(f"r-{i}", outstanding=n, queue_depth=waiting, running=n - waiting)
        for i, n in enumerate(outstanding)
    ]
    others = [(ReplicaState.STARTING, starting), (ReplicaState.DRAINING, draining), (ReplicaState.DOWN, down)]
    rest = [ReplicaView(f"{state}-{i}", state) for state, number in others for i in range(number)]
    return FleetView((*ready, *rest), requests=requests)


def wanted(autoscaler: Autoscaler, view: FleetView, now_s: float = 0.0) -> int:
    return size(autoscaler.tick(now_s, view))


def size(actions: Sequence[ScalingAction]) -> int:
    (action,) = actions
    assert isinstance(action, ScaleTo)
    return action.replicas


# --- reactive: the cases of Kubernetes' documentation --------------------------------------------------------------


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ((200, 200), 4),  # 200m at a target of 100m doubles
        ((50, 50), 1),  # 50m halves
        ((105, 105), 2),  # within a tenth: nothing
        ((110, 110), 2),
        ((111, 111), 3),
        ((90, 90), 2),
        ((89, 89), 2),  # rounded up
        ((30, 30, 30, 30), 2),
        ((100, 200, 300), 6),  # the mean counts
        ((0, 0), 0),
    ],
)
def test_reactive_is_the_rule_of_hpa(loads: tuple[int, ...], expected: int) -> None:
    assert wanted(Reactive(target=100), fleet(*loads)) == expected


def test_reactive_counts_a_starting_replica_as_one_without_load_when_it_adds() -> None:
    assert wanted(Reactive(target=100), fleet(200, 200, starting=2)) == 4  # 400 / 4: enough are on their way
    assert wanted(Reactive(target=100), fleet(200, 200, starting=3)) == 5  # they would be idle, but are not undone
    assert wanted(Reactive(target=100), fleet(200, 200, starting=1)) == 4  # 400 / 3 = 1.33 of the target


def test_reactive_leaves_starting_ones_out_when_it_takes_away() -> None:
    assert wanted(Reactive(target=100), fleet(50, 50, 50, 50, starting=1)) == 2


def test_reactive_without_a_ready_replica_knows_nothing_and_waits() -> None:
    assert wanted(Reactive(target=100), fleet(starting=2)) == 2
    assert wanted(Reactive(target=100), fleet()) == 0


def test_draining_and_dead_replicas_do_not_count() -> None:
    assert wanted(Reactive(target=100), fleet(100, 100, draining=3, down=2)) == 2


def test_reactive_can_look_at_another_metric() -> None:
    view = FleetView((ReplicaView("a", kv_used_fraction=0.9), ReplicaView("b", kv_used_fraction=0.9)))
    assert wanted(Reactive(target=0.6, metric="kv_used_fraction"), view) == 3
    assert wanted(Reactive(target=2, metric="waiting"), fleet(9, 9, waiting=4)) == 4


# --- the others ----------------------------------------------------------------------------------------------------


def test_target_tracking_divides_all_requests_by_the_target() -> None:
    assert wanted(TargetTracking(target=10), fleet(12, 13, starting=4)) == 3
    assert wanted(TargetTracking(target=10), fleet(10, 10)) == 2
    assert wanted(TargetTracking(target=10), fleet(0)) == 0


def test_target_tracking_averages_over_its_look_back() -> None:
    tracking = TargetTracking(target=10, look_back_s=30)
    assert wanted(tracking, fleet(0), 0.0) == 0
    assert wanted(tracking, fleet(60), 15.0) == 3
    assert wanted(tracking, fleet(60), 30.0) == 4
    assert wanted(tracking, fleet(60), 31.0) == 6  # the zero has fallen out


def test_queue_based_adds_by_the_queue_and_removes_what_the_rest_can_carry() -> None:
    queue = QueueBased(waiting_per_replica=4, most_running=10)
    assert wanted(queue, fleet(20, 20, waiting=6)) == 5  # 12 wait: three more
    assert wanted(queue, fleet(20, 20, waiting=6, starting=3)) == 5  # which are on their way
    assert wanted(queue, fleet(20, 20, waiting=6, starting=9)) == 11
    assert wanted(queue, fleet(6, 6, 6)) == 2  # 18 / 2 = 9
    assert wanted(queue, fleet(7, 7, 7)) == 3  # 21 / 2 is too many
    assert wanted(queue, fleet(15, 15)) == 2  # nobody waits: it never grows for that
    assert wanted(queue, fleet(2, 2, 2, 2, waiting=0)) == 1
    assert wanted(queue, fleet(3, 3, 3, waiting=1)) == 1  # three wait for a moment, as a prompt does
    assert wanted(queue, fleet(1)) == 1
    assert wanted(queue, fleet(0)) == 0  # keeping a minimum is the bounds' business
    assert wanted(queue, fleet(0, 0, starting=1)) == 3  # not while some are on their way


def test_a_schedule_repeats_every_day() -> None:
    schedule = Scheduled(plan=[(8 * 3600, 6), (20 * 3600, 2)])
    assert [wanted(schedule, fleet(), hour * 3600) for hour in (0, 7.99, 8, 19, 20, 24 + 8, 48 + 21)] == [
        2, 2, 6, 6, 2, 6, 2,
    ]  # fmt: skip


def test_a_schedule_may_happen_once() -> None:
    schedule = Scheduled(plan=[(10, 3), (20, 5)], every_s=0)
    assert [wanted(schedule, fleet(), now_s) for now_s in (0, 10, 19, 20, 1e6)] == [3, 3, 3, 5, 5]


def test_combined_takes_the_most_that_any_wants() -> None:
    combined = Combined(parts=[TargetTracking(target=10), Scheduled(plan=[(0, 3)])])
    assert wanted(combined, fleet(15), 0) == 3
    assert wanted(combined, fleet(95), 100) == 10


def test_two_that_are_made_of_the_same_parts_share_no_memory() -> None:
    part = TargetTracking(target=10, look_back_s=1000)
    one, other = Combined(parts=[part]), Combined(parts=[part])
    assert wanted(one, fleet(500), 0.0) == 50
    assert wanted(other, fleet(10), 1.0) == 1


# --- predictive ----------------------------------------------------------------------------------------------------


def told(autoscaler: Autoscaler, *counts: int, every_s: float = 60.0) -> int:
    """Tick once per interval, with so many requests in each; return what is wanted last."""
    total, answer = 0, wanted(autoscaler, fleet(0, requests=0), 0.0)
    for i, number in enumerate(counts, 1):
        total += number
        answer = wanted(autoscaler, fleet(0, requests=total), i * every_s)
    return answer


def predictive(**changes: object) -> Predictive:
    arguments = {"replica_per_s": 1.0, "interval_s": 60.0, "horizon_s": 180.0, "deviations": 0.0} | changes
    return Predictive(**arguments)  # type: ignore[arg-type]


def test_a_trend_is_carried_to_the_horizon() -> None:
    assert told(predictive(), 60, 120, 180, 240) == 7  # 4/s now, 1/s more each minute, three minutes ahead
    assert told(predictive(forecast=Naive()), 60, 120, 180, 240) == 4


def test_a_falling_forecast_takes_nothing_that_the_present_needs() -> None:
    assert told(predictive(), 480, 360, 240, 120) == 2


def test_the_floor_is_a_reactive_autoscaler() -> None:
    with_floor = predictive(floor=TargetTracking(target=5, look_back_s=0))
    assert size(with_floor.tick(0.0, fleet(50, requests=1))) == 10


def test_the_band_is_never_narrower_than_the_scatter_of_counts() -> None:
    assert told(predictive(forecast=Naive(), deviations=2.0), *[240] * 10) == 5  # 4/s + 2 * sqrt(4 / 60)


def test_ticks_need_not_divide_the_interval() -> None:
    assert told(predictive(), *[40] * 30, every_s=40.0) == 1
    assert told(predictive(replica_per_s=0.1), *[7] * 60, every_s=7.0) == 10


class Constant:
    """A forecast of one's own."""

    def observe(self, value: float) -> None: ...

    def ahead(self, steps: int) -> float:
        return 9.0


def test_a_forecast_of_ones_own_fits_in() -> None:
    own: Forecast = Constant()
    assert told(predictive(forecast=own), 60, 60) == 9


def test_a_forecast_that_ends_before_the_cold_start_does_is_refused() -> None:
    check_horizon(predictive(horizon_s=120), 120)
    check_horizon(Reactive(target=1), 120)
    for autoscaler in (predictive(horizon_s=60), Combined(parts=[predictive(), predictive(horizon_s=60)])):
        with pytest.raises(SetupError, match=r"horizon_s \(60\) is shorter than the cold start \(120 s\)"):
            check_horizon(autoscaler, 120)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reactive(target=0),
        lambda: Reactive(target=1, tolerance=-0.1),
        lambda: TargetTracking(target=-1),
        lambda: QueueBased(waiting_per_replica=0, most_running=1),
        lambda: Scheduled(plan=[]),
        lambda: Scheduled(plan=[(20, 1), (10, 2)]),
        lambda: Scheduled(plan=[(0, -1)]),
        lambda: Scheduled(plan=[(100, 1)], every_s=60),
        lambda: Combined(parts=[]),
        lambda: predictive(replica_per_s=0),
        lambda: predictive(interval_s=-60),
        lambda: predictive(horizon_s=30),
    ],
)
def test_senseless_numbers_are_refused(make: object) -> None:
    with pytest.raises(SetupError):
        make()  # type: ignore[operator]
