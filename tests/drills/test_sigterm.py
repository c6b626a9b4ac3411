"""SIGTERM, to a replica under load and to the gateway's process: whoever was let in gets the whole answer."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator

import httpx
import pytest
from drills.rig import DEADLINE_S, SMALL, Rig, rig, until

from miniserve.drills.injector import signal_pid
from miniserve.drills.verdict import Seen, ask_greedily

pytestmark = pytest.mark.anyio

PROMPT = "Once upon a time"
STREAMS, TOKENS = 6, 60


@pytest.fixture
async def two() -> AsyncIterator[Rig]:
    async with rig(SMALL, replicas=2) as one:
        yield one


async def test_a_replica_that_is_told_to_stop_under_load_fails_no_request(two: Rig) -> None:
    """Clients ask again and again, so that requests come at every moment of its drain and of its restart."""
    await two.ready(2)
    expected = await ask_greedily(two.client, two.model, PROMPT, TOKENS)
    answers: list[Seen] = []
    stop = asyncio.Event()

    async def client() -> None:
        while not stop.is_set():
            answers.append(await ask_greedily(two.client, two.model, PROMPT, TOKENS))

    (first, _) = two.stack.supervisor.children
    async with asyncio.TaskGroup() as group:
        for _ in range(STREAMS):
            group.create_task(client())
        await until(lambda: all(view.outstanding for view in two.stack.gateway.fleet.view().replicas))
        signal_pid(two.pid(first.replica_id), signal.SIGTERM)
        await until(lambda: first.restarts == 1 and len(two.living()) == 2)
        stop.set()
    assert len(answers) >= STREAMS
    assert [answer.error for answer in answers if answer.error] == []
    assert all(answer.tokens == expected.tokens and answer.ends == 1 for answer in answers)


async def test_a_gateway_that_is_told_to_stop_finishes_every_accepted_request() -> None:
    command = ["demo", "--model", str(SMALL), "--offline", "--port", "0", "--no-table", "--replicas", "1"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "miniserve", *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            url = (await process.stdout.readline()).decode().split()[1]
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, trust_env=False) as client:
            seen = [Seen() for _ in range(STREAMS)]
            asking = [asyncio.create_task(ask_greedily(client, SMALL.name, PROMPT, 480, one)) for one in seen]
            await until(lambda: all(one.tokens for one in seen))
            assert any(one.ends == 0 for one in seen), "otherwise this proves nothing"
            process.terminate()
            await asyncio.gather(*asking)
        assert [(one.error, one.ends, len(one.tokens)) for one in seen] == [(None, 1, 480)] * STREAMS
        async with asyncio.timeout(DEADLINE_S):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
