"""An asyncio event loop on virtual time: the live code runs as it is, and no second passes.

Whenever nothing is ready, the clock jumps to the next timer. There is no real I/O: no sockets, pipes, threads or
signals, so nothing can happen that the program did not do itself, and two runs are equal.

**The order of one instant** is the simulation's (`sim.timers`, `sim.replica`):

    CONTROL   control loops                      \
    FLEET     faults, restarts, probes            | of one rank: in the order in which they were set
    (none)    arrivals, waits, limits            /
              what these cause at that instant, first caused first
    TURN ...  the turns of replicas, one after the other, and after each what it causes

An ordinary timer has rank 0; who needs another place sleeps with `sleep`. On a real loop there are no ties to order.

Builds on the part of asyncio's own loop that knows no operating system. Source: the idea of trio's `MockClock`, which
jumps in the same way.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from itertools import count
from typing import Any, TypeVar, TypeVarTuple

from miniserve.errors import MiniserveError

CONTROL, FLEET, TURN = -2, -1, 1  # ranks; each replica has one of its own, from TURN on

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class Deadlock(MiniserveError):
    """Everybody waits, and no timer is set that could end it."""


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run `main` to its end in a fresh loop that starts at second 0. Raises: Deadlock when it can never end."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


async def sleep(seconds: float, rank: int) -> None:
    """Sleep, and wake at the place of `rank` in the instant if the time is virtual."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        await asyncio.sleep(seconds)
        return
    future: asyncio.Future[None] = loop.create_future()
    timer = loop.call_at(loop.time() + seconds, _wake, future, rank=rank)
    try:
        await future
    finally:
        timer.cancel()


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """Time stands still while anything is ready, then jumps."""

    _ready: deque[asyncio.Handle]  # the base class's: what `call_soon` was asked for

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._timers: list[tuple[float, int, int, asyncio.TimerHandle]] = []  # heap: (when, rank, order, timer)
        self._order = count()
        self._problem: BaseException | None = None

    def time(self) -> float:
        return self._now_s

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
        rank: int = 0,
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (max(when, self._now_s), rank, next(self._order), timer))
        return timer

    # --- what the base class leaves to its heirs

    def _run_once(self) -> None:
        """Run the first callback that is ready."""
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem
        if not self._ready:
            self._jump()
        handle = self._ready.popleft()
        if not handle.cancelled():
            handle._run()

    def _jump(self) -> None:
        """Move the clock to the next timer; make ready all of that instant, or one turn if only turns are left."""
        while self._timers and self._timers[0][3].cancelled():
            heapq.heappop(self._timers)
        if not self._timers:
            raise Deadlock(f"at {self._now_s:g} s everybody waits and no timer is set: nothing can happen any more")
        self._now_s, rank = self._timers[0][:2]
        self._ready.append(heapq.heappop(self._timers)[3])
        while rank <= 0 and self._timers and self._timers[0][:2] <= (self._now_s, 0):
            self._ready.append(heapq.heappop(self._timers)[3])

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Let it lie in the heap: it is skipped when its time comes, and does not move the clock."""

    def _write_to_self(self) -> None:
        """Nobody waits in a system call, so nobody needs to be woken from one."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """End the run by what nobody awaited: it may not fail in silence."""
        self._problem = self._problem or context.get("exception") or RuntimeError(context["message"])


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
