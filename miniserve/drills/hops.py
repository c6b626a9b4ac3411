"""A faulty hop between a running gateway and each of its replicas, kept across the replicas' restarts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any

from miniserve.drills.faulty_hop import FaultyHop
from miniserve.faults import AttemptFault
from miniserve.gateway.fleet import Fleet, Upstream
from miniserve.gateway.remote import RemoteReplica
from miniserve.processes.http_server import LOOPBACK

OnGenerate = Callable[[str, dict[str, Any]], AttemptFault | None]  # told the replica, and what is asked of it
OnUp = Callable[[str], None]  # told which replica has come back


class Hops:
    """`async with Hops(fleet)`: inside the block every replica of `fleet` is reached through a hop of its own.

    Enter and leave it while nothing runs: the connections of before are closed.
    """

    def __init__(
        self,
        fleet: Fleet,
        on_generate: OnGenerate = lambda replica_id, body: None,
        on_up: OnUp = lambda replica_id: None,
    ) -> None:
        self._fleet = fleet
        self._on_generate = on_generate
        self._on_up = on_up
        self._hops: dict[str, FaultyHop] = {}
        self._open = AsyncExitStack()

    def __getitem__(self, replica_id: str) -> FaultyHop:
        return self._hops[replica_id]

    async def __aenter__(self) -> Hops:
        self._fleet.via = self._between
        for member in self._fleet.members():
            if isinstance(member.upstream, RemoteReplica):
                await self._fleet.put(member.replica_id, member.upstream, weight=member.weight, region=member.region)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fleet.via = None
        for member in self._fleet.members():
            if (hop := self._hops.get(member.replica_id)) is not None:
                direct = RemoteReplica(f"http://{LOOPBACK}:{hop.target_port}")
                await self._fleet.put(member.replica_id, direct, weight=member.weight, region=member.region)
        await self._open.aclose()

    async def _between(self, replica_id: str, upstream: Upstream) -> Upstream:
        if not isinstance(upstream, RemoteReplica):
            return upstream  # not one of ours, or not there yet
        port = int(upstream.url.rpartition(":")[2])
        await upstream.close()
        hop = self._hops.get(replica_id)
        if hop is None:
            hop = FaultyHop(port, lambda body: self._on_generate(replica_id, body))
            self._hops[replica_id] = await self._open.enter_async_context(hop)
        else:
            hop.target_port = port
            self._on_up(replica_id)
        return RemoteReplica(hop.url)
