"""Odd requests at a gateway over two tiny replicas: no 500, no 502, and nothing holds the event loop or breaks."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from gateway.odd_requests import TEXT, odd_request
from loop_time import Held, loop_held

from miniserve.api.wiring import api_app, served_model
from miniserve.clock import monotonic
from miniserve.config import ApiConfig
from miniserve.engine.engine import load_engine
from miniserve.gateway.fleet import Fleet
from miniserve.processes.backends import connect
from miniserve.processes.http_server import HttpServer, bind
from miniserve.processes.stack import GatewayOptions, running_gateway
from miniserve.replica.local import LocalReplica
from miniserve.replica.server import add_internal_routes, reporter

CALLBACK_CPU_S = 0.1
ANSWER_S = 60.0  # a request without an answer by then has been lost


@dataclass
class Served:
    """A gateway and its replicas in a thread of their own, and how long their event loop was held."""

    folder: Path
    url: str = ""
    held: Held = field(default_factory=Held)
    error: BaseException | None = None
    _ready: threading.Event = field(default_factory=threading.Event)
    _stop: Callable[[], object] = lambda: None

    def run(self) -> None:
        """Serve until stopped."""
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self.error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
        async with AsyncExitStack() as up:
            urls = [await self._replica(up) for _ in range(2)]
            fleet = await up.enter_async_context(Fleet(monotonic))
            await connect(fleet, urls, 20.0)
            options = GatewayOptions("tiny", self.folder, drain_timeout_s=10.0)
            gateway = await up.enter_async_context(running_gateway(options, fleet, bind(0)))
            self.url = gateway.url
            self._ready.set()
            await stopped.wait()

    async def _replica(self, up: AsyncExitStack) -> str:
        replica = LocalReplica(await asyncio.to_thread(load_engine, self.folder))
        model = served_model("tiny", self.folder, max_model_len=512)
        app = api_app(replica, model, config=ApiConfig(), engine_stats=replica.stats)
        add_internal_routes(app, replica, reporter(replica, monotonic, model="tiny", max_model_len=512))
        replica.start()
        up.push_async_callback(replica.close)
        server = await up.enter_async_context(HttpServer(app, bind(0), graceful_s=1.0))
        return server.url

    def __enter__(self) -> Served:
        self._thread = threading.Thread(target=self.run)
        self._thread.start()
        self._ready.wait(120)
        if self.error is not None:
            raise self.error
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._thread.join(60)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


@pytest.fixture
def served(tiny_folder: Path) -> Iterator[Served]:
    with Served(tiny_folder) as made, loop_held() as made.held:
        yield made


def answer_to(url: str, raw: bytes) -> bytes:
    """Send the bytes and no more, and return all that comes back until the server closes or has answered."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=ANSWER_S) as sock:
        answer = bytearray()
        try:
            sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)
            while chunk := sock.recv(1 << 16):
                answer += chunk
        except (ConnectionResetError, BrokenPipeError):
            pass  # refused before it was read to its end
        return bytes(answer)


def status_of(answer: bytes) -> int:
    """Return the status of an answer, after interim ones such as 102; 0 if there is none."""
    found = re.match(rb"(?:HTTP/1\.1 1\d\d [^\r]*\r\n\r\n)*HTTP/1\.[01] (\d{3})", answer)
    return int(found[1]) if found else 0


def wrong_with(answer: bytes) -> str:
    """Return what an answer must not be, as a sentence; empty if it is all right."""
    status = status_of(answer)
    if status in (500, 502):
        return f"{status}"
    if status in (503, 504) and b'"message"' not in answer:
        return f"{status} without a reason"
    for line in answer.split(b"\n"):
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            try:
                event: dict[str, Any] = json.loads(line[6:])
            except ValueError:
                return f"an event that is not JSON: {line[:100]!r}"
            if "error" in event:
                return f"a stream that ends in an error: {line[:200]!r}"
    return ""


def fuzz(count: int, seed: int, served: Served) -> dict[int, int]:
    """Send `count` odd requests, eight at a time, and return how often each status came back."""
    rng = Random(seed)
    requests = [odd_request(rng) for _ in range(count)]
    normal = {**TEXT, "temperature": 0, "seed": 1}
    with httpx.Client(base_url=served.url, timeout=ANSWER_S) as client:
        before = client.post("/v1/completions", json=normal).json()["choices"]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda raw: answer_to(served.url, raw), requests))
        assert client.post("/v1/completions", json=normal).json()["choices"] == before
        assert client.get("/health").status_code == 200
    wrong = {raw[:400]: why for raw, answer in zip(requests, answers, strict=True) if (why := wrong_with(answer))}
    assert wrong == {}
    assert served.held.longest_s <= CALLBACK_CPU_S, served.held.by
    statuses = [status_of(answer) for answer in answers]
    return {status: statuses.count(status) for status in sorted(set(statuses))}


def test_odd_requests_are_answered_or_refused_and_hold_nothing_up(served: Served) -> None:
    statuses = fuzz(200, 1, served)
    assert statuses.get(200, 0) > 20, statuses
    assert statuses.get(400, 0) > 20


@pytest.mark.full
@pytest.mark.parametrize("seed", range(2, 12))
def test_thousands_of_odd_requests(seed: int, served: Served, record_property: Callable[[str, object], None]) -> None:
    statuses = fuzz(1_000, seed, served)
    record_property("requests", 1_000)
    record_property("statuses", statuses)
    record_property("longest_callback_cpu_s", round(served.held.longest_s, 4))
