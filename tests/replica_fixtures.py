"""A scripted engine with the real one's interface, and the helpers that all live tests share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from miniserve.api.wiring import api_app, served_model
from miniserve.clock import monotonic
from miniserve.config import ApiConfig
from miniserve.engine.scheduler import Counters
from miniserve.engine.stats import EngineStats
from miniserve.errors import Overloaded
from miniserve.processes.http_server import HttpServer, bind
from miniserve.replica.local import LocalReplica
from miniserve.replica.server import add_internal_routes, reporter
from miniserve.types import FinishReason, Request, SamplingParams, TokenEvent

DEADLINE_S = 20.0  # far beyond what anything here takes; a condition that is not true by then never will be


@dataclass
class FakeEngine:
    """Counts: a request's tokens are 0, 1, 2, ... up to `max_tokens`, one a step; each running request holds a block.

    A step waits for `gate` (set = run freely). `fail_steps` says how many of the next steps raise.
    """

    max_running: int = 8
    fail_steps: int = 0
    fail_abort: bool = False
    steps: int = 0
    running: dict[str, list[Any]] = field(default_factory=dict)
    aborted: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    stats_calls: int = 0
    thread_ids: set[int] = field(default_factory=set)
    finished: dict[str, int] = field(default_factory=lambda: {"length": 0, "abort": 0})

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def has_work(self) -> bool:
        return bool(self.running)

    def add(self, request: Request) -> None:
        self.thread_ids.add(threading.get_ident())
        if len(self.running) >= self.max_running:
            raise Overloaded("the queue is full", retry_after_s=2.0)
        assert request.request_id not in self.running, "two requests with one id"
        self.running[request.request_id] = [request.sampling.max_tokens, 0]

    def abort(self, request_id: str) -> None:
        self.thread_ids.add(threading.get_ident())
        if self.fail_abort:
            raise RuntimeError("scripted: abort")
        self.aborted.append(request_id)
        if self.running.pop(request_id, None):
            self.finished["abort"] += 1

    def step(self) -> list[TokenEvent]:
        self.thread_ids.add(threading.get_ident())
        self.gate.wait(DEADLINE_S)
        self.steps += 1
        if self.fail_steps:
            self.fail_steps -= 1
            raise RuntimeError("scripted: step")
        return [self._token(request_id) for request_id in list(self.running)]

    def _token(self, request_id: str) -> TokenEvent:
        entry = self.running[request_id]
        entry[1] += 1
        last = entry[1] >= entry[0]
        if last:
            del self.running[request_id]
            self.finished["length"] += 1
        return TokenEvent(request_id, (entry[1] - 1,), FinishReason.LENGTH if last else None)

    def stats(self) -> EngineStats:
        self.stats_calls += 1
        counters = Counters(steps=self.steps, finished=dict(self.finished))
        running = len(self.running)
        return EngineStats(counters, running, blocks_total=64, blocks_used=running, block_size=16)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    fake = FakeEngine()
    yield fake
    fake.gate.set()  # let a thread that waits there go


@pytest.fixture
def make_request() -> Callable[..., Request]:
    def make(request_id: str = "q", max_tokens: int = 5, **fields: Any) -> Request:
        return Request(request_id, "tiny", (1, 2, 3), SamplingParams(max_tokens=max_tokens), **fields)

    return make


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """`await until(condition)`: come back when it is true; fail when it is not within the deadline."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 -- the condition is another thread's or process's
                await asyncio.sleep(0.002)

    return wait


@pytest.fixture(scope="session")
def long_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a context so long that an answer lasts until the test is done with it."""
    from miniserve.models.tiny import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("long"), context=8192)


@pytest.fixture
async def replica_url(engine: FakeEngine, tiny_folder: Path) -> AsyncIterator[str]:
    """A replica over HTTP whose engine is the scripted one."""
    replica = LocalReplica(engine)
    model = served_model("tiny", tiny_folder, max_model_len=512)
    app = api_app(replica, model, config=ApiConfig(), engine_stats=replica.stats)
    add_internal_routes(app, replica, reporter(replica, monotonic, model="tiny", max_model_len=512))
    replica.start()
    async with HttpServer(app, bind(0), graceful_s=1.0) as server:
        yield server.url
        engine.gate.set()
        await replica.close()
