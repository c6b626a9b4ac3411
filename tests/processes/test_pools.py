"""Pools of real processes: drained by a signal or by us, scaled by an autoscaler, broken, and out of memory."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from miniserve.control.autoscaler import Reactive
from miniserve.control.steady import Steady
from miniserve.errors import SetupError
from miniserve.gateway.fleet import Fleet
from miniserve.processes.http_server import bind
from miniserve.processes.pools import Pool, Pools
from miniserve.processes.stack import GatewayOptions, Scaling, Stack, running_pools
from miniserve.types import ReplicaState

pytestmark = pytest.mark.anyio

ARGUMENTS = ("--offline", "--threads", "1", "--log-level", "warning")
TOKENS = 120
DEADLINE_S = 170.0  # what is waited for here are cold starts, on a machine that may have much else to do


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """As everywhere, with more patience."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 -- the condition is another process's
                await asyncio.sleep(0.01)

    return wait


@asynccontextmanager
async def stack_of(pools: Sequence[Pool], **options: Any) -> AsyncIterator[tuple[Stack, httpx.AsyncClient]]:
    gateway = GatewayOptions(pools[0].served_name, pools[0].folder, drain_timeout_s=60.0)
    async with (
        running_pools(gateway, pools, bind(0), **options) as stack,
        httpx.AsyncClient(base_url=stack.url, timeout=120.0, trust_env=False) as client,
    ):
        yield stack, client


async def ask(client: httpx.AsyncClient, model: str = "tiny", max_tokens: int = TOKENS) -> int:
    body = {"model": model, "prompt": "Once", "temperature": 0, "max_tokens": max_tokens, "ignore_eos": True}
    answer = await client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    tokens: int = answer.json()["usage"]["completion_tokens"]
    return tokens


def ask_many(client: httpx.AsyncClient, requests: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(ask(client)) for _ in range(requests)]


def outstanding(stack: Stack, replica_id: str) -> int:
    return next((one.outstanding for one in stack.gateway.fleet.view().replicas if one.replica_id == replica_id), 0)


async def test_a_replica_that_drains_loses_nothing_whoever_asked_for_it(long_folder: Path, until: Any) -> None:
    """First by a signal from outside: it comes back. Then by us: it leaves for good."""
    async with stack_of([Pool("tiny", long_folder, replicas=2, arguments=ARGUMENTS)]) as (stack, client):
        fleet, supervisor = stack.gateway.fleet, stack.supervisor
        first = supervisor.children[1].pid
        assert first is not None
        asked = ask_many(client, 8)
        await until(lambda: outstanding(stack, "tiny-1"))
        os.kill(first, signal.SIGTERM)
        asked += ask_many(client, 8)
        assert await asyncio.gather(*asked) == [TOKENS] * 16
        await until(lambda: supervisor.children[1].restarts == 1 and len(fleet.view().ready()) == 2)
        ejector = stack.gateway.backend.policies.ejector
        assert ejector is not None
        await until(lambda: not ejector.ejected(fleet.clock()))  # which the next tick ends
        assert supervisor.children[1].pid != first
        assert supervisor.children[1].start_s is not None

        asked = ask_many(client, 8)
        await until(lambda: outstanding(stack, "tiny-1"))
        stack.pools.drain("tiny-1")
        states = {view.replica_id: view.state for view in fleet.view().replicas}
        assert states == {"tiny-0": ReplicaState.READY, "tiny-1": ReplicaState.DRAINING}
        asked += ask_many(client, 8)
        assert await asyncio.gather(*asked) == [TOKENS] * 16
        await until(lambda: [child.replica_id for child in supervisor.children] == ["tiny-0"])
        await until(lambda: [view.replica_id for view in fleet.view().replicas] == ["tiny-0"])


async def test_a_paced_pool_grows_with_its_load_and_shrinks_after_it(tiny_folder: Path, until: Any) -> None:
    autoscaler = Steady(Reactive(target=2), min_replicas=1, max_replicas=2, down_after_s=1.0)
    pool = Pool("tiny", tiny_folder, "1", pace="base_s=0.02", arguments=ARGUMENTS)
    async with stack_of([pool], scaling=[Scaling(autoscaler, "tiny@1", 0.5)]) as (stack, client):
        is_asked, answered = True, 0

        async def keep_asking() -> None:
            nonlocal answered
            while is_asked:
                assert await ask(client, max_tokens=40) == 40
                answered += 1

        callers = [asyncio.create_task(keep_asking()) for _ in range(6)]
        await until(lambda: outstanding(stack, "tiny@1-1"))
        is_asked = False
        await asyncio.gather(*callers)
        await until(lambda: len(stack.supervisor.children) == 1)  # whichever had less to do
        sizes = stack.scaling["tiny@1"].sizes
        assert max(size.ready for size in sizes) == 2
        assert answered >= 6
        assert await ask(client) == TOKENS
        (report,) = [member.report for member in stack.gateway.fleet.members()]
        assert report is not None
        assert report.stats.paced_steps > 0


async def test_a_version_that_does_not_load_is_left_out_and_the_others_serve(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, until: Any
) -> None:
    """At the start, and when a replica of it is asked for later."""
    good = Pool("tiny", tiny_folder, "1", arguments=ARGUMENTS)
    bad = Pool("tiny", tmp_path / "absent", "2", arguments=ARGUMENTS)
    async with stack_of([good, bad]) as (stack, client):
        assert "replica tiny@2-0 exited with code 2 before it was ready" in caplog.text
        assert "the other models are served without it" in caplog.text
        assert await ask(client) == TOKENS

        stack.pools.pools = (good, replace(bad, folder=tiny_folder, arguments=("--no-such-option",)))
        stack.pools.start("tiny@2-1")
        assert [view.state for view in stack.gateway.fleet.view().replicas][1] is ReplicaState.STARTING
        await until(lambda: "the other replicas go on" in caplog.text)
        await until(lambda: len(stack.gateway.fleet.view().replicas) == 1)
        assert await ask(client) == TOKENS


async def test_a_replica_that_memory_has_no_room_for_is_refused_in_the_log(
    tiny_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Fleet(asyncio.get_running_loop().time) as fleet:
        pool = Pool("tiny", tiny_folder)
        async with Pools(fleet, [pool], drain_timeout_s=1.0, available_bytes=lambda: 1 << 20) as pools:
            with caplog.at_level(logging.ERROR):
                pools.start("tiny-3")
        assert fleet.view().replicas == ()
        assert "no further replica of tiny: 1 replicas need about" in caplog.text


def test_pools_that_make_no_sense_are_refused(tiny_folder: Path) -> None:
    for settings in ({"replicas": -1}, {"weight": 0.0}, {"nice": 20}):
        with pytest.raises(SetupError, match="pool tiny@1: replicas"):
            Pool("tiny", tiny_folder, "1", **settings)
    pools = Pools(Fleet(lambda: 0.0), [Pool("tiny", tiny_folder, "1")], drain_timeout_s=1.0)
    for replica_id in ("tiny-0", "tiny@1-x", "tiny@10-1"):
        with pytest.raises(SetupError, match=r"no pool has a replica .*; there are tiny@1-"):
            pools.start(replica_id)
    with pytest.raises(SetupError, match=r"there is no pool 'tiny@2'; there are tiny@1"):
        pools.named("tiny@2")
