"""A replica's two halves: the engine in a thread of its own, the requests on the event loop.

       event loop                          engine thread (owns the engine, alone)
    generate() ── Add, Abort ──> inbox ──> add / abort, then one step
        ^                                        |
        └── stream's queue <── once per step ────┘   loop.call_soon_threadsafe

A step takes milliseconds to a quarter of a second, and the loop must not wait for it; the engine is not thread-safe,
and must not be called by anyone but its thread. So they exchange messages only. The inbox is in order: an abort can
never overtake its add, nor an add with a reused id the abort before it. Putting an abort there is synchronous, because
whoever cancels a coroutine does not let it await anything more.

A stream's queue is not bounded separately: one request makes `max_tokens` events at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from miniserve.engine.stats import EngineStats
from miniserve.errors import InternalError, Overloaded, RequestError, deadline_passed, stopped
from miniserve.replica.drain import DrainGate
from miniserve.types import FinishReason, Request, TokenEvent

log = logging.getLogger(__name__)

FAILURES_UNTIL_BROKEN = 3  # consecutive steps that raised: an engine does only if it can compute nothing at all
STOP_TIMEOUT_S = 5.0  # a step takes a quarter of a second at most


class StepEngine(Protocol):
    """What a replica needs of an engine."""

    @property
    def has_work(self) -> bool: ...
    def add(self, request: Request) -> object: ...
    def abort(self, request_id: str) -> None: ...
    def step(self) -> list[TokenEvent]: ...
    def stats(self) -> EngineStats: ...


_Stream = asyncio.Queue[TokenEvent | RequestError]
_Delivery = tuple[_Stream, TokenEvent | RequestError]


@dataclass(frozen=True, slots=True)
class _Add:
    request: Request
    stream: _Stream


@dataclass(frozen=True, slots=True)
class _Abort:
    request_id: str
    asked_at_step: int


class _Refresh:
    pass


class _Stop:
    pass


_Message = _Add | _Abort | _Refresh | _Stop


class LocalReplica:
    """Serves an engine to the event loop it was made in; a `api.backend.Backend`.

    `ready()` is false before `start`, while draining, and when the engine is broken. `on_broken` is called once, on the
    loop, when the engine has failed `FAILURES_UNTIL_BROKEN` steps in a row.
    """

    def __init__(self, engine: StepEngine, *, on_broken: Callable[[], None] = lambda: None) -> None:
        self.door = DrainGate("this replica")
        self.broken = False
        self.max_abort_lag_steps = 0  # most steps ended between an abort's being asked for and its being done
        self._engine = engine
        self._on_broken = on_broken
        self._inbox: SimpleQueue[_Message] = SimpleQueue()
        self._stats = engine.stats()
        self._streams: dict[str, _Stream] = {}  # the engine thread's
        self._failures = 0
        self._loop = asyncio.get_running_loop()
        self._warm_up: Callable[[], object] = lambda: None
        self._warm = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # --- the event loop's half -------------------------------------------------------------------------------------

    def start(self, warm_up: Callable[[], object] = lambda: None) -> None:
        """Start the engine's thread, which calls `warm_up` before it takes requests; `warm` waits for that."""
        self._warm_up = warm_up
        self._thread.start()

    async def warm(self) -> None:
        """Wait until the engine is warm, or broken."""
        await self._warm.wait()

    def ready(self) -> bool:
        return self.door.is_open and not self.broken and self._thread.is_alive()

    def stats(self) -> EngineStats:
        """Return the engine's counters as of its last step or message, and have an idle engine look at its clock."""
        self._inbox.put(_Refresh())
        return self._stats

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        """Yield the request's tokens as they are made; closing the generator early aborts the generation.

        The work ends with the request's deadline, read on the event loop's clock, whoever else watches it.

        Raises: InvalidRequest, Overloaded (from the engine's queue, or draining), InternalError (the engine failed),
            DeadlineExceeded.
        """
        with self.door.enter():
            if not self.ready():
                raise _not_ready("is not running")
            if request.deadline_s is not None and request.deadline_s <= self._loop.time():
                raise deadline_passed()
            stream: _Stream = asyncio.Queue()
            finished = False
            self._inbox.put(_Add(request, stream))
            try:
                while not finished:
                    item = await _next(stream, request.deadline_s)
                    if isinstance(item, RequestError):
                        finished = True
                        raise item
                    finished = item.finish_reason is not None
                    if item.finish_reason is FinishReason.ERROR:
                        raise InternalError("the engine could not finish this request")
                    yield item
            finally:
                if not finished:
                    self._inbox.put(_Abort(request.request_id, self._stats.counters.steps))

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing new, finish what runs; return whether all of it finished within `timeout_s`."""
        self.door.shut()
        return await self.door.empty(timeout_s)

    async def close(self) -> None:
        """Stop the engine thread after its current step; requests still running get an UpstreamError."""
        self.door.shut()
        if self._thread.is_alive():
            self._inbox.put(_Stop())
            await asyncio.to_thread(self._thread.join, STOP_TIMEOUT_S)  # a hung step must not hang the exit as well

    # --- the engine thread's half ----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._warm_up()
            self._call_on_loop(self._warm.set)
            while self._read_inbox():
                if self._engine.has_work and not self.broken:
                    self._step()
                self._stats = self._engine.stats()
        except Exception:  # the thread ends here, and streams must not wait for it for ever
            log.exception("the engine's thread broke")
            self._break()
        self._deliver_to_all(stopped())

    def _read_inbox(self) -> bool:
        """Do all that was asked; sleep while there is nothing else to do. Return False when told to stop."""
        idle = self.broken or not self._engine.has_work
        try:
            message = self._inbox.get(block=idle)
            while not isinstance(message, _Stop):
                self._do(message)
                message = self._inbox.get_nowait()
        except Empty:
            return True
        return False

    def _do(self, message: _Add | _Abort | _Refresh) -> None:
        match message:
            case _Add():
                self._add(message)
            case _Abort():
                lag_steps = self._stats.counters.steps - message.asked_at_step
                self.max_abort_lag_steps = max(self.max_abort_lag_steps, lag_steps)
                if self._streams.pop(message.request_id, None) is not None:
                    self._abort(message.request_id)
            case _Refresh():
                pass  # waking up was all

    def _add(self, message: _Add) -> None:
        try:
            if self.broken:
                raise _not_ready("has failed")
            self._engine.add(message.request)
        except RequestError as error:
            self._hand_over([(message.stream, error)])
        except Exception:
            log.exception("the engine could not add a request")
            self._hand_over([(message.stream, InternalError("the engine could not take this request"))])
        else:
            self._streams[message.request.request_id] = message.stream

    def _step(self) -> None:
        try:
            events = self._engine.step()
        except Exception:
            self._failed_step()
            return
        self._failures = 0
        deliveries: list[_Delivery] = []
        for event in events:
            stream = self._streams.get(event.request_id)
            if stream is None:
                continue  # aborted
            deliveries.append((stream, event))
            if event.finish_reason is not None:
                del self._streams[event.request_id]
        if deliveries:
            self._hand_over(deliveries)

    def _failed_step(self) -> None:
        """Nobody knows which request did it, so all that were running end; the next ones may well succeed."""
        self._failures += 1
        log.exception("engine step %d failed (%d in a row)", self._stats.counters.steps + 1, self._failures)
        for request_id in list(self._streams):
            self._abort(request_id)
        self._deliver_to_all(InternalError("the engine failed while this request was running"))
        if self._failures >= FAILURES_UNTIL_BROKEN:
            self._break()

    def _abort(self, request_id: str) -> None:
        try:
            self._engine.abort(request_id)
        except Exception:  # blocks may have leaked: do not go on with such an engine
            log.exception("the engine could not abort a request")
            self._break()

    def _break(self) -> None:
        if not self.broken:
            self.broken = True
            self._call_on_loop(self._warm.set)
            self._deliver_to_all(InternalError("the engine has failed"))
            self._call_on_loop(self._on_broken)

    def _deliver_to_all(self, error: RequestError) -> None:
        self._hand_over([(stream, error) for stream in self._streams.values()])
        self._streams.clear()

    def _hand_over(self, deliveries: list[_Delivery]) -> None:
        self._call_on_loop(_put_all, deliveries)

    def _call_on_loop(self, function: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends and nobody listens
            self._loop.call_soon_threadsafe(function, *args)


async def _next(stream: _Stream, deadline_s: float | None) -> TokenEvent | RequestError:
    """Raises: DeadlineExceeded when nothing comes before the deadline."""
    if deadline_s is None:
        return await stream.get()
    try:
        async with asyncio.timeout_at(deadline_s):
            return await stream.get()
    except TimeoutError:
        raise deadline_passed() from None


def _not_ready(why: str) -> Overloaded:
    return Overloaded(f"this replica's engine {why}; try another", code="not_ready", retry_after_s=1.0)


def _put_all(deliveries: list[_Delivery]) -> None:
    for stream, item in deliveries:
        stream.put_nowait(item)
