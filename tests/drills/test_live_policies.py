"""Hedging, its budget, breakers and panic over real HTTP: scripted engines behind hops that are slow or refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from replica_fixtures import FakeEngine, make_request, until

from miniserve.api.wiring import api_app, served_model
from miniserve.clock import monotonic
from miniserve.config import ApiConfig
from miniserve.drills.faulty_hop import FaultyHop
from miniserve.errors import Overloaded, UpstreamError
from miniserve.gateway.drive import FleetBackend
from miniserve.gateway.fleet import Fleet
from miniserve.gateway.remote import RemoteReplica
from miniserve.policies.bundle import Policies, breakers
from miniserve.policies.recovery.breaker import Breaker
from miniserve.policies.recovery.ejection import Ejector
from miniserve.policies.recovery.retry_budget import RetryBudget
from miniserve.policies.routing.balancer import LeastOutstanding
from miniserve.processes.http_server import HttpServer, bind
from miniserve.replica.local import LocalReplica
from miniserve.replica.server import add_internal_routes, reporter
from miniserve.types import AttemptResult, FinishReason, Request

__all__ = ["make_request", "until"]

pytestmark = pytest.mark.anyio
NEVER_S = 3600.0


@asynccontextmanager
async def scripted(folder: Path, engine: FakeEngine, asked: list[str]) -> AsyncIterator[FaultyHop]:
    """Run a replica with a scripted engine, behind a hop that writes down what is asked."""
    replica = LocalReplica(engine)
    app = api_app(replica, served_model("tiny", folder, max_model_len=512), config=ApiConfig())
    add_internal_routes(app, replica, reporter(replica, monotonic, model="tiny", max_model_len=512))
    replica.start()

    def note(body: dict[str, Any]) -> None:
        asked.append(body["request_id"])

    async with HttpServer(app, bind(0), graceful_s=1.0) as server, FaultyHop(server.port, note) as hop:
        yield hop
        engine.gate.set()
        await replica.close()


class Pair:
    """A gateway in front of two scripted replicas, `a` and `b`."""

    def __init__(self) -> None:
        self.engines = {name: FakeEngine() for name in "ab"}
        self.asked: dict[str, list[str]] = {name: [] for name in "ab"}  # what each was asked, refused or not
        self.hops: dict[str, FaultyHop] = {}
        self.backend: Any = None

    async def ask(self, request: Request) -> list[int]:
        return [token async for event in self.backend.generate(request) for token in event.token_ids]


@asynccontextmanager
async def pair(folder: Path, **policies: Any) -> AsyncIterator[Pair]:
    two = Pair()
    async with AsyncExitStack() as stack:
        for name, engine in two.engines.items():
            two.hops[name] = await stack.enter_async_context(scripted(folder, engine, two.asked[name]))
        fleet = await stack.enter_async_context(Fleet(monotonic, probe_interval_s=NEVER_S))
        for name, hop in two.hops.items():
            await fleet.put(name, RemoteReplica(hop.url))
        two.backend = FleetBackend(fleet, Policies(LeastOutstanding(), **policies))
        yield two


async def test_a_slow_replica_is_hedged_and_the_other_answers(tiny_folder: Path, make_request: Any, until: Any) -> None:
    async with pair(tiny_folder, hedge_after_s=0.05) as two:
        for engine in two.engines.values():
            engine.gate.clear()
        asking = asyncio.create_task(two.ask(make_request("q", 5)))
        await until(lambda: all(engine.running for engine in two.engines.values()))
        two.engines["b"].gate.set()
        assert await asking == [0, 1, 2, 3, 4]
        assert (len(two.asked["a"]), len(two.asked["b"])) == (1, 1)


async def test_without_budget_a_slow_replica_is_waited_for(tiny_folder: Path, make_request: Any) -> None:
    poor = RetryBudget(ratio=0.0, floor_per_s=0.0)
    async with pair(tiny_folder, hedge_after_s=0.01, budget=poor) as two:
        for hop in two.hops.values():
            hop.delay_s = 0.1  # ten times as long as a hedge would wait
        assert await two.ask(make_request("q", 3)) == [0, 1, 2]
        assert len(two.asked["a"] + two.asked["b"]) == 1


async def test_a_breaker_keeps_requests_from_a_replica_that_fails(tiny_folder: Path, make_request: Any) -> None:
    """Its health is fine all the time. Without an ejector, whoever fails is blamed."""
    cautious = breakers(lambda: Breaker(window=4, minimum_calls=2, open_s=NEVER_S, max_open_s=NEVER_S))
    async with pair(tiny_folder, breakers=cautious, ejector=None) as two:
        two.hops["a"].refuses = UpstreamError("broken")
        for number in range(12):
            assert await two.ask(make_request(f"q{number}", 2)) == [0, 1]
        assert len(two.asked["a"]) == 2
        assert cautious["a"].allows(monotonic()) is False


async def test_when_all_are_ejected_all_are_used(tiny_folder: Path, make_request: Any) -> None:
    """Panic: half of a fleet is left out, and no more; then the trouble is probably ours."""
    ejector = Ejector(failures=1)
    async with pair(tiny_folder, ejector=ejector) as two:
        now_s = monotonic()
        for name, other in ("ab", "ba"):
            ejector.record(name, AttemptResult(name, error=UpstreamError("broken")), now_s)
            ejector.record(name, AttemptResult(other, FinishReason.STOP, (1,)), now_s)
        assert ejector.ejected(now_s) == {"a", "b"}
        for number in range(4):
            assert await two.ask(make_request(f"q{number}", 2)) == [0, 1]


async def test_a_full_replica_costs_no_retry(tiny_folder: Path, make_request: Any) -> None:
    poor = RetryBudget(ratio=0.0, floor_per_s=0.0)
    async with pair(tiny_folder, budget=poor) as two:
        two.hops["a"].refuses = Overloaded("no room", retry_after_s=1.0)
        for number in range(6):
            assert await two.ask(make_request(f"q{number}", 2)) == [0, 1]
