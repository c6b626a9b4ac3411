"""A replica that dies in the middle of an answer: what counts is what has left the gateway, not what was generated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from api.conftest import ByteTokenizer

from miniserve.api.backend import ServedModel
from miniserve.api.wiring import api_app
from miniserve.clock import ManualClock
from miniserve.config import ApiConfig
from miniserve.engine.stats import EngineStats
from miniserve.errors import InternalError, UpstreamError, broke_off
from miniserve.gateway.drive import FleetBackend
from miniserve.gateway.fleet import Fleet
from miniserve.policies.bundle import Policies
from miniserve.policies.routing.balancer import LeastOutstanding
from miniserve.replica.wire import ReplicaReport, decode_request, encode_request
from miniserve.types import FinishReason, ReplicaState, Request, TokenEvent

pytestmark = pytest.mark.anyio
TEXT = b"once upon a time"
BODY = {"model": "tiny", "prompt": "tell me", "max_tokens": len(TEXT)}


@dataclass
class Teller:
    """Says `TEXT` from where the request stands; the first one to be asked dies after `dies_after` tokens."""

    dies_after: list[int]  # shared by all, and emptied by the first
    error: Exception = field(default_factory=broke_off)
    dies_seen: bool = False  # not before something has gone out to the client

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        left = self.dies_after.pop() if self.dies_after else len(TEXT) + 1
        for at in range(len(request.resume_ids), len(TEXT)):
            if left == 0:
                while self.dies_seen and request.seen is not None and not request.seen():  # noqa: ASYNC110 -- no event
                    await asyncio.sleep(0)  # let the gateway send
                raise self.error
            left -= 1
            yield TokenEvent(request.request_id, (TEXT[at],), FinishReason.LENGTH if at == len(TEXT) - 1 else None)

    async def report(self, timeout_s: float) -> ReplicaReport:
        return ReplicaReport(1, "tiny", ReplicaState.READY, 1.0, 1, 512, EngineStats())

    async def close(self) -> None: ...


@asynccontextmanager
async def gateway(
    dies_after: int, error: Exception | None = None, *, dies_seen: bool = False, resume: bool = True
) -> AsyncIterator[httpx.AsyncClient]:
    deaths = [dies_after]
    async with Fleet(ManualClock(5.0), probe_interval_s=60.0) as fleet:
        for name in "ab":
            await fleet.put(name, Teller(deaths, error or broke_off(), dies_seen))
        model = ServedModel("tiny", ByteTokenizer(), 512, 0)
        app = api_app(FleetBackend(fleet, Policies(LeastOutstanding(), resume=resume)), model, config=ApiConfig())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            yield client
    assert deaths == [], "otherwise this proves nothing"


@pytest.mark.parametrize("dies_after", [0, 1, 7, len(TEXT) - 1])
@pytest.mark.parametrize("error", [broke_off(), UpstreamError("the replica was silent for 10 s"), InternalError("bug")])
async def test_an_answer_without_streaming_is_continued_at_whatever_token_its_replica_dies(
    dies_after: int, error: Exception
) -> None:
    async with gateway(dies_after, error) as client:
        answer = await client.post("/v1/completions", json=BODY)
    assert answer.status_code == 200
    told = answer.json()
    assert told["choices"][0]["text"].encode() == TEXT
    assert told["usage"]["completion_tokens"] == len(TEXT), "counted once"


async def test_a_chat_and_several_prompts_are_no_different() -> None:
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": len(TEXT)}
    async with gateway(5) as client:
        answer = await client.post("/v1/chat/completions", json=chat)
        assert answer.json()["choices"][0]["message"]["content"].encode() == TEXT
    async with gateway(5) as client:
        answer = await client.post("/v1/completions", json={**BODY, "prompt": ["a", "b"]})
        assert [choice["text"].encode() for choice in answer.json()["choices"]] == [TEXT, TEXT]


def events_of(text: str) -> list[Any]:
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(one) for one in data if one != "[DONE]"]


async def test_a_stream_whose_text_is_still_held_back_is_continued() -> None:
    """`once` may be the beginning of the stop string, so not a byte of it has gone out."""
    async with gateway(4) as client:
        answer = await client.post("/v1/completions", json={**BODY, "stream": True, "stop": "once more"})
    events = events_of(answer.text)
    assert "".join(event["choices"][0]["text"] for event in events).encode() == TEXT


async def test_a_stream_that_has_begun_is_continued() -> None:
    async with gateway(4, dies_seen=True) as client:
        answer = await client.post("/v1/completions", json={**BODY, "stream": True})
    assert "".join(event["choices"][0]["text"] for event in events_of(answer.text)).encode() == TEXT
    assert answer.text.count("[DONE]") == 1


async def test_without_resuming_a_stream_that_has_begun_ends_with_the_error() -> None:
    async with gateway(4, dies_seen=True, resume=False) as client:
        answer = await client.post("/v1/completions", json={**BODY, "stream": True})
    events = events_of(answer.text)
    assert events[-1]["error"]["type"] == "upstream_error"
    assert "".join(event["choices"][0]["text"] for event in events[:-1]) == "once"


def test_what_the_client_has_seen_is_no_matter_of_the_replicas() -> None:
    request = Request("q", "m", (1, 2), seen=lambda: False)
    assert b"seen" not in encode_request(request, 0.0)
    assert decode_request(encode_request(request, 0.0), 0.0).seen is None
