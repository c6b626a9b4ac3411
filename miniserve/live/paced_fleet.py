"""A live fleet of paced replicas, built from the same specifications and hit by the same faults as a simulated one.

    async with Fleet(...) as fleet:
        async with PacedReplicas(fleet, {"r0": spec, "r1": spec}, faults):
            ...

Knows no request: faults of single attempts are in `Fleet(faults=...)`. On a `VirtualTimeLoop` everything keeps its
place in an instant: the fleet's faults before arrivals, replicas' turns after everything (`virtual_time`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from types import TracebackType

from miniserve.errors import UpstreamError
from miniserve.faults import FaultPlan, NoFaults, ReplicaEvent, ReplicaFault
from miniserve.live.fleet import Fleet
from miniserve.live.paced import PacedReplica
from miniserve.live.virtual_time import FLEET, sleep
from miniserve.sim.spec import ReplicaSpec


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
                replica.kill(UpstreamError(f"replica {replica_id} broke off"))
            case ReplicaFault.HANG:
                replica.pause()
            case ReplicaFault.SLOW:
                self._slowness[replica_id].append(event.factor)
                self._set_speed(replica_id)
            case ReplicaFault.PARTITION:
                replica.cut_off(UpstreamError(f"the connection to replica {replica_id} broke", None, "unreachable"))

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
