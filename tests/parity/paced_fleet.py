"""A live fleet of paced replicas, built from the same specifications and hit by the same faults as a simulated one.

    async with DrillFleet(..., faults=faults) as fleet:
        async with PacedReplicas(fleet, {"r0": spec, "r1": spec}, faults):
            ...

`DrillFleet` is the live fleet with faults of single attempts; `PacedReplicas` knows no request. On a `VirtualTimeLoop`
everything keeps its place in an instant: the fleet's faults before arrivals, replicas' turns after everything
(`virtual_time`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

from parity.paced import PacedReplica
from parity.virtual_time import CONTROL, FLEET, sleep

from miniserve.errors import broke_off, cut_off
from miniserve.faults import AttemptFault, FaultPlan, NoFaults, ReplicaEvent, ReplicaFault, fault_of
from miniserve.gateway.fleet import Fleet, Upstream
from miniserve.hardware.spec import ReplicaSpec
from miniserve.types import Clock, Request, Send, TokenEvent


class DrillFleet(Fleet):
    """The live fleet; it wakes in the simulation's order, and its streams break where the plan says."""

    def __init__(self, clock: Clock, *, faults: FaultPlan | None = None, **settings: Any) -> None:
        super().__init__(
            clock, control_sleep=partial(sleep, rank=CONTROL), probe_sleep=partial(sleep, rank=FLEET), **settings
        )
        self._faults = faults or NoFaults()

    def _stream(self, upstream: Upstream, send: Send) -> AsyncGenerator[TokenEvent, None]:
        fault = fault_of(self._faults, send.replica_id, send.request.request_id, send.attempt)
        return super()._stream(upstream, send) if fault is None else _cut(upstream, send.request, fault)


async def _cut(upstream: Upstream, request: Request, fault: AttemptFault) -> AsyncGenerator[TokenEvent, None]:
    """Let the stream break after so many tokens. The replica is asked for no more, so its work ends at that token."""
    if fault.after_tokens == 0:
        raise fault.error()
    sent, most = 0, min(request.sampling.max_tokens, len(request.resume_ids) + fault.after_tokens)
    request = replace(request, sampling=replace(request.sampling, max_tokens=most))
    async with aclosing(upstream.generate(request)) as events:
        async for event in events:
            sent += len(event.token_ids)
            if event.finish_reason is None or sent < fault.after_tokens:
                yield event
                continue
            yield replace(event, finish_reason=None)
            raise fault.error()


class PacedReplicas:
    """They are members of `fleet` inside the block; what the plan has for them happens on time."""

    def __init__(self, fleet: Fleet, specs: Mapping[str, ReplicaSpec], faults: FaultPlan | None = None) -> None:
        self.replicas: dict[str, PacedReplica] = {}
        self._fleet = fleet
        self._specs = dict(specs)
        self._faults = faults or NoFaults()
        self._slowness: dict[str, list[float]] = {replica_id: [] for replica_id in specs}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> PacedReplicas:
        loop = asyncio.get_running_loop()
        for event in self._faults.replica_events():
            wait_s = event.at_s - loop.time()
            self._tasks.append(asyncio.create_task(self._suffer(event, wait_s), name=f"fault of {event.replica_id}"))
        for replica_id in self._specs:
            await self._put(replica_id)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for replica_id in self._specs:
            await self._fleet.remove(replica_id)

    async def _put(self, replica_id: str) -> None:
        spec, old = self._specs[replica_id], self.replicas.get(replica_id)
        self.replicas[replica_id] = replica = PacedReplica(
            spec.scheduler,
            spec.cache,
            spec.step_time,
            max_model_len=spec.max_model_len,
            speed=spec.speed,
            version=spec.version,
            turn=list(self._specs).index(replica_id),
        )
        if old is not None:
            replica.scheduler.counters = old.scheduler.counters  # they count the replica's lives together
        self._set_speed(replica_id)
        await self._fleet.put(replica_id, replica, weight=spec.weight, region=spec.region)

    def add(self, replica_id: str, spec: ReplicaSpec) -> None:
        """Know one more replica; `put` makes it."""
        self._specs[replica_id] = spec
        self._slowness[replica_id] = []

    async def put(self, replica_id: str) -> None:
        """Start a replica, or start it again."""
        await self._put(replica_id)

    async def _suffer(self, event: ReplicaEvent, wait_s: float) -> None:
        await sleep(wait_s, FLEET)
        self._begin(event)
        if not math.isinf(event.duration_s):
            await sleep(event.duration_s, FLEET)
            await self._end(event)

    def _begin(self, event: ReplicaEvent) -> None:
        replica_id = event.replica_id
        replica = self.replicas[replica_id]
        match event.kind:
            case ReplicaFault.CRASH:
                replica.kill(broke_off())
            case ReplicaFault.HANG:
                replica.pause()
            case ReplicaFault.SLOW:
                self._slowness[replica_id].append(event.factor)
                self._set_speed(replica_id)
            case ReplicaFault.PARTITION:
                replica.cut_off(cut_off())

    async def _end(self, event: ReplicaEvent) -> None:
        replica_id = event.replica_id
        match event.kind:
            case ReplicaFault.CRASH:
                await self._put(replica_id)
            case ReplicaFault.HANG:
                self.replicas[replica_id].resume()
            case ReplicaFault.SLOW:
                self._slowness[replica_id].remove(event.factor)
                self._set_speed(replica_id)
            case ReplicaFault.PARTITION:
                self.replicas[replica_id].reconnect()

    def _set_speed(self, replica_id: str) -> None:
        self.replicas[replica_id].speed = self._specs[replica_id].speed / math.prod(self._slowness[replica_id])


class PacedCrew:
    """Has paced replicas started, each after the cold start of its specification, and retired: the live crew's part."""

    def __init__(self, fleet: Fleet, paced: PacedReplicas, spec: Callable[[str], ReplicaSpec]) -> None:
        self._fleet = fleet
        self._paced = paced
        self._spec = spec
        self._loop = asyncio.get_running_loop()
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._ends: list[asyncio.Task[None]] = []

    def start(self, replica_id: str) -> None:
        spec = self._spec(replica_id)
        self._fleet.announce(replica_id, weight=spec.weight, region=spec.region)
        self._paced.add(replica_id, spec)
        self._starts[replica_id] = self._loop.create_task(self._cold_start(replica_id, spec.cold_start.nominal_s))

    async def _cold_start(self, replica_id: str, seconds: float) -> None:
        await sleep(seconds, FLEET)
        await self._paced.put(replica_id)

    def drain(self, replica_id: str) -> None:
        self._fleet.drain(replica_id)
        if (start := self._starts.get(replica_id)) is not None:
            start.cancel()  # no effect on one that is over
        self._ends.append(self._loop.create_task(self._fleet.remove_drained(replica_id)))
