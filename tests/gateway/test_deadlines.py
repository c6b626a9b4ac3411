"""A deadline from a client's header to the replica: each of the two stops by itself, by its own clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from miniserve.clock import monotonic
from miniserve.errors import DeadlineExceeded
from miniserve.gateway.fleet import Fleet
from miniserve.gateway.remote import RemoteReplica
from miniserve.processes.http_server import bind
from miniserve.processes.stack import GatewayOptions, running_gateway
from miniserve.replica.local import LocalReplica
from miniserve.replica.wire import encode_request
from miniserve.types import Request

pytestmark = pytest.mark.anyio
BODY = {"model": "tiny", "prompt": "tell me", "max_tokens": 5, "ignore_eos": True}


async def test_a_header_ends_the_answer_and_the_work(
    replica_url: str, engine: Any, tiny_folder: Path, until: Any
) -> None:
    engine.gate.clear()  # no token ever comes
    async with Fleet(monotonic) as fleet:
        await fleet.put("r0", RemoteReplica(replica_url))
        async with (
            running_gateway(GatewayOptions("tiny", tiny_folder), fleet, bind(0)) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=20.0, trust_env=False) as client,
        ):
            in_time = {"x-request-timeout-s": "2"}  # to reach the engine, on a busy machine too
            late = await client.post("/v1/completions", json=BODY, headers=in_time)
            assert late.status_code == 504
            assert late.json()["error"]["type"] == DeadlineExceeded("").type
            engine.gate.set()
            await until(lambda: engine.aborted)
            answer = await client.post("/v1/completions", json=BODY, headers={"x-request-timeout-s": "3600"})
            assert answer.status_code == 200


async def test_a_replica_watches_the_time_itself(
    replica_url: str, engine: Any, make_request: Callable[..., Request], until: Any
) -> None:
    """Its gateway may hang, or be another program: nobody closes the connection here."""
    engine.gate.clear()
    request = replace(make_request(), deadline_s=100.2)
    async with httpx.AsyncClient(base_url=replica_url, timeout=20.0, trust_env=False) as client:
        late = await client.post("/internal/generate", content=encode_request(request, now_s=100.0))
        engine.gate.set()
        await until(lambda: engine.aborted == ["q"])
        assert "deadline" in late.text
        over = await client.post("/internal/generate", content=encode_request(request, now_s=200.0))
        assert over.status_code == 504


async def test_what_is_late_never_reaches_the_engine(engine: Any, make_request: Callable[..., Request]) -> None:
    replica = LocalReplica(engine)
    replica.start()
    try:
        now_s = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceeded):
            await anext(replica.generate(replace(make_request(), deadline_s=now_s)))
        assert [event async for event in replica.generate(replace(make_request(), deadline_s=now_s + 3600))]
        assert engine.aborted == []
    finally:
        await replica.close()
