"""RemoteReplica against a real server on loopback: tokens, errors, and every way in which a connection can end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import pytest

from miniserve.api.errors import error_response
from miniserve.clock import ManualClock
from miniserve.engine.stats import EngineStats
from miniserve.errors import (
    InvalidRequest,
    Overloaded,
    RequestError,
    Unreachable,
    UpstreamError,
    broke_off,
    no_connection,
)
from miniserve.gateway.drive import FleetBackend
from miniserve.gateway.fleet import Fleet
from miniserve.gateway.remote import RemoteReplica
from miniserve.policies.routing.balancer import LeastOutstanding
from miniserve.replica.wire import ReplicaReport, decode_error, encode_token_event
from miniserve.types import FinishReason, ReplicaState, Request, TokenEvent

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
TOKEN = f"data: {encode_token_event(TokenEvent('q', (5,)))}\n\n".encode()


async def collect(replica: RemoteReplica, request: Request) -> list[int]:
    return [token async for event in replica.generate(request) for token in event.token_ids]


@asynccontextmanager
async def remote(url: str, **options: Any) -> AsyncIterator[RemoteReplica]:
    replica = RemoteReplica(url, **options)
    try:
        yield replica
    finally:
        await replica.close()


@asynccontextmanager
async def peer(answer: bytes, *, then_close: bool = True) -> AsyncIterator[str]:
    """A server that reads a request's head, sends `answer`, and closes or falls silent."""
    done = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if not then_close:
            await done.wait()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        done.set()


async def test_tokens_come_through(replica_url: str, make_request: Callable[..., Request]) -> None:
    async with remote(replica_url) as replica:
        events = [event async for event in replica.generate(make_request(max_tokens=4))]
    assert [event.token_ids for event in events] == [(0,), (1,), (2,), (3,)]
    assert events[-1].finish_reason is FinishReason.LENGTH


async def test_many_streams_at_once(replica_url: str, make_request: Callable[..., Request]) -> None:
    async with remote(replica_url) as replica:
        answers = await asyncio.gather(*(collect(replica, make_request(f"q{n}", n)) for n in range(1, 8)))
    assert answers == [list(range(n)) for n in range(1, 8)]


async def test_one_connection_serves_one_request_after_another(make_request: Callable[..., Request]) -> None:
    """Each answer is read to its end, so the connection can be used again."""
    last = f"data: {encode_token_event(TokenEvent('q', (5,), FinishReason.STOP))}\n\n".encode()
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(last), last)
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError):  # until the client is done with it
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
                writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n" + body)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server, remote(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as replica:
        for _ in range(3):
            assert await collect(replica, make_request()) == [5]
    assert connections == 1


async def test_leaving_early_aborts_the_work_there(
    engine: Any, replica_url: str, make_request: Callable[..., Request], until: Any
) -> None:
    async with remote(replica_url) as replica:
        async with aclosing(replica.generate(make_request(max_tokens=10_000_000))) as events:
            await anext(events)
        await until(lambda: engine.aborted == ["q"])
        report = await replica.report(timeout_s=5.0)
    assert report.max_abort_lag_steps <= 2


async def test_cancelling_while_nothing_has_come_aborts_too(
    engine: Any, replica_url: str, make_request: Callable[..., Request], until: Any
) -> None:
    engine.gate.clear()
    async with remote(replica_url) as replica:
        task = asyncio.create_task(collect(replica, make_request(max_tokens=10_000_000)))
        await until(lambda: engine.running)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        engine.gate.set()
        await until(lambda: engine.aborted == ["q"])


async def test_the_replicas_own_refusal_arrives_as_itself(
    engine: Any, replica_url: str, make_request: Callable[..., Request]
) -> None:
    engine.max_running = 0
    async with remote(replica_url) as replica:
        with pytest.raises(Overloaded, match="queue is full") as refused:
            await collect(replica, make_request())
        assert refused.value.retry_after_s == 2.0


async def test_an_error_after_the_first_token_arrives_inside_the_stream(
    engine: Any, replica_url: str, make_request: Callable[..., Request]
) -> None:
    async with (
        remote(replica_url) as replica,
        aclosing(replica.generate(make_request(max_tokens=10_000_000))) as events,
    ):
        await anext(events)
        engine.fail_steps = 1
        with pytest.raises(RequestError, match="engine failed"):
            async for _ in events:
                pass


async def test_a_body_that_is_no_request_is_refused_by_field(replica_url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        body = b'{"request_id": "q", "model": "m", "prompt_ids": "hello"}'
        response = await client.post(f"{replica_url}/internal/generate", content=body)
    assert response.status_code == 400
    error = decode_error(400, response.content)
    assert isinstance(error, InvalidRequest)
    assert "prompt_ids" in str(error)


async def test_the_report_tells_the_process_and_the_engine(
    replica_url: str, make_request: Callable[..., Request]
) -> None:
    async with remote(replica_url) as replica:
        await collect(replica, make_request(max_tokens=3))
        report = await replica.report(timeout_s=5.0)
    assert (report.state, report.model, report.max_model_len) == (ReplicaState.READY, "tiny", 512)
    stats, counters = report.stats, report.stats.counters
    assert (counters.steps, stats.running, stats.blocks_used, counters.finished["length"]) == (3, 0, 0, 1)


async def test_a_refused_connection_is_an_upstream_error(make_request: Callable[..., Request]) -> None:
    with socket.socket() as taken:  # bound but not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        async with remote(f"http://127.0.0.1:{taken.getsockname()[1]}") as replica:
            with pytest.raises(UpstreamError, match="no connection to the replica") as refused:
                await collect(replica, make_request())
            assert type(refused.value) is Unreachable, "no request can be to blame for this one"
            assert refused.value.code == "unreachable"
            assert refused.value.args == no_connection().args, "as in a simulation"
            with pytest.raises(UpstreamError, match="no report"):
                await replica.report(timeout_s=5.0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "failed"),  # closed without a word
        (HEAD + b"content-length: 1000\r\n\r\n" + TOKEN, "failed"),  # cut in the middle of the body
        (HEAD + b"connection: close\r\n\r\n" + TOKEN, "before it was complete"),  # ended well, but without a last event
        (HEAD + b"connection: close\r\n\r\ndata: nonsense\n\n", "no token event"),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "answered 502"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "failed"),
    ],
)
async def test_a_broken_answer_is_a_retryable_upstream_error(
    answer: bytes, message: str, make_request: Callable[..., Request]
) -> None:
    async with peer(answer) as url, remote(url) as replica:
        with pytest.raises(UpstreamError, match=message) as broken:
            await collect(replica, make_request())
    assert broken.value.retryable
    assert type(broken.value) is UpstreamError, "a request may be to blame for this one"
    assert broken.value.args == broke_off().args or message != "failed", "as in a simulation"


@pytest.mark.parametrize("answer", [b"", HEAD + b"connection: close\r\n\r\n" + TOKEN])
async def test_silence_is_an_upstream_error(answer: bytes, make_request: Callable[..., Request]) -> None:
    async with peer(answer, then_close=False) as url, remote(url, silence_timeout_s=0.05) as replica:
        with pytest.raises(UpstreamError, match=r"silent for 0\.05 s"):
            await collect(replica, make_request())


@pytest.mark.parametrize(
    "value", ["inf", "nan", "-1", "1e400", "9999999999", "0", "", "Wed, 21 Oct 2026 07:28:00 GMT", "3; x"]
)
async def test_whatever_a_full_replica_calls_a_wait_the_client_hears_one_at_once(
    value: str, make_request: Callable[..., Request]
) -> None:
    body = b'{"error":{"message":"full","type":"overloaded_error","param":null,"code":null}}'
    head = f"HTTP/1.1 503 Busy\r\nretry-after: {value}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    async with peer(head + body) as url, Fleet(ManualClock(5.0), probe_interval_s=60.0) as fleet:
        await fleet.put("a", _Refusing(url))
        story = FleetBackend(fleet, LeastOutstanding()).generate(make_request())
        with pytest.raises(Overloaded) as refused:
            await anext(story)
    answer = error_response(refused.value)
    assert answer.status_code == 503
    assert 1 <= int(answer.headers["retry-after"]) <= 60


class _Refusing(RemoteReplica):
    """Its report is in order, so that it is asked."""

    async def report(self, timeout_s: float) -> ReplicaReport:
        return ReplicaReport(1, "tiny", ReplicaState.READY, 1.0, 1, 512, EngineStats())


async def test_a_probe_that_comes_after_its_replica_was_replaced_is_a_missed_probe(replica_url: str) -> None:
    """As on the way into a drill: a probe under way must not look like a bug of ours."""
    replica = RemoteReplica(replica_url)
    await replica.close()
    with pytest.raises(UpstreamError, match="its place has been taken"):
        await replica.report(5.0)
