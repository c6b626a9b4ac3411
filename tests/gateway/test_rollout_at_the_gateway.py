"""A rollout over HTTP replicas that run elsewhere: shares, pins and copies, as clients of a whole gateway see them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from replica_fixtures import FakeEngine

from miniserve.clock import monotonic
from miniserve.gateway.fleet import Fleet
from miniserve.operations.admin import TOKEN_HEADER, kept_token
from miniserve.operations.rollout import RolloutPart
from miniserve.operations.workplace import MakePart
from miniserve.processes.backends import connect
from miniserve.processes.http_server import bind
from miniserve.processes.stack import Gateway, GatewayOptions, running_gateway
from tests.gateway.test_pools_at_the_gateway import replica

pytestmark = pytest.mark.anyio


@dataclass
class Running:
    gateway: Gateway
    client: httpx.AsyncClient
    engines: dict[str, FakeEngine]

    async def ask(self, model: str = "large", user: str | None = None) -> httpx.Response:
        body = {"model": model, "prompt": "hi", "max_tokens": 3, "temperature": 0}
        return await self.client.post("/v1/completions", json={**body, **({"user": user} if user else {})})

    async def press(self, action: str, **fields: object) -> httpx.Response:
        return await self.client.post("/admin/rollout", json={"action": action, **fields})

    async def told(self) -> dict[str, Any]:
        section: dict[str, Any] = (await self.client.get("/status")).json()["rollout"]
        return section

    async def until(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        async with asyncio.timeout(30.0):
            while not condition(told := await self.told()):  # noqa: ASYNC110 -- the gateway's own loop
                await asyncio.sleep(0.01)
        return told


@pytest.fixture
async def running(tiny_folder: Path, tmp_path: Path) -> AsyncIterator[Running]:
    async with started(tiny_folder, tmp_path) as running:
        yield running


@asynccontextmanager
async def started(folder: Path, state: Path, part: MakePart = RolloutPart) -> AsyncIterator[Running]:
    """Two versions of one model, a replica each; operations have just the one part."""
    async with AsyncExitStack() as up:
        engines = {name: FakeEngine() for name in ("large@1", "large@2")}
        urls = [await up.enter_async_context(replica(folder, name, 512, one)) for name, one in engines.items()]
        fleet = await up.enter_async_context(Fleet(monotonic, tick_interval_s=0.05))
        await connect(fleet, urls, 10.0)
        options = GatewayOptions("large@1", folder, more_models={"large@2": folder}, parts=[part], state_dir=state)
        gateway = await up.enter_async_context(running_gateway(options, fleet, up.enter_context(bind(0))))
        headers = {TOKEN_HEADER: kept_token(state)}
        client = httpx.AsyncClient(base_url=gateway.url, timeout=20.0, trust_env=False, headers=headers)
        yield Running(gateway, await up.enter_async_context(client), engines)


async def test_shares_move_users_and_never_a_pin(running: Running) -> None:
    assert (await running.press("start", new="large@2", shares=[0.5, 1.0], min_answers=10**6)).status_code == 409
    begun = await running.press(
        "start", new="large@2", old="large@1", shares=[0.5, 1.0], min_answers=10**6, without_eval=True
    )
    assert begun.status_code == 200, begun.text
    await running.until(lambda told: told["phase"] == "running")
    seen: dict[str, Counter[str]] = {}
    for _ in range(2):
        for user in range(40):
            answer = await running.ask(user=f"user-{user}")
            seen.setdefault(f"user-{user}", Counter())[answer.headers["x-miniserve-model"]] += 1
    assert all(len(versions) == 1 for versions in seen.values()), "users stick"
    assert 5 < sum("large@2" in versions for versions in seen.values()) < 35
    assert {(await running.ask("large@1")).headers["x-miniserve-model"] for _ in range(20)} == {"large@1"}

    assert (await running.press("promote")).status_code == 200
    assert {(await running.ask()).headers["x-miniserve-model"] for _ in range(20)} == {"large@2"}
    assert (await running.ask("large@1")).headers["x-miniserve-model"] == "large@1"
    assert (await running.press("rollback")).status_code == 200
    assert {(await running.ask()).headers["x-miniserve-model"] for _ in range(20)} == {"large@1"}


async def test_copies_change_no_answer_no_bill_and_no_count_of_the_gateways(running: Running) -> None:
    before = (await running.ask("large@1")).json()
    told = await running.press(
        "start", new="large@2", old="large@1", strategy="shadow", mirror=1.0, min_answers=5, without_eval=True
    )
    assert told.status_code == 200, told.text
    await running.until(lambda told: told["mirror"] == 1.0)
    counts = running.gateway.backend.counts
    attempts = counts.total("attempts")
    running.engines["large@2"].fail_steps = 2  # two copies break
    answers = []
    for copies in range(1, 6):
        answers.append(await running.ask())
        told_of = await running.until(lambda told, n=copies: (told["shadow"] or {}).get("copies") == n)
    assert [answer.status_code for answer in answers] == [200] * 5
    for answer in answers:
        body = answer.json()
        assert (body["choices"], body["usage"]) == (before["choices"], before["usage"])
        assert answer.headers["x-miniserve-model"] == "large@1"
    shadow = told_of["shadow"]
    assert (shadow["copies"], shadow["errors"], shadow["same_text_share"], shadow["skipped"]) == (5, 2, 1.0, 0)
    assert counts.total("attempts") - attempts == 5, "the gateway's own attempts are the clients'"
    assert (counts.total("retries"), running.gateway.recent.failed) == (0, 0)
    assert running.gateway.backend.requests["large"] == 5
    end = await running.until(lambda told: told["phase"] == "done")
    assert (end["share"], end["counts"]["errors"]["new"]) == (0.0, {"bad": 2, "of": 5})
