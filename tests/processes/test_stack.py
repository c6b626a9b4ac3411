"""The whole stack with the tiny model: real processes, real HTTP, and the ways in which any of them can go away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from miniserve.processes.http_server import bind
from miniserve.processes.stack import GatewayOptions, Stack, running_stack
from miniserve.replica.wire import ReplicaReport

pytestmark = pytest.mark.anyio

PROMPT = {"model": "tiny", "prompt": "Once upon a time", "temperature": 0}


@asynccontextmanager
async def stack_of(folder: Path, replicas: int) -> AsyncIterator[tuple[Stack, httpx.AsyncClient]]:
    options = GatewayOptions("tiny", folder, drain_timeout_s=20.0)
    more = ["--offline", "--threads", "1"]
    async with (
        running_stack(options, bind(0), replicas=replicas, replica_arguments=more) as stack,
        httpx.AsyncClient(base_url=stack.url, timeout=60.0, trust_env=False) as client,
    ):
        yield stack, client


async def report_of(stack: Stack, index: int = 0) -> ReplicaReport:
    return await stack.gateway.fleet.members()[index].upstream.report(timeout_s=10.0)


async def eventually(stack: Stack, condition: Any) -> ReplicaReport:
    """Ask the replica for its report until `condition(report)` holds."""
    async with asyncio.timeout(30.0):
        while not condition(report := await report_of(stack)):
            pass
    return report


async def test_disconnecting_frees_all_blocks_streaming_or_not(long_folder: Path) -> None:
    """An answer of 8,000 tokens takes many seconds; its client leaves as soon as it runs."""
    endless = {**PROMPT, "max_tokens": 4000, "ignore_eos": True}
    async with stack_of(long_folder, replicas=1) as (stack, client):
        async with client.stream("POST", "/v1/completions", json={**endless, "stream": True}) as response:
            assert response.status_code == 200
            await anext(response.aiter_raw())
        streamed = await eventually(stack, lambda report: report.stats.running == 0)
        assert (streamed.stats.blocks_used, streamed.stats.counters.finished.get("abort")) == (0, 1)

        waiting = asyncio.create_task(client.post("/v1/completions", json=endless))
        await eventually(stack, lambda report: report.stats.running == 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        plain = await eventually(stack, lambda report: report.stats.running == 0)
        assert (plain.stats.blocks_used, plain.stats.counters.finished.get("abort")) == (0, 2)
        assert plain.max_abort_lag_steps <= 2, "engine steps between an abort's being asked for and its being done"
        assert stack.gateway.recent.in_flight == 0

        again = await client.post("/v1/completions", json={**PROMPT, "max_tokens": 4})
        assert again.status_code == 200


async def test_a_replica_killed_before_the_first_token_is_replaced_by_the_other(long_folder: Path, until: Any) -> None:
    """Both are stopped in their tracks, so that the request is on its way without an answer when its replica dies."""
    async with stack_of(long_folder, replicas=2) as (stack, client):
        answer = await client.post("/v1/completions", json={**PROMPT, "max_tokens": 8, "ignore_eos": True})
        expected = answer.json()["choices"][0]["text"]
        pids = {child.replica_id: child.pid for child in stack.supervisor.children}
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
        try:
            task = asyncio.create_task(
                client.post("/v1/completions", json={**PROMPT, "max_tokens": 8, "ignore_eos": True})
            )
            await until(lambda: any(view.outstanding for view in stack.gateway.fleet.view().replicas))
            (victim,) = [view.replica_id for view in stack.gateway.fleet.view().replicas if view.outstanding]
            os.kill(pids.pop(victim), signal.SIGKILL)
        finally:
            for pid in pids.values():
                os.kill(pid, signal.SIGCONT)
        answer = await task
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["text"] == expected
        await until(lambda: sum(child.restarts for child in stack.supervisor.children) == 1)
        await until(lambda: len(stack.gateway.fleet.view().ready()) == 2)


async def test_leaving_the_block_finishes_the_stream_in_flight(long_folder: Path) -> None:
    """The replica is held still until draining has begun, so the stream cannot be over before it."""
    texts: list[str] = []
    async with stack_of(long_folder, replicas=1) as (stack, _):
        pid = stack.supervisor.children[0].pid
        assert pid is not None
        first = asyncio.Event()

        async def read() -> None:
            body = {**PROMPT, "max_tokens": 300, "ignore_eos": True, "stream": True}
            async with (
                httpx.AsyncClient(base_url=stack.url, timeout=60.0, trust_env=False) as client,
                client.stream("POST", "/v1/completions", json=body) as response,
            ):
                async for line in response.aiter_lines():
                    first.set()
                    if line:
                        texts.append(line.removeprefix("data: "))

        reading = asyncio.create_task(read())
        await first.wait()
        os.kill(pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(0.3, os.kill, pid, signal.SIGCONT)
    await reading
    assert texts[-1] == "[DONE]"
    assert json.loads(texts[-2])["choices"][0]["finish_reason"] == "length"
    assert not psutil.pid_exists(pid)
