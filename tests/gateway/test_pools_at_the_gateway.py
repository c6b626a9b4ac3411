"""The whole gateway over HTTP replicas of several models and versions: what options and tables say, happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from replica_fixtures import FakeEngine

from miniserve.api.wiring import api_app, served_model
from miniserve.clock import monotonic
from miniserve.config import ApiConfig
from miniserve.control.degrade import Degradation
from miniserve.errors import SetupError
from miniserve.gateway.fleet import Fleet
from miniserve.policies.routing.model_names import ModelRouting
from miniserve.processes.backends import connect
from miniserve.processes.http_server import HttpServer, bind
from miniserve.processes.stack import GatewayOptions, running_gateway
from miniserve.replica.local import LocalReplica
from miniserve.replica.server import add_internal_routes, reporter
from miniserve.scenario.models import ModelRule, model_routing

pytestmark = pytest.mark.anyio
REPLICAS = {"small": 512, "large@1": 512, "large@2": 300}  # name -> context


@asynccontextmanager
async def replica(folder: Path, name: str, context: int, engine: FakeEngine) -> AsyncIterator[str]:
    """Serve a scripted engine as a replica of `name`; yield its URL."""
    local = LocalReplica(engine)
    model = served_model(name, folder, context)
    app = api_app(local, model, config=ApiConfig(), engine_stats=local.stats)
    add_internal_routes(app, local, reporter(local, monotonic, model=name, max_model_len=context))
    local.start()
    async with HttpServer(app, bind(0), graceful_s=1.0) as server:
        try:
            yield server.url
        finally:
            engine.gate.set()
            await local.close()


@asynccontextmanager
async def gateway(
    folder: Path, told: Sequence[str] = ("large@1", "large@2"), held: FakeEngine | None = None, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Start a replica of each model and a gateway before them; `held` is the engine of large@2."""
    async with AsyncExitStack() as up:
        urls = []
        for name, size in REPLICAS.items():
            engine = held if held is not None and name == "large@2" else FakeEngine()
            urls.append(await up.enter_async_context(replica(folder, name, size, engine)))
        fleet = await up.enter_async_context(Fleet(monotonic))
        await connect(fleet, urls, 10.0)
        settings = GatewayOptions("small", folder, more_models=dict.fromkeys(told, folder), **options)
        sock = up.enter_context(bind(0))
        running = await up.enter_async_context(running_gateway(settings, fleet, sock))
        yield await up.enter_async_context(httpx.AsyncClient(base_url=running.url, timeout=20.0, trust_env=False))


async def ask(client: httpx.AsyncClient, **fields: object) -> httpx.Response:
    return await client.post("/v1/completions", json={"prompt": "hi", "max_tokens": 3, **fields})


async def test_names_pins_aliases_and_rules_reach_their_replicas(tiny_folder: Path) -> None:
    rules = {"auto": ModelRule("heuristic", "small", "large"), "careful": ModelRule("cascade", "small", "large", -1.0)}
    routing = model_routing({"gpt-4o-mini": "small", **rules}, {"large@1": "2026-12-01"})
    async with gateway(tiny_folder, routing=routing) as client:
        names = [card["id"] for card in (await client.get("/v1/models")).json()["data"]]
        assert names == ["small", "large", "large@1", "large@2", "gpt-4o-mini", "auto", "careful"]
        lengths = {card["id"]: card["max_model_len"] for card in (await client.get("/v1/models")).json()["data"]}
        assert (lengths["small"], lengths["large"], lengths["careful"]) == (512, 300, 300)
        expected = {
            "small": {"small"},
            "gpt-4o-mini": {"small"},
            "auto": {"small"},
            "large@1": {"large@1"},
            "large@2": {"large@2"},
            "large": {"large@1", "large@2"},
            "careful": {"large@1", "large@2"},  # the scripted engine gives no log-probabilities, so it is never sure
        }
        for name, allowed in expected.items():
            answer = await ask(client, model=name)
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-miniserve-model"] in allowed
            assert ("deprecation" in answer.headers) == (name == "large@1")
        hard = await ask(client, model="auto", prompt="Explain why, and then compare 12345 and 67890: which is more?")
        assert hard.json()["model"] == "large"
        assert (await ask(client, model="large@3")).status_code == 404


async def test_a_ladder_from_the_options_is_ticked_and_treats_requests(tiny_folder: Path) -> None:
    ladder = Degradation(1.0, {"large": "small"}, max_tokens=2, enter=(0.2, 0.3, 10.0, 11.0, 12.0), gap=0.1, hold_s=1e6)
    engine = FakeEngine()
    async with gateway(tiny_folder, held=engine, degradation=ladder) as client:
        assert "x-miniserve-degraded" not in (await ask(client, model="large@1")).headers
        engine.gate.clear()
        stuck = asyncio.create_task(ask(client, model="large@2"))  # one of three replicas is at its capacity
        async with asyncio.timeout(20.0):
            while "x-miniserve-degraded" not in (answer := await ask(client, model="large@1")).headers:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert answer.headers["x-miniserve-degraded"] == "short-answer", "a pin keeps its version"
        assert answer.json()["usage"]["completion_tokens"] == 2
        answer = await ask(client, model="large")
        assert answer.headers["x-miniserve-degraded"] == "small-model,short-answer"
        assert answer.headers["x-miniserve-model"] == "small"
        engine.gate.set()
        assert (await stuck).headers["x-miniserve-model"] == "large@2", "what was sent before stays as it was"


async def test_a_replica_of_a_model_that_nobody_was_told_of_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(SetupError, match="told to serve small, large@1, but a replica serves large@2"):
        async with gateway(tiny_folder, ["large@1"]):
            pass


async def test_a_model_without_replicas_yet_is_offered_with_the_context_of_its_files(tiny_folder: Path) -> None:
    async with gateway(tiny_folder, ["large@1", "large@2", "huge"], routing=ModelRouting()) as client:
        assert (await client.get("/v1/models/huge")).json()["max_model_len"] > 0
        answer = await ask(client, model="huge")
    assert answer.status_code == 503
    assert answer.json()["error"]["message"].startswith("no replica of huge is ready (0 of 0)")
    assert answer.headers["retry-after"] == "1"
