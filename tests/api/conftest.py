"""A real uvicorn on loopback over a backend that follows a script, and counts what the edge does with it."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry

from miniserve.api.app import create_app
from miniserve.api.backend import ServedModel
from miniserve.api.catalogue import Catalogue
from miniserve.config import ApiConfig
from miniserve.observe.metrics import ApiMetrics
from miniserve.observe.recent import Recent
from miniserve.processes.http_protocol import HttpProtocol
from miniserve.sse import SSEDecoder
from miniserve.types import FinishReason, Request, TokenEvent

EOS, START, END = 256, 257, 258
DEADLINE_S = 10.0
_TLS = ssl.create_default_context()  # slow to make, so made once; nothing here speaks TLS


class ByteTokenizer:
    """One token per byte and three control tokens: the same interface as the engine's tokenizer."""

    vocab_size = 259
    eos_ids = (EOS,)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_chat(self, messages: list[dict[str, str]]) -> list[int]:
        turns = [[START, *f"{m['role']}\n{m['content']}".encode(), END] for m in messages]
        return [*(token for turn in turns for token in turn), START]

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else b""

    def control_token(self, token_id: int) -> str | None:
        return {EOS: "<eos>", START: "<start>", END: "<end>"}.get(token_id)

    def decode(self, ids: list[int]) -> str:
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")


Step = TokenEvent | Exception | asyncio.Event  # say it, raise it, be silent until it is set
Script = Callable[[Request], Iterator[Step]]


def says(text: str, *, size: int = 1, finish: FinishReason = FinishReason.STOP, cached: int = 0) -> Script:
    """Return a script that says `text`, `size` bytes to an event, as many as the request allows."""

    def script(request: Request) -> Iterator[Step]:
        data = text.encode()[: request.sampling.max_tokens]
        pieces = [data[i : i + size] for i in range(0, len(data), size)] or [b""]
        reason = finish if len(data) == len(text.encode()) else FinishReason.LENGTH
        for i, piece in enumerate(pieces):
            last = reason if i == len(pieces) - 1 else None
            yield TokenEvent(request.request_id, tuple(piece), last, cached_tokens=cached)

    return script


def endless(request: Request) -> Iterator[Step]:
    """A script without end; it says `x` as fast as it is read."""
    while True:
        yield TokenEvent(request.request_id, (ord("x"),))


def silent(request: Request) -> Iterator[Step]:
    """A script that says nothing until it is closed."""
    yield asyncio.Event()


def steps(*steps: Step) -> Script:
    """Return a script of exactly these steps."""
    return lambda request: iter(steps)


def event(text: str = "", finish: FinishReason | None = None, **more: object) -> TokenEvent:
    """Return an event whose tokens are the bytes of `text`."""
    return TokenEvent("", tuple(text.encode()), finish, **more)  # type: ignore[arg-type]


HELLO = says("Hello")


@dataclass
class ScriptedBackend:
    """Follows `script`, and counts how its generators end."""

    script: Script = HELLO
    is_ready: bool = True
    requests: list[Request] = field(default_factory=list)
    open: int = 0
    started: int = 0
    closed: int = 0  # ended by aclose or cancellation, not by the script

    def ready(self) -> bool:
        return self.is_ready

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        self.requests.append(request)
        self.started += 1
        self.open += 1
        try:
            for step in self.script(request):
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    await asyncio.sleep(0)
                    yield step
        except (GeneratorExit, asyncio.CancelledError):
            self.closed += 1
            raise
        finally:
            self.open -= 1


@dataclass
class Edge:
    """A running server, and what stands behind it."""

    backend: ScriptedBackend
    registry: CollectorRegistry
    recent: Recent
    port: int
    loop: asyncio.AbstractEventLoop
    stop: Callable[[], None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=DEADLINE_S, verify=_TLS, trust_env=False)

    def post(self, path: str, **kwargs: object) -> httpx.Response:
        with self.client() as client:
            return client.post(path, **kwargs)  # type: ignore[arg-type]

    def get(self, path: str, **kwargs: object) -> httpx.Response:
        with self.client() as client:
            return client.get(path, **kwargs)  # type: ignore[arg-type]

    def chat(self, **fields: object) -> httpx.Response:
        return self.post("/v1/chat/completions", json={**CHAT, **fields})

    def set(self, gate: asyncio.Event) -> None:
        """Let a script go on that waits for `gate`."""
        self.loop.call_soon_threadsafe(gate.set)

    def sample(self, name: str, **labels: str) -> float:
        """Return one number of the metrics, 0 where it does not exist yet."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def send(self, head: str, body: bytes = b"") -> socket.socket:
        """Open a connection, send a request as written (`head` without its blank line), return the connection."""
        connection = self.connect()
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\nhost: x\r\n\r\n" + body)
        return connection

    def send_json(self, path: str, body: object) -> socket.socket:
        """Send a request and return the connection, without reading from it."""
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\ncontent-type: application/json\ncontent-length: {len(data)}"
        return self.send(head, data)

    def tasks(self) -> int:
        """How many tasks the server's loop has."""
        return len(asyncio.all_tasks(self.loop))

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until `condition` holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"still not so after {DEADLINE_S} s: {what}"
            time.sleep(0.002)

    def until_idle(self) -> None:
        """Wait until nothing of any request is left."""
        self.until(lambda: self.backend.open == 0, "no generator is open")
        self.until(lambda: self.tasks() <= 1, "only the server's own task runs")


def events(response: httpx.Response) -> list[Any]:
    """Return the data of a stream's events, decoded from JSON except for `[DONE]`."""
    data = SSEDecoder().feed(response.content)
    return [json.loads(item) if item != "[DONE]" else item for item in data]


CHAT: dict[str, object] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.running = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.failures: list[dict[str, object]] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context))
        await super().startup(sockets)
        self.running.set()


StartEdge = Callable[..., Edge]


def _listener() -> socket.socket:
    """Return a listening socket on a free port.

    The protocol is named because asyncio turns Nagle's algorithm off only for sockets that say they are TCP; without
    that, an answer written in two pieces waits 40 ms for the client's delayed acknowledgement.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


class _Servers:
    """Started servers, to be stopped together."""

    def __init__(self) -> None:
        self._running: list[tuple[_Server, threading.Thread, Edge]] = []

    def start(
        self,
        script: Script = HELLO,
        *,
        config: ApiConfig | None = None,
        max_model_len: int = 1024,
        seed: int = 7,
        model: Catalogue | None = None,
    ) -> Edge:
        backend, registry, recent = ScriptedBackend(script), CollectorRegistry(), Recent()
        app = create_app(
            backend,
            model or ServedModel("tiny", ByteTokenizer(), max_model_len, created=1_700_000_000),
            config=config or ApiConfig(),
            metrics=ApiMetrics(registry, recent),
            registry=registry,
            wall_clock=lambda: 1_700_000_123.9,
            rng=Random(seed),
        )
        listener = _listener()
        config = uvicorn.Config(
            app, http=HttpProtocol, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1
        )
        server = _Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert server.running.wait(DEADLINE_S)
        assert server.loop is not None
        stop = partial(setattr, server, "should_exit", True)
        running = Edge(backend, registry, recent, listener.getsockname()[1], server.loop, stop)
        self._running.append((server, thread, running))
        return running

    def stop(self) -> None:
        """Stop all; each must be idle, and its event loop must have met no error that nobody handled."""
        try:
            for _, _, edge in self._running:
                edge.until_idle()
        finally:
            for server, _, _ in self._running:
                server.should_exit = True
            for _, thread, _ in self._running:
                thread.join(DEADLINE_S)
        assert [failure for server, _, _ in self._running for failure in server.failures] == []


@pytest.fixture
def start_edge() -> Iterator[StartEdge]:
    """Start servers of this test's own: `start_edge(script, config=ApiConfig(...))`."""
    servers = _Servers()
    yield servers.start
    servers.stop()


@pytest.fixture(scope="module")
def _shared() -> Iterator[Edge]:
    servers = _Servers()
    yield servers.start()
    servers.stop()


@pytest.fixture
def edge(_shared: Edge) -> Iterator[Edge]:
    """A server that answers `Hello`; one for the whole module, with its backend as new."""
    backend = _shared.backend
    backend.script, backend.is_ready, backend.started, backend.closed = HELLO, True, 0, 0
    backend.requests.clear()
    yield _shared
    _shared.until_idle()
