"""A real uvicorn on loopback over a backend that follows a script, and counts what the edge does with it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from random import Random

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry

from miniserve.config import EdgeConfig
from miniserve.gateway.app import create_app
from miniserve.gateway.backend import ServedModel
from miniserve.observe.metrics import EdgeMetrics
from miniserve.types import FinishReason, Request, TokenEvent

EOS, START, END = 256, 257, 258
DEADLINE_S = 10.0


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

    def decode(self, ids: list[int]) -> str:
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")


Step = TokenEvent | Exception | asyncio.Future[None] | Callable[[], None] | float
Script = Callable[[Request], Iterator[object]]


def says(text: str, *, size: int = 1, finish: FinishReason = FinishReason.STOP, cached: int = 0) -> Script:
    """Return a script that says `text`, `size` bytes to an event, as many as the request allows."""

    def script(request: Request) -> Iterator[object]:
        data = text.encode()[: request.sampling.max_tokens]
        pieces = [data[i : i + size] for i in range(0, len(data), size)] or [b""]
        reason = finish if len(data) == len(text.encode()) else FinishReason.LENGTH
        for i, piece in enumerate(pieces):
            last = reason if i == len(pieces) - 1 else None
            yield TokenEvent(request.request_id, tuple(piece), last, cached_tokens=cached)

    return script


def endless(request: Request) -> Iterator[object]:
    """A script without end; it says `x` as fast as it is read."""
    while True:
        yield TokenEvent(request.request_id, (ord("x"),))


class Wait:
    """In a script: stay silent until the generator is closed, or `seconds` long."""

    def __init__(self, seconds: float = 3600) -> None:
        self.seconds = seconds


@dataclass
class ScriptedBackend:
    """Follows `script`: yields its events, raises its exceptions, is silent where it says `Wait`."""

    script: Script = says("Hello")
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
                if isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                else:
                    await asyncio.sleep(0)
                    assert isinstance(step, TokenEvent)
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
    metrics: EdgeMetrics
    port: int
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)

    def post(self, path: str, **kwargs: object) -> httpx.Response:
        with httpx.Client(base_url=self.url, timeout=DEADLINE_S) as client:
            return client.post(path, **kwargs)  # type: ignore[arg-type]

    def get(self, path: str, **kwargs: object) -> httpx.Response:
        with httpx.Client(base_url=self.url, timeout=DEADLINE_S) as client:
            return client.get(path, **kwargs)  # type: ignore[arg-type]

    def chat(self, **fields: object) -> httpx.Response:
        return self.post("/v1/chat/completions", json={**CHAT, **fields})

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
        self.until(lambda: self.tasks() == 1, "only the server's own task runs")


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


@pytest.fixture
def start_edge() -> Iterator[StartEdge]:
    """Start servers: `start_edge(script, edge=EdgeConfig(...))`. At the end each must be idle and without failures."""
    servers: list[tuple[_Server, threading.Thread, Edge]] = []

    def start(
        script: Script = says("Hello"), *, edge: EdgeConfig | None = None, max_model_len: int = 1024, seed: int = 7
    ) -> Edge:
        backend, registry = ScriptedBackend(script), CollectorRegistry()
        metrics = EdgeMetrics(registry)
        model = ServedModel("tiny", ByteTokenizer(), max_model_len, created=1_700_000_000)
        app = create_app(
            backend,
            model,
            edge=edge or EdgeConfig(),
            metrics=metrics,
            registry=registry,
            wall_clock=lambda: 1_700_000_123.9,
            rng=Random(seed),
        )
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
        server = _Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert server.running.wait(DEADLINE_S)
        assert server.loop is not None
        running = Edge(backend, registry, metrics, listener.getsockname()[1], server.loop)
        servers.append((server, thread, running))
        return running

    yield start
    try:
        for _, _, running in servers:
            running.until_idle()
    finally:
        for server, thread, _ in servers:
            server.should_exit = True
            thread.join(DEADLINE_S)
    for server, _, _ in servers:
        assert server.failures == [], "the event loop was told of errors nobody handled"


@pytest.fixture
def edge(start_edge: StartEdge) -> Edge:
    """A server that answers `Hello`."""
    return start_edge()
