"""Autoscalers in virtual time: cold starts, draining, spot machines, bounds, bills, and what a failure leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import simpy

from miniserve.control.autoscaler import Autoscaler, ScalingAction, Scheduled
from miniserve.control.predictive import Predictive
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import SetupError
from miniserve.hardware.prices import ColdStart
from miniserve.hardware.spec import ReplicaSpec
from miniserve.scenario import Scenario, load
from miniserve.sim.fleet import SimFleet
from miniserve.sim.run import simulate
from miniserve.sim.scaling import ScalingLoop
from miniserve.toml.reader import Recipe
from miniserve.toml.source import Setting
from miniserve.types import Drain, FleetView, ReplicaState, ScaleTo

SCENARIO = """
[run]
duration_s = 1200
seed = 2
[workload]
prompt = { kind = "constant", tokens = 20 }
output = { kind = "geometric", mean_tokens = 60 }
arrivals = { kind = "piecewise", points = [[0, 1.4], [400, 8.4], [800, 8.4], [1000, 0.7]] }
[fleet]
probe_interval_s = 1
[[fleet.replicas]]
name = "r"
count = 2
hardware = "cpu-2core"
cold_start = { provision_s = 20, load_s = 6, warm_up_s = 4 }
[engine.scheduler]
max_running = 8
[autoscaler]
policy = { kind = "reactive", target = 5 }
period_s = 5
max_replicas = 8
down_after_s = 60
[slo]
ttft_s = 1
"""
STEP_TIME = StepTimeModel(0.02, 0, 0, 0, 0)


@pytest.fixture
def scaled(tmp_path: Path) -> Callable[..., Scenario]:
    """`scaled("key=value", ...)`: the scenario above, changed."""
    path = tmp_path / "scaled.toml"
    path.write_text(SCENARIO)
    return lambda *settings: load(path, settings=[Setting.parse(text) for text in settings])


def scaled_by(scenario: Scenario, make: Callable[[], Autoscaler]) -> Scenario:
    assert scenario.autoscaler is not None
    return replace(scenario, autoscaler=replace(scenario.autoscaler, policy=Recipe("mine", make)))


def a_loop(
    autoscaler: Autoscaler, start: int = 2, cold_start_s: float = 30.0, **spec: float
) -> tuple[simpy.Environment, SimFleet, ScalingLoop]:
    env = simpy.Environment()
    fleet = SimFleet(env, probe_interval_s=0)
    kind = ReplicaSpec(STEP_TIME, cold_start=ColdStart(cold_start_s, spread_fraction=0), **spec)  # type: ignore[arg-type]
    for i in range(start):
        fleet.add(kind, f"r-{i}", ready=True)
    fleet.add(kind, "other-0", ready=True)
    loop = ScalingLoop(fleet, autoscaler, kind, "r", lambda: 0)
    fleet.every(10.0, loop.tick)
    return env, fleet, loop


def states(fleet: SimFleet) -> dict[str, ReplicaState]:
    return {replica.replica_id: replica.state for replica in fleet.view().replicas}


# --- the loop ------------------------------------------------------------------------------------------------------


def test_a_replica_serves_after_its_cold_start_and_is_paid_for_from_the_start() -> None:
    env, fleet, loop = a_loop(Scheduled(plan=[(0, 2), (20, 3)], every_s=0))
    env.run(49.9)
    assert states(fleet)["r-2"] is ReplicaState.STARTING
    env.run(50.1)
    assert states(fleet)["r-2"] is ReplicaState.READY
    assert dict(fleet.bill().replicas)["r-2"].paid_s == pytest.approx(30.1)
    env.run(61)  # at second 50 the tick came before the replica was ready
    assert [(size.at_s, size.ready, size.starting, size.wanted) for size in loop.sizes] == [
        (0, 2, 0, 2),
        (20, 2, 1, 3),
        (60, 3, 0, 3),
    ]


def test_a_starting_replica_is_not_asked_for_again_and_goes_first() -> None:
    env, fleet, _ = a_loop(Scheduled(plan=[(0, 5), (30, 2)], every_s=0))
    env.run(25)
    assert sum(state is ReplicaState.STARTING for state in states(fleet).values()) == 3
    env.run(35)
    assert states(fleet) == dict.fromkeys(("r-0", "r-1", "other-0"), ReplicaState.READY)


def test_the_other_groups_are_neither_counted_nor_touched() -> None:
    env, fleet, _ = a_loop(Scheduled(plan=[(0, 0)], every_s=0))
    env.run(15)
    assert list(states(fleet)) == ["other-0"]


def test_a_spot_machine_that_is_taken_back_is_replaced() -> None:
    env, fleet, _ = a_loop(Scheduled(plan=[(0, 2)]), usd_per_hour=1.0, spot=True)
    env.run(15)
    fleet.interrupt("r-1")
    env.run(21)
    assert list(states(fleet)) == ["r-0", "other-0", "r-2"]
    env.run(60)
    assert states(fleet)["r-2"] is ReplicaState.READY


def test_interrupted_spot_machines_are_replaced_again_and_again_and_all_are_paid_for() -> None:
    env, fleet, loop = a_loop(Scheduled(plan=[(0, 3)]), usd_per_hour=1.0, spot=True, interruptions_per_hour=6.0)
    env.run(3600)
    lines = {replica_id: line for replica_id, line in fleet.bill().replicas if replica_id.startswith("r-")}
    assert len(lines) > 10  # three machines that live for ten minutes
    assert all(size.ready + size.starting == 3 for size in loop.sizes[2:])
    assert sum(line.usd for line in lines.values()) == pytest.approx(3.0, rel=0.02)


def test_a_crashed_replica_is_replaced_when_the_probes_miss_it() -> None:
    env, fleet, _ = a_loop(Scheduled(plan=[(0, 2)]))
    env.run(15)
    fleet.crash("r-0")
    env.run(21)
    assert states(fleet)["r-0"] is ReplicaState.DOWN
    assert states(fleet)["r-2"] is ReplicaState.STARTING


def test_a_replica_can_be_drained_by_name() -> None:
    class ByName:
        def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
            return [Drain("r-0")] if now_s == 10 else []

    env, fleet, _ = a_loop(ByName())
    env.run(25)
    assert list(states(fleet)) == ["r-1", "other-0"]


def test_a_horizon_that_ends_within_the_cold_start_is_refused() -> None:
    with pytest.raises(SetupError, match=r"horizon_s \(60\) is shorter than the cold start \(90 s\)"):
        a_loop(Predictive(replica_per_s=1, horizon_s=60), cold_start_s=90)


# --- whole runs ----------------------------------------------------------------------------------------------------


def test_a_run_grows_shrinks_and_answers_every_request(scaled: Callable[..., Scenario]) -> None:
    result = simulate(scaled())
    _, ready = result.series["replicas"]
    assert max(ready) >= 4
    assert ready[-1] < max(ready)
    assert max(result.series["replicas_draining"][1]) > 0
    assert result.outcomes.by_status() == {200: len(result.outcomes)}
    assert result.outcomes.attempts.max() == 1  # nobody had to try twice, either
    assert len(result.outcomes) > 3000


def test_what_it_cost_is_among_the_figures(scaled: Callable[..., Scenario]) -> None:
    result = simulate(scaled())
    figures = result.figures()
    assert figures["cost_usd"] == pytest.approx(figures["replica_hours"] * 0.08449)
    assert figures["late_fraction"] == pytest.approx(1 - figures["slo_attainment"])
    assert "replica hours" in str(result.table().caption)
    fixed = replace(scaled(), autoscaler=None)
    assert "replica_hours" not in simulate(fixed).figures()


def test_a_run_repeats_to_the_bit(scaled: Callable[..., Scenario]) -> None:
    one, other = simulate(scaled()), simulate(scaled())
    assert one.series == other.series
    assert one.outcomes.ended_s.tolist() == other.outcomes.ended_s.tolist()


def test_forecasts_of_two_runs_share_no_memory(scaled: Callable[..., Scenario]) -> None:
    policy = 'autoscaler.policy={kind="predictive", replica_per_s=2.1, floor={kind="target-tracking", target=5}}'
    scenario = scaled(policy)
    assert simulate(scenario).series == simulate(scenario).series


def test_spot_machines_have_the_spot_price(scaled: Callable[..., Scenario]) -> None:
    totals = simulate(scaled("fleet.replicas.0.spot=true", "run.duration_s=300")).totals
    assert totals["cost_usd"] == pytest.approx(totals["replica_hours"] * 0.01605)


def test_a_file_can_name_every_autoscaler(scaled: Callable[..., Scenario]) -> None:
    tracking = "{kind='target-tracking', target=5}"
    policies = (
        tracking,
        "{kind='queue', waiting_per_replica=0.5, most_running=4}",
        "{kind='scheduled', plan=[[0, 1], [100, 3]], every_s=600}",
        f"{{kind='combined', parts=[{tracking}, {{kind='scheduled', plan=[[0, 3]]}}]}}",
        f"{{kind='predictive', replica_per_s=2.1, forecast='ewma', floor={tracking}}}",
    )
    for policy in policies:
        result = simulate(scaled(f"autoscaler.policy={policy}", "run.duration_s=300"))
        assert max(result.series["replicas_wanted"][1]) >= 3, policy  # it began with two


def test_a_fleet_of_none_wakes_up(scaled: Callable[..., Scenario]) -> None:
    settings = (
        "autoscaler.min_replicas=0",
        'workload.arrivals={kind="piecewise", points=[[0,0],[300,0],[300,2],[1200,2]]}',
    )
    result = simulate(scaled(*settings))
    _, ready = result.series["replicas"]
    assert 0 in ready
    assert ready[-1] >= 1
    late = result.outcomes.arrived_between(400, 1200)
    assert late.by_status() == {200: len(late)}
    assert set(result.outcomes.by_status()) == {200, 503}  # who comes before the first cold start is over is refused


@pytest.mark.parametrize(
    "policy",
    [
        '{kind="queue", waiting_per_replica=2.0, most_running=4.0}',
        '{kind="reactive", target=2.0}',
        '{kind="target-tracking", target=2.0}',
    ],
)
def test_a_fleet_that_may_be_none_is_none_when_nobody_comes(scaled: Callable[..., Scenario], policy: str) -> None:
    idle = 'workload.arrivals={kind="piecewise", points=[[0,1],[100,1],[100,0],[1190,0],[1190,1],[1200,1]]}'
    result = simulate(scaled(f"autoscaler.policy={policy}", "autoscaler.min_replicas=0", idle))
    times_s, ready = result.series["replicas"]
    assert {count for at_s, count in zip(times_s, ready, strict=True) if 300 < at_s < 1190} <= {0}
    assert 0 in ready
    assert result.totals["replica_hours"] < 2 * 400 / 3600, "not paid for while nobody comes"


class Raises:
    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        if now_s > 300:
            raise KeyError("r-7")
        return []


class Nonsense:
    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        return [ScaleTo(2.5 if now_s > 300 else 2)]  # type: ignore[arg-type]


class Mutates:
    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        if now_s > 300:
            view.requests = 0  # type: ignore[misc]
        return []


@pytest.mark.parametrize(
    ("make", "what"),
    [(Raises, "raised KeyError: 'r-7'"), (Nonsense, "ScaleTo(replicas=2.5)"), (Mutates, "tried to change")],
)
def test_a_broken_autoscaler_is_named_and_what_happened_is_kept(
    scaled: Callable[..., Scenario], make: Callable[[], Autoscaler], what: str
) -> None:
    result = simulate(scaled_by(scaled(), make))
    assert result.stopped is not None
    assert f"policy {make.__name__} failed on its tick at 305.0 s" in result.stopped
    assert what in result.stopped
    assert len(result.outcomes) > 300


# --- scenario files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("autoscaler.period_s=-5", "period_s: -5 is not allowed; it must be at least 0.001"),
        ("autoscaler.min_replicas=9", "min_replicas: 9 is more than max_replicas, 8"),
        ("autoscaler.max_replicas=1", "count: 2 is not within the autoscaler's bounds, 1 to 1"),
        ("autoscaler.group=q", 'group: there is no "q"'),
        ("autoscaler.policy=magic", 'policy: there is no "magic"'),
        ("autoscaler.policy={kind='reactive'}", "policy: `target` is missing"),
        ("autoscaler.policy={kind='reactive', target=0}", "target (0) must be above 0"),
        ("autoscaler.warm_pool=-1", "warm_pool: -1 is not allowed"),
        ("autoscaler.cooldown=3", "cooldown: unknown key"),
        (
            "autoscaler.policy={kind='predictive', replica_per_s=1, interval_s=10, horizon_s=20}",
            "policy: horizon_s (20) is shorter than the cold start (30 s)",
        ),
        (
            "autoscaler.policy={kind='combined', parts=[{kind='predictive', replica_per_s=1, horizon_s=9}]}",
            "horizon_s (9) must be at least one step",
        ),
        (
            "autoscaler.policy={kind='predictive', replica_per_s=1, forecast={kind='holt', level_weight=2}}",
            "level_weight (2) must be above 0 and at most 1",
        ),
        ("fleet.replicas.0.cold_start={provision_s=1, wait_s=2}", "wait_s: unknown key"),
    ],
)
def test_a_wrong_key_is_refused_before_anything_runs(
    scaled: Callable[..., Scenario], setting: str, message: str
) -> None:
    with pytest.raises(SetupError) as caught:
        scaled(setting)
    assert message in str(caught.value)


def test_an_autoscaler_needs_a_fleet_and_a_group(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(SCENARIO.replace("[autoscaler]", '[[fleet.replicas]]\nname = "q"\nhardware = "l4"\n[autoscaler]'))
    with pytest.raises(SetupError, match="`group` is missing; allowed: r, q"):
        load(path)
    no_fleet = SCENARIO[: SCENARIO.index("[fleet]")] + SCENARIO[SCENARIO.index("[engine.scheduler]") :]
    path.write_text(no_fleet)
    with pytest.raises(SetupError, match=r"needs a \[fleet\]"):
        load(path)


OWN = """
from miniserve.types import ScaleTo

class Mine:
    def __init__(self, *, most: int = 3):
        self.most = most

    def tick(self, now_s, view):
        return [ScaleTo(min(self.most, 1 + int(now_s) // 100))]

class NoTick:
    def choose(self, request, replicas):
        return None
"""


def test_a_users_own_class_scales_the_fleet(scaled: Callable[..., Scenario], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    result = simulate(scaled("autoscaler.policy=own.py:Mine", "run.duration_s=500"))
    assert max(result.series["replicas"][1]) == 3
    result = simulate(scaled("autoscaler.policy={kind='own.py:Mine', most=4}", "run.duration_s=500"))
    assert max(result.series["replicas"][1]) == 4
    with pytest.raises(SetupError, match=r"NoTick lacks the method tick\(now_s, view\)"):
        scaled("autoscaler.policy=own.py:NoTick")


@pytest.mark.parametrize(
    "policy",
    [
        '{kind="target-tracking", target=2.0}',
        '{kind="reactive", target=2.0}',
        '{kind="queue", waiting_per_replica=2.0, most_running=4.0}',
        '{kind="combined", parts=[{kind="reactive", target=2.0}, {kind="target-tracking", target=2.0}]}',
    ],
)
def test_a_fleet_that_is_starting_up_and_sees_no_traffic_does_not_grow(
    scaled: Callable[..., Scenario], policy: str
) -> None:
    """A machine is lost before anyone comes, and its successor takes 200 s: it is asked for once, not at every tick."""
    scenario = scaled(
        f"autoscaler.policy={policy}",
        "autoscaler.min_replicas=2",
        "fleet.replicas.0.cold_start={provision_s=200}",
        'workload.arrivals={kind="piecewise", points=[[0, 0.0], [900, 0.0], [900, 0.5], [1200, 0.5]]}',
        'faults.events=[{at_s=60, kind="crash", replicas=["r-1"]}]',
    )
    series = simulate(scenario).series
    for name, most in (("replicas_wanted", 2), ("replicas", 2), ("replicas_starting", 1)):
        times_s, values = series[name]
        assert max(value for at_s, value in zip(times_s, values, strict=True) if at_s < 900) == most, name
    times_s, starting = series["replicas_starting"]
    changes = [value for at_s, value in zip(times_s, starting, strict=True) if at_s < 900]
    assert sum(one < other for one, other in pairwise(changes)) == 1, "asked for once"
