"""HTTP as it comes over the wire: old, odd and hostile requests, each written out byte by byte."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from miniserve.processes.http_protocol import HttpProtocol
from miniserve.processes.http_server import HttpServer, bind

pytestmark = pytest.mark.anyio
POST = b"POST /echo HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
BODY = b'{"a": 1}'
LENGTH = b"content-length: 8\r\n"


@dataclass
class Echo:
    """Says what it was asked, in two pieces; `/slow` waits for `go`, and notes when its client leaves."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    slow: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["path"] == "/slow":
            self.slow.set()
            leaving, going = asyncio.create_task(receive()), asyncio.create_task(self.go.wait())
            await asyncio.wait((leaving, going), return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                self.left.set()
                return
            leaving.cancel()
            await asyncio.wait((leaving,))
        said = {"path": scope["path"], "query": scope["query_string"].decode(), "body": body.decode()}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-said", b"echo")]})
        await send({"type": "http.response.body", "body": json.dumps(said).encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b" "})


@asynccontextmanager
async def server(app: Echo | None = None) -> AsyncIterator[int]:
    async with HttpServer(app or Echo(), bind(0)) as running:
        yield running.port


async def answer_to(request: bytes, *, then_eof: bool = False) -> tuple[bytes, bytes]:
    """Return head and body of the answer, read until the server closes."""
    async with server() as port:
        return await ask(port, request, then_eof=then_eof)


async def ask(port: int, request: bytes, *, then_eof: bool = False) -> tuple[bytes, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    if then_eof:
        writer.write_eof()
    async with asyncio.timeout(20.0):
        data = await reader.read()
    writer.close()
    while data.startswith(b"HTTP/1.1 102 "):
        data = data.partition(b"\r\n\r\n")[2]
    head, _, body = data.partition(b"\r\n\r\n")
    return head.lower(), body


def said(body: bytes) -> dict[str, Any]:
    start, end = body.index(b"{"), body.rindex(b"}") + 1  # chunks have their lengths around
    told: dict[str, Any] = json.loads(body[start:end])
    return told


def test_the_parser_is_named_whatever_else_is_installed() -> None:
    running = HttpServer(Echo(), bind(0))
    running._server.config.load()
    assert running._server.config.http_protocol_class is HttpProtocol
    running._sock.close()


async def test_http_1_0_gets_no_chunks_and_the_connection_closes() -> None:
    head, body = await answer_to(b"POST /echo HTTP/1.0\r\n" + LENGTH + b"\r\n" + BODY)
    assert b" 200 " in head
    assert b"transfer-encoding" not in head
    assert json.loads(body)["body"] == BODY.decode()


@pytest.mark.parametrize("target", [b"http://here/echo?x=1", b"HTTP://here:8000/echo?x=1", b"https://a@here/echo?x=1"])
async def test_a_whole_url_as_target_means_its_path(target: bytes) -> None:
    head, body = await answer_to(b"GET " + target + b" HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")
    assert b" 200 " in head
    assert said(body) == {"path": "/echo", "query": "x=1", "body": ""}


async def test_a_url_without_a_path_means_the_root() -> None:
    _, body = await answer_to(b"GET http://here HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")
    assert said(body)["path"] == "/"


@pytest.mark.parametrize("offer", [b"upgrade: h2c\r\nhttp2-settings: AAMAAABk\r\nconnection: upgrade, close\r\n"])
async def test_an_offered_upgrade_is_passed_over_and_the_body_is_kept(offer: bytes) -> None:
    head, body = await answer_to(POST + offer + LENGTH + b"\r\n" + BODY)
    assert head.startswith(b"http/1.1 200 ")
    assert said(body)["body"] == BODY.decode()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /echo HTTP/1.1\r\n\r\n",  # no host
        b"GET /echo HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        POST + b"content-length: 8\r\ncontent-length: 9\r\n\r\n" + BODY,
        POST + b"content-length: -1\r\n\r\n",
        POST + b"transfer-encoding: gzip\r\n\r\n",
        POST + b"content-length: 8\r\ntransfer-encoding: chunked\r\n\r\n8\r\n" + BODY + b"\r\n0\r\n\r\n",
        POST + b"transfer-encoding: chunked\r\ncontent-length: 8\r\n\r\n8\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx y: z\r\n\r\n",
    ],
)
async def test_what_is_no_clear_request_gets_our_error_and_the_connection_closes(request_: bytes) -> None:
    head, body = await answer_to(request_)
    assert head.split(b" ")[1] in (b"400", b"501")
    if b" 400 " in head:
        assert said(body)["error"]["type"] == "invalid_request_error"
    assert b"connection: close" in head


async def test_a_head_that_does_not_end_gets_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpProtocol, "head_timeout_s", 0.05)
    head, body = await answer_to(b"GET /echo HTTP/1.1\r\nhost: he")
    assert b" 408 " in head
    assert said(body)["error"]["type"] == "timeout_error"


async def test_a_second_head_on_one_connection_has_its_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpProtocol, "head_timeout_s", 0.05)
    head, body = await answer_to(b"GET /echo HTTP/1.1\r\nhost: here\r\n\r\nGET /ec")
    assert b" 200 " in head
    assert b"HTTP/1.1 408 " in body


async def test_a_complete_request_has_all_the_time_that_its_answer_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpProtocol, "head_timeout_s", 0.01)
    app = Echo()
    async with server(app) as port:
        asking = asyncio.create_task(ask(port, b"GET /slow HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"))
        await app.slow.wait()
        asyncio.get_running_loop().call_later(0.05, app.go.set)
        head, _ = await asking
    assert b" 200 " in head


async def test_a_client_that_sends_no_more_after_its_request_gets_its_answer() -> None:
    head, body = await answer_to(POST + LENGTH + b"\r\n" + BODY, then_eof=True)
    assert b" 200 " in head
    assert said(body)["body"] == BODY.decode()


async def test_it_gets_one_that_takes_a_while_as_well() -> None:
    app = Echo()
    async with server(app) as port:
        request = b"POST /slow HTTP/1.1\r\nhost: here\r\n" + LENGTH + b"\r\n" + BODY
        asking = asyncio.create_task(ask(port, request, then_eof=True))
        await app.slow.wait()
        asyncio.get_running_loop().call_later(0.6, app.go.set)
        head, body = await asking
    assert b" 200 " in head
    assert said(body)["body"] == BODY.decode()


async def test_a_client_that_has_left_altogether_is_noticed_before_the_answer() -> None:
    """It looks like one that only sends no more, until something is sent to it."""
    app = Echo()
    async with server(app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /slow HTTP/1.1\r\nhost: here\r\n" + LENGTH + b"\r\n" + BODY)
        await app.slow.wait()
        writer.close()
        async with asyncio.timeout(20.0):
            await app.left.wait()


@pytest.mark.parametrize("part", [b"GET /echo HT", POST + LENGTH + b"\r\n{"])
async def test_an_end_in_the_middle_of_a_request_is_the_end(part: bytes) -> None:
    assert await answer_to(part, then_eof=True) == (b"", b"")


# --- a reader that takes nothing -----------------------------------------------------------------------------------


async def test_an_answer_given_up_because_nobody_reads_it_is_dropped_without_a_word_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended = asyncio.Event()

    async def gives_up(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while True:  # until the buffers between the two are full
                    await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        ended.set()

    async with HttpServer(gives_up, bind(0)) as running:  # its end waits for the connection's
        with socket.create_connection(("127.0.0.1", running.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
            await asyncio.wait_for(ended.wait(), 20.0)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
