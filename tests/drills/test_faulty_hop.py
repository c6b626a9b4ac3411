"""The hop: what it passes is unchanged, and each of its faults looks to the gateway like the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from replica_fixtures import FakeEngine, engine, make_request, replica_url, until

from miniserve.drills.faulty_hop import FaultyHop
from miniserve.errors import Overloaded, Unreachable, UpstreamError
from miniserve.faults import AttemptFault
from miniserve.gateway.remote import RemoteReplica
from miniserve.types import FinishReason, Request, TokenEvent

__all__ = ["engine", "make_request", "replica_url", "until"]

pytestmark = pytest.mark.anyio


@pytest.fixture
async def hop(replica_url: str) -> AsyncIterator[FaultyHop]:
    async with FaultyHop(int(replica_url.rpartition(":")[2])) as one:
        yield one


@pytest.fixture
async def replica(hop: FaultyHop) -> AsyncIterator[RemoteReplica]:
    one = RemoteReplica(hop.url)
    yield one
    await one.close()


async def tokens_of(replica: RemoteReplica, request: Request) -> list[TokenEvent]:
    return [event async for event in replica.generate(request)]


async def drain(events: AsyncGenerator[TokenEvent, None]) -> None:
    async for _ in events:
        pass


async def test_what_passes_is_unchanged_and_so_are_reports(replica: RemoteReplica, make_request: Any) -> None:
    for name in "ab":
        events = await tokens_of(replica, make_request(name, max_tokens=4))
        assert [token for event in events for token in event.token_ids] == [0, 1, 2, 3]
        assert events[-1].finish_reason is FinishReason.LENGTH
    assert (await replica.report(5.0)).model == "tiny"


async def test_a_cut_is_a_broken_connection(
    hop: FaultyHop, replica: RemoteReplica, engine: FakeEngine, make_request: Any, until: Any
) -> None:
    events = replica.generate(make_request(max_tokens=10_000))
    await anext(events)
    engine.gate.clear()
    assert hop.cut() == 1
    with pytest.raises(UpstreamError, match="connection to the replica failed"):
        await drain(events)
    engine.gate.set()
    await until(lambda: engine.aborted)


async def test_a_planned_cut_comes_after_so_many_tokens(replica_url: str, make_request: Any) -> None:
    port = int(replica_url.rpartition(":")[2])
    async with FaultyHop(port, lambda body: AttemptFault(3)) as hop:
        replica = RemoteReplica(hop.url)
        events = replica.generate(make_request(max_tokens=10_000))
        assert [(await anext(events)).token_ids for _ in range(3)] == [(0,), (1,), (2,)]
        with pytest.raises(UpstreamError):
            await drain(events)
        await replica.close()


async def test_a_refusal_is_the_replicas_answer(hop: FaultyHop, replica: RemoteReplica, make_request: Any) -> None:
    hop.refuses = Overloaded("no room", retry_after_s=1.0)
    with pytest.raises(Overloaded, match="no room"):
        await tokens_of(replica, make_request())
    assert (await replica.report(5.0)).model == "tiny", "its health is fine"
    hop.heal()
    assert await tokens_of(replica, make_request("again"))


async def test_in_a_partition_all_is_silent_and_afterwards_all_is_well(
    hop: FaultyHop, replica: RemoteReplica, make_request: Any
) -> None:
    hop.swallow()
    impatient = RemoteReplica(hop.url, silence_timeout_s=0.05)
    with pytest.raises(UpstreamError, match="silent"):
        await tokens_of(impatient, make_request())
    await impatient.close()
    with pytest.raises(UpstreamError, match="no report"):
        await replica.report(0.05)
    hop.heal()
    assert await tokens_of(replica, make_request("again"))


async def test_a_replica_that_is_gone_is_a_broken_connection(make_request: Any) -> None:
    async with FaultyHop(1) as hop:  # nobody listens there
        replica = RemoteReplica(hop.url)
        with pytest.raises(UpstreamError):
            await tokens_of(replica, make_request())
        await replica.close()
    replica = RemoteReplica(hop.url)
    with pytest.raises(Unreachable):
        await tokens_of(replica, make_request())
    await replica.close()


async def test_a_delay_is_waited_for(hop: FaultyHop, replica: RemoteReplica, make_request: Any) -> None:
    hop.delay_s = 0.05
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    assert await tokens_of(replica, make_request())
    assert loop.time() - started_at >= 0.05


async def test_a_client_that_leaves_stops_the_work_behind_the_hop(
    replica: RemoteReplica, engine: FakeEngine, make_request: Any, until: Any
) -> None:
    events = replica.generate(make_request(max_tokens=10_000))
    await anext(events)
    engine.gate.clear()
    await events.aclose()
    engine.gate.set()
    await until(lambda: engine.aborted)
