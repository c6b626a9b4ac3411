"""More work than the fleet can do at once: everybody is answered or refused at the door, and nobody is begun twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import pytest
from parity import virtual_time
from parity.paced_fleet import DrillFleet, PacedReplicas

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import Overloaded, RateLimited, RequestError, UpstreamError, draining
from miniserve.faults import KeyedFaults, ReplicaEvent, ReplicaFault
from miniserve.gateway.drive import FleetBackend
from miniserve.gateway.queue_cost import QueueCost
from miniserve.hardware.spec import ReplicaSpec
from miniserve.policies.decision_log import Decision
from miniserve.policies.routing.balancer import LeastOutstanding
from miniserve.types import FleetView, ReplicaView, Request, SamplingParams

SLOW = StepTimeModel(0.25, 0.001, 0.008, 0.0, 0.0)  # a busy machine: a step takes a quarter of a second and more
SPEC = ReplicaSpec(SLOW, SchedulerConfig(), CacheConfig())


@dataclass
class Told:
    """What became of one request, when, and at which attempt."""

    error: RequestError | None
    tokens: int
    after_s: float


def answered(
    requests: Sequence[Request], spec: ReplicaSpec = SPEC, replicas: int = 2, faults: KeyedFaults | None = None
) -> tuple[list[Told], int]:
    """Send all at once through a gateway, in virtual time; return what became of each, and the number of attempts."""
    decisions: list[Decision] = []

    async def main() -> list[Told]:
        loop = asyncio.get_running_loop()
        specs = {f"r{i}": spec for i in range(replicas)}
        async with DrillFleet(loop.time, faults=faults) as fleet, PacedReplicas(fleet, specs, faults):
            backend = FleetBackend(fleet, LeastOutstanding(), on_decision=decisions.append)
            return await asyncio.gather(*(ask(backend, request) for request in requests))

    return virtual_time.run(main()), sum(decision.what[0] == "send" for decision in decisions)


async def ask(backend: FleetBackend, request: Request) -> Told:
    loop = asyncio.get_running_loop()
    begun_s, tokens, error = loop.time(), 0, None
    try:
        async with aclosing(backend.generate(request)) as events:
            async for event in events:
                tokens += len(event.token_ids)
    except RequestError as failure:
        error = failure
    return Told(error, tokens, loop.time() - begun_s)


def streams(count: int, *, prompt_tokens: int = 20, tokens: int = 60) -> list[Request]:
    sampling = SamplingParams(max_tokens=tokens, ignore_eos=True)
    return [Request(f"q{i}", "tiny", range(i << 16, (i << 16) + prompt_tokens), sampling) for i in range(count)]


def test_a_queue_that_takes_minutes_is_waited_for_by_all_and_no_work_is_done_twice() -> None:
    told, attempts = answered(streams(200))
    assert [one.error for one in told] == [None] * 200
    assert {one.tokens for one in told} == {60}
    assert max(one.after_s for one in told) > 90.0, "otherwise this proves nothing"
    assert attempts == 200


def test_beyond_the_bound_of_the_queues_clients_are_refused_at_once_and_told_when_to_come_back() -> None:
    bounded = replace(SPEC, scheduler=SchedulerConfig(max_waiting=40))
    told, attempts = answered(streams(200), bounded)
    refused = [one for one in told if one.error is not None]
    assert len(refused) == 200 - 2 * 40
    assert {type(one.error) for one in refused} == {Overloaded}
    assert {(one.after_s, one.tokens) for one in refused} == {(0.0, 0)}, "nobody fails after a wait"
    assert all(one.error is not None and 1.0 <= (one.error.retry_after_s or 0.0) <= 60.0 for one in refused)
    assert all(one.tokens == 60 for one in told if one.error is None)
    assert attempts == 80 + 2 * len(refused), "each was refused by both, and that was all"


def test_a_prompt_that_is_computed_for_longer_than_a_first_token_is_waited_for_is_not_begun_again() -> None:
    long = streams(1, prompt_tokens=5119, tokens=1)
    (alone,), _ = answered(long, replicas=1)
    (told,), attempts = answered(long)
    assert told.error is None
    assert told.after_s == alone.after_s > 40.0
    assert attempts == 1


def test_a_replica_whose_steps_stand_still_is_given_up_once_another_moves() -> None:
    hangs = KeyedFaults(
        events=(ReplicaEvent(0.0, "r0", ReplicaFault.HANG), ReplicaEvent(0.0, "r1", ReplicaFault.HANG, 3.0))
    )
    told, attempts = answered(streams(2, tokens=5), faults=hangs)
    assert [one.error for one in told] == [None, None]
    assert attempts == 3
    assert 3.0 < max(one.after_s for one in told) < 10.0, "long before a first token is no longer waited for"


# --- what a refused client is told ---------------------------------------------------------------------------------


def full(*waiting: int) -> FleetView:
    return FleetView(tuple(ReplicaView(f"r{i}", queue_depth=count, running=16) for i, count in enumerate(waiting)))


def cost_of(answers: int, replica_id: str = "r0") -> QueueCost:
    cost = QueueCost()
    for i in range(answers):
        cost.answered(replica_id, 30.0 * i / answers)
    return cost


@pytest.mark.parametrize(
    ("answers", "waiting", "wait_s"),
    [(30, (30, 30), 30.0), (30, (10, 900), 10.0), (300, (20, 20), 2.0), (1, (1024, 1024), 60.0), (0, (5, 5), 60.0)],
)
def test_a_refused_client_is_told_how_long_the_shortest_queue_takes_to_empty(
    answers: int, waiting: tuple[int, ...], wait_s: float
) -> None:
    told = cost_of(answers).told(Overloaded("full", retry_after_s=1.0), full(*waiting), 30.0)
    assert isinstance(told, Overloaded)
    assert told.message == "full"
    assert told.retry_after_s == pytest.approx(wait_s)


@pytest.mark.parametrize(
    "error", [Overloaded("full", retry_after_s=90.0), draining(), UpstreamError("broke"), RateLimited("x")]
)
def test_what_has_another_reason_keeps_its_own_wait(error: Exception) -> None:
    assert cost_of(1).told(error, full(1024), 30.0) is error


def test_where_nobody_waits_and_where_nobody_is_ready_there_is_nothing_to_add() -> None:
    error = Overloaded("full")
    assert cost_of(1).told(error, full(0), 30.0) is error
    assert cost_of(1).told(error, FleetView(), 30.0) is error
