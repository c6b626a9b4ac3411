"""One queue before all replicas: who is free first serves the next, in order of rank, and nobody is forgotten there."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simpy

from miniserve.errors import DeadlineExceeded, SetupError
from miniserve.policies.routing.balancer import LeastOutstanding, PeakEwma, WithRoom
from miniserve.scenario import Scenario, load
from miniserve.sim.gateway_queue import GatewayQueue
from miniserve.sim.result import SimResult
from miniserve.sim.run import simulate
from miniserve.toml.source import Setting
from miniserve.types import AttemptResult, FinishReason, Outcome, Priority, ReplicaView, Request

TOKEN_S = 1e-3
SERVERS = f"""
[run]
requests = 1000
seed = 2
[workload]
prompt = {{ kind = "geometric", mean_tokens = 1000 }}
output = {{ kind = "constant", tokens = 1 }}
arrivals = {{ kind = "poisson", rate_per_s = 2.7 }}
[engine.scheduler]
max_running = 1
max_batch_tokens = 1_000_000
[engine.cache]
num_blocks = 1000
block_size = 1000
prefix_caching = false
[[fleet.replicas]]
name = "r"
count = 3
step_time = {{ base_s = 0, per_prefill_token_s = {TOKEN_S}, per_decode_row_s = {TOKEN_S} }}
[policies]
progress = "off"  # a prompt of several seconds is one step here, and no hang
[gateway_queue]
"""


@pytest.fixture
def servers(tmp_path: Path) -> Callable[..., Scenario]:
    """`servers("key=value", ...)`: three replicas that serve one request at a time, changed."""
    path = tmp_path / "servers.toml"
    path.write_text(SERVERS)
    return lambda *settings: load(path, settings=[Setting.parse(text) for text in settings])


def in_order(result: SimResult) -> tuple[list[float], list[float], list[float]]:
    """Return arrivals, services and ends, in order of arrival."""
    outcomes, order = result.outcomes, np.argsort(result.outcomes.index)
    services_s = outcomes.prompt_tokens[order] * TOKEN_S
    return outcomes.arrived_s[order].tolist(), services_s.tolist(), outcomes.ended_s[order].tolist()


@pytest.mark.parametrize("balancer", ["least-outstanding", "random", "round-robin", "peak-ewma"])
def test_whatever_the_balancer_the_run_follows_kiefer_and_wolfowitz(
    servers: Callable[..., Scenario], balancer: str
) -> None:
    free_s = [0.0] * 3
    for arrived_s, service_s, ended_s in zip(
        *in_order(simulate(servers(f"policies.balancer={balancer}"))), strict=True
    ):
        end_s = max(arrived_s, heapq.heappop(free_s)) + service_s
        heapq.heappush(free_s, end_s)
        assert ended_s == pytest.approx(end_s, rel=1e-9)


def test_one_queue_beats_the_best_of_several(servers: Callable[..., Scenario], tmp_path: Path) -> None:
    path = tmp_path / "apart.toml"
    path.write_text(SERVERS.replace("[gateway_queue]\n", ""))
    together, apart = simulate(servers()), simulate(load(path))
    assert together.outcomes.e2e_s.mean() < apart.outcomes.e2e_s.mean()
    assert "queued" in together.series
    assert "queued" not in apart.series
    assert max(together.series["waiting"][1]) == 0, "nobody waits in a replica"


def test_a_better_class_goes_first() -> None:
    env, served = simpy.Environment(), list[str]()
    queue = GatewayQueue(env, lambda: 1, per_replica=1, aging_s=3.0)

    def service(request: Request) -> Generator[simpy.Event, Any, Outcome]:
        served.append(request.request_id)
        yield env.timeout(10.0)
        return Outcome(request.request_id, FinishReason.STOP)

    def client(name: str, at_s: float, priority: Priority) -> Generator[simpy.Event, Any, None]:
        yield env.timeout(at_s)
        yield from queue.ask(Request(name, "m", (1,), priority=priority), service)

    for name, at_s, priority in (
        ("inside", 0.0, Priority.STANDARD),
        ("batch", 1.0, Priority.BATCH),  # a class is worth three seconds of waiting
        ("soon", 3.0, Priority.STANDARD),
        ("late", 5.0, Priority.STANDARD),
        ("now", 6.0, Priority.INTERACTIVE),
    ):
        env.process(client(name, at_s, priority))
    env.run()
    assert served == ["inside", "soon", "now", "batch", "late"]


def test_who_waits_past_the_deadline_is_told_so_then_and_takes_nobodys_turn() -> None:
    env, ended = simpy.Environment(), dict[str, tuple[float, Exception | None]]()
    queue = GatewayQueue(env, lambda: 1, per_replica=1, aging_s=1.0)

    def service(request: Request) -> Generator[simpy.Event, Any, Outcome]:
        yield env.timeout(10.0)
        return Outcome(request.request_id, FinishReason.STOP)

    def client(request: Request) -> Generator[simpy.Event, Any, None]:
        outcome = yield from queue.ask(request, service)
        ended[request.request_id] = env.now, outcome.error

    for name, deadline_s in (("first", None), ("hasty", 4.0), ("patient", 30.0), ("last", None)):
        env.process(client(Request(name, "m", (1,), deadline_s=deadline_s)))
    env.run()
    assert {name: at_s for name, (at_s, _) in ended.items()} == {"hasty": 4, "first": 10, "patient": 20, "last": 30}
    assert isinstance(ended["hasty"][1], DeadlineExceeded)
    assert all(error is None for name, (_, error) in ended.items() if name != "hasty")
    assert len(queue) == 0


def test_a_full_queue_refuses_at_once(servers: Callable[..., Scenario]) -> None:
    result = simulate(servers("workload.arrivals.rate_per_s=6", "gateway_queue.most_waiting=5"))
    refused = result.outcomes.where(result.outcomes.status == 503)
    assert len(refused) > 100
    assert refused.e2e_s.max() == 0
    assert max(result.series["queued"][1]) == 5


def test_a_replica_that_comes_back_is_used_again_and_without_any_nobody_waits(
    servers: Callable[..., Scenario],
) -> None:
    crash = 'faults.events=[{at_s=50, kind="crash", replicas=["r-*"], duration_s=50}]'
    result = simulate(servers(crash, "workload.arrivals.rate_per_s=1.5"))
    down = result.outcomes.arrived_between(53, 95)
    assert down.by_status() == {503: len(down)}
    assert down.e2e_s.max() < 1, "dispatch says that no replica is ready"
    assert result.outcomes.arrived_between(110, 1e9).by_status().keys() == {200}
    assert result.unanswered == 0


def test_as_many_as_an_engine_runs_are_inside_unless_another_number_is_said(servers: Callable[..., Scenario]) -> None:
    wide = ("engine.scheduler.max_running=4", 'workload.output={kind="geometric", mean_tokens=200}')
    assert max(simulate(servers(*wide)).series["outstanding"][1]) == 12
    assert max(simulate(servers(*wide, "gateway_queue.per_replica=2")).series["outstanding"][1]) == 6


def test_an_autoscaler_that_cannot_see_the_queue_is_refused(servers: Callable[..., Scenario]) -> None:
    scaled = "autoscaler={max_replicas=9, policy={kind='reactive', target=2.0}}"
    with pytest.raises(SetupError, match="gateway_queue: an autoscaler would not see who waits there"):
        servers(scaled)


# --- the balancer that is kept from the full ones


def test_the_full_are_not_offered_unless_all_are() -> None:
    request, balancer = Request("q", "m", (1,)), WithRoom(LeastOutstanding(), most=2)
    views = [ReplicaView("a", outstanding=2), ReplicaView("b", outstanding=1), ReplicaView("c", outstanding=3)]
    assert balancer.choose(request, views) == "b"
    assert balancer.choose(request, [views[0], views[2]]) == "a"
    assert balancer.choose(request, []) is None


def test_the_balancer_inside_goes_on_learning() -> None:
    inside = PeakEwma()
    result = AttemptResult("a", FinishReason.STOP, (1,), started_s=0.0, first_token_s=2.0, ended_s=3.0)
    WithRoom(inside, most=2).observe(result, 3.0)
    assert inside._known("a")[0] == 2.0
    WithRoom(LeastOutstanding(), most=2).observe(result, 3.0)
