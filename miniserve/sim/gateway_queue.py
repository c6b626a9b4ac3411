"""One queue in front of all replicas: a request waits at the gateway until a replica has room for it.

    request ──> waiting, best rank first ──(fewer than `per_replica` inside for each ready replica)──> dispatch

Where every replica has a queue of its own, a request waits behind those it was sent to, although another replica may be
idle by then. Here the next one goes to whichever is free first: servers behind one queue, as at a bank or in Erlang's
formula (`planning/queueing.py`). The price is that a replica learns of its next request only when there is room.

Ranks are the replicas' own: time of arrival plus a fixed wait per class of priority. A request whose deadline passes
while it waits is answered 504; beyond `most_waiting`, it is refused at once. If no replica is ready, nobody waits here:
dispatch says so. Admission policies belong to dispatch, so they are asked about what leaves the queue.

Knows simpy; which replica it will be is the balancer's decision (`WithRoom` keeps it from the full ones).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from dataclasses import replace
from math import inf
from typing import Any

import simpy

from miniserve.errors import Overloaded, RequestError, deadline_passed
from miniserve.policies.bundle import Policies
from miniserve.policies.routing.balancer import WithRoom
from miniserve.scenario.model import Scenario, SharedQueue
from miniserve.sim.clients import AskService
from miniserve.sim.fleet import SimFleet
from miniserve.types import Outcome, Request

_LET_IN_EVERY_S = 0.5  # replicas that have become ready since are noticed then
_Turn = tuple[float, int, simpy.Event]  # rank, tie-breaker, what fires when it is this one's turn


class GatewayQueue:
    """The queue. `ready` returns how many replicas are ready now; call `let_in` when that may have changed."""

    def __init__(
        self,
        env: simpy.Environment,
        ready: Callable[[], int],
        *,
        per_replica: int,
        aging_s: float,
        most_waiting: float = inf,
    ) -> None:
        self._env = env
        self._ready = ready
        self._per_replica = per_replica
        self._aging_s = aging_s
        self._most_waiting = most_waiting
        self._turns: list[_Turn] = []  # a heap
        self._came = 0
        self._inside = 0

    def __len__(self) -> int:
        return len(self._turns)

    def ask(self, request: Request, ask: AskService) -> Generator[simpy.Event, Any, Outcome]:
        """Ask `ask` when it is `request`'s turn; the answer is an error if that never comes."""
        refusal = yield from self._wait(request)
        if refusal is not None:
            return Outcome(request.request_id, error=refusal)
        try:
            return (yield from ask(request))
        finally:
            self._inside -= 1
            self.let_in()

    def let_in(self) -> None:
        """Let in as many as there is room for."""
        while self._turns and self._has_room():
            _, _, turn = heapq.heappop(self._turns)
            self._inside += 1
            turn.succeed()

    def _has_room(self) -> bool:
        ready = self._ready()
        return ready == 0 or self._inside < ready * self._per_replica

    def _wait(self, request: Request) -> Generator[simpy.Event, Any, RequestError | None]:
        """Wait for a place inside; return why there is none, if so."""
        if not self._turns and self._has_room():
            self._inside += 1
            return None
        if len(self._turns) >= self._most_waiting:
            return Overloaded(f"{len(self._turns)} requests wait at the gateway already; try again later")
        turn = self._env.event()
        mine = (self._env.now + request.priority * self._aging_s, self._came, turn)
        self._came += 1
        heapq.heappush(self._turns, mine)
        if request.deadline_s is None:
            yield turn
            return None
        yield turn | self._env.timeout(max(0.0, request.deadline_s - self._env.now))
        if turn.triggered:
            return None
        self._turns.remove(mine)
        heapq.heapify(self._turns)
        return deadline_passed()


def gateway_queue(scenario: Scenario, fleet: SimFleet) -> GatewayQueue | None:
    """Return the scenario's queue before `fleet`, if it has one."""
    if scenario.gateway_queue is None:
        return None
    queue = GatewayQueue(
        fleet.env,
        fleet.num_ready,
        per_replica=_most_inside(scenario.gateway_queue, scenario),
        aging_s=scenario.engine.scheduler.aging_s,
        most_waiting=scenario.gateway_queue.most_waiting,
    )
    fleet.every(_LET_IN_EVERY_S, lambda _: queue.let_in())
    return queue


def kept_from_the_full(policies: Policies, scenario: Scenario) -> Policies:
    """Return `policies` with a balancer that is offered no full replica, where requests wait at the gateway."""
    if scenario.gateway_queue is None:
        return policies
    most = _most_inside(scenario.gateway_queue, scenario)
    return replace(policies, balancer=WithRoom(policies.balancer, most=most))


def _most_inside(section: SharedQueue, scenario: Scenario) -> int:
    return section.per_replica or scenario.engine.scheduler.max_running
