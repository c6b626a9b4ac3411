"""A replica in this process that computes nothing: the real scheduler, the real blocks, and steps that take their time.

    turn: schedule a step ──> sleep as long as the model would take ──> commit it, hand out its tokens, next turn

To its gateway it is an `Upstream` like a remote one. On a real loop it stands in for a GPU under a load test; on
`virtual_time`'s loop it is the live half of the parity proof, and then its turns come after everything else of their
instant, in the order of `turn`, as `sim.replica`'s do.

Its tokens count on from the prompt's last. What can go wrong with a whole replica can be done to it: `kill`, `pause`,
a lower `speed`; what goes wrong with single attempts is the fleet's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from itertools import repeat

from parity.virtual_time import TURN, sleep

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.block_manager import BlockManager
from miniserve.engine.scheduler import Scheduler
from miniserve.engine.sequence import Sequence
from miniserve.engine.stats import snapshot
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import RequestError, no_connection, stopped
from miniserve.replica.wire import ReplicaReport
from miniserve.sim.sequence import make_sequence
from miniserve.types import FinishReason, ReplicaState, Request, TokenEvent

_Stream = asyncio.Queue[TokenEvent | RequestError]


class PacedReplica:
    """Belongs to the event loop it was made in; `close` it there."""

    def __init__(
        self,
        scheduler: SchedulerConfig,
        cache: CacheConfig,
        step_time: StepTimeModel,
        *,
        max_model_len: int,
        speed: float = 1.0,
        version: str = "",
        turn: int = 0,
    ) -> None:
        self.speed = speed  # takes effect from the next step on
        self.blocks = BlockManager(cache.num_blocks, cache.block_size, cache.prefix_caching)
        self.scheduler = Scheduler(scheduler, self.blocks, max_model_len)
        self._step_time = step_time
        self._version = version
        self._rank = TURN + turn
        self._loop = asyncio.get_running_loop()
        self._unreachable = False
        self._streams: dict[str, _Stream] = {}
        self._work = asyncio.Event()
        self._going = asyncio.Event()
        self._going.set()
        self._turns = asyncio.create_task(self._take_turns(), name="turns of a paced replica")

    # --- as an upstream ------------------------------------------------------------------------------------------

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        """Yield the request's tokens as they are made; closing the generator early aborts the generation.

        Raises: InvalidRequest, Overloaded (from the scheduler), UpstreamError (unreachable, or lost on the way).
        """
        self._check_reachable()
        self.scheduler.add(make_sequence(request, self._loop.time()))
        stream = self._streams[request.request_id] = _Stream()
        self._work.set()
        try:
            while True:
                item = await stream.get()
                if isinstance(item, RequestError):
                    raise item
                yield item
                if item.finish_reason is not None:
                    return
        finally:
            if self._streams.get(request.request_id) is stream:
                del self._streams[request.request_id]
                self.scheduler.abort(request.request_id)

    async def report(self, timeout_s: float) -> ReplicaReport:
        """Answer a probe: at once, even while the replica hangs. Raises: UpstreamError if it cannot be reached."""
        self._check_reachable()
        return ReplicaReport(
            pid=0,
            model=self._version,
            state=ReplicaState.READY,
            uptime_s=self._loop.time(),
            rss_bytes=0,
            max_model_len=self.scheduler.max_model_len,
            stats=snapshot(self.scheduler),
        )

    async def close(self) -> None:
        """Stop; requests still running fail."""
        self.kill(stopped())
        await asyncio.gather(self._turns, return_exceptions=True)

    def _check_reachable(self) -> None:
        if self._unreachable:
            raise no_connection()

    # --- faults --------------------------------------------------------------------------------------------------

    def kill(self, error: RequestError) -> None:
        """Lose everything, for good: every request fails with `error`."""
        self.cut_off(error)
        self._turns.cancel()
        self.blocks.forget()

    def cut_off(self, error: RequestError) -> None:
        """Break every connection, and let none come through until `reconnect`."""
        self._unreachable = True
        for request_id, stream in list(self._streams.items()):
            self.scheduler.abort(request_id, FinishReason.ERROR)
            stream.put_nowait(error)
        self._streams.clear()

    def reconnect(self) -> None:
        """Be reachable again, with the cache of before."""
        self._unreachable = False

    def pause(self) -> None:
        """Hang: hold everything, make no progress. A step that would end meanwhile ends at `resume`."""
        self._going.clear()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._going.set()

    # --- steps ---------------------------------------------------------------------------------------------------

    async def _take_turns(self) -> None:
        while True:
            await self._work.wait()
            await self._turn_in(0.0)
            while batch := self.scheduler.schedule(self._loop.time()):
                await self._turn_in(self._step_time.seconds(batch) / self.speed)
                for sequence in self.scheduler.commit(batch, repeat(0)):
                    self._hand_out(sequence)
            self._work.clear()

    async def _turn_in(self, seconds: float) -> None:
        await sleep(seconds, self._rank)
        while not self._going.is_set():
            await self._going.wait()
            await sleep(0.0, self._rank)

    def _hand_out(self, sequence: Sequence) -> None:
        """Pass on the newest token of `sequence`."""
        stream = self._streams[sequence.request_id]
        if sequence.finish_reason is not None:
            del self._streams[sequence.request_id]
        event = TokenEvent(
            sequence.request_id,
            (sequence.tokens[-1],),
            sequence.finish_reason,
            cached_tokens=sequence.cached_tokens,
        )
        stream.put_nowait(event)
