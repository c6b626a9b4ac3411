"""One replica in virtual time: the engine's scheduling and blocks; of the model's step only its duration is left.

    submit ──> scheduler.add        turn: commit the step that ends now, schedule the next, and be woken when it ends
    abort  ──> scheduler.abort      (the loop of a live replica: schedule, sleep as long as the step takes, commit)

A request submitted while a step runs joins the next one; an abort frees its blocks at once; a token can be seen when
the step that made it has ended.

**Ties.** At one instant everything else comes first, in simpy's own order, and then the replicas take their turns, in
the order of `turn`. So whatever is submitted or aborted at the very time at which a step ends is known to the next
step, and requests that reach an idle replica together start together. A turn ends one step and schedules the next at
once: what the end of a step causes elsewhere reaches only the step after.

**Jumps.** Most steps only add a token to everybody. As many of them as are certain to be alike are one event: their
ends are computed at once, and what happens in between (a submit, an abort, a question) books those that have ended, and
lets the jump end with the step in progress. Scheduler and block manager are the engine's with faster books for that
(`sim/jumps.py`, `sim/run_blocks.py`). Times are added up step by step and books are kept in order, so every float and
every block number is the one that single steps on the engine's own classes give (`tests/properties/test_jump.py`).

Knows simpy. Does not know clients, fleets or faults: `SimFleet` decides when a replica is slow, hangs or is killed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate, islice, repeat
from math import inf

import simpy
from simpy.events import EventPriority

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.batch import Batch
from miniserve.engine.block_manager import BlockManager
from miniserve.engine.scheduler import Counters
from miniserve.engine.sequence import Sequence
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import RequestError
from miniserve.sim.jumps import JumpingScheduler
from miniserve.sim.run_blocks import RunBlocks
from miniserve.sim.sequence import make_sequence
from miniserve.sim.timers import Alarm
from miniserve.types import FinishReason, Request

OnStep = Callable[[Batch, int, float], None]  # a batch was computed so many times in a row, in so many seconds
_LONGEST_JUMP = 128  # steps; what lies beyond the next arrival is computed in vain
_TURN = 2  # simpy's own priorities are 0 (urgent) and 1 (normal): a turn comes after both


class SimAttempt:
    """One request inside one replica.

    `ended` fires (its value is None) when the request is finished, aborted or lost with its replica; then either
    `finish_reason` or `error` is set.
    """

    __slots__ = ("_first_token", "_replica", "ended", "error", "first_token_s", "sequence")

    def __init__(self, replica: SimReplica, sequence: Sequence) -> None:
        self._replica = replica
        self._first_token: simpy.Event | None = None
        self.sequence = sequence
        self.ended: simpy.Event = simpy.Event(replica.env)
        self.error: RequestError | None = None
        self.first_token_s: float | None = None

    @property
    def finish_reason(self) -> FinishReason | None:
        return None if self.error is not None else self.sequence.finish_reason

    @property
    def first_token(self) -> simpy.Event:
        """An event that fires when the first token is there; never, if none comes."""
        if self._first_token is None:
            self._first_token = simpy.Event(self._replica.env)
            if self.first_token_s is not None:
                self._first_token.succeed()
        return self._first_token

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that the prefix cache held; 0 until the first token is there."""
        return 0 if self.first_token_s is None else self.sequence.cached_tokens

    def tokens_sent(self) -> int:
        """Return how many tokens this attempt has made by now (resumed ones were made by others)."""
        self._replica.settle()
        return self.sequence.num_output - len(self.sequence.request.resume_ids)

    def abort(self) -> None:
        """Drop the request, wherever it is; its blocks are free on return. Nothing if it has ended."""
        self._replica.abort(self)

    def _see_first_token(self, now_s: float) -> None:
        self.first_token_s = now_s
        if self._first_token is not None:
            self._first_token.succeed()


class SimReplica:
    """A replica of `speed` times the step-time model's speed. `turn` orders replicas whose steps end together.

    `blocks` may be another block manager than the plain one, and `wait_s` what a step that was just scheduled must wait
    for before it begins (`sim.prefix_tier`).

    `single_step=True` is the engine itself, which wakes up for every step and keeps books of single blocks: slow, and
    what jumping over steps must equal.
    """

    def __init__(
        self,
        env: simpy.Environment,
        replica_id: str,
        scheduler: SchedulerConfig,
        cache: CacheConfig,
        step_time: StepTimeModel,
        *,
        max_model_len: int,
        speed: float = 1.0,
        single_step: bool = False,
        turn: int = 0,
        blocks: BlockManager | None = None,
        wait_s: Callable[[], float] | None = None,
    ) -> None:
        self.env = env
        self.replica_id = replica_id
        self.step_time = step_time
        self._speed = speed
        self.single_step = single_step
        kind = BlockManager if single_step else RunBlocks
        self._blocks = blocks or kind(cache.num_blocks, cache.block_size, cache.prefix_caching)
        self._wait_s = wait_s
        self._scheduler = JumpingScheduler(scheduler, self._blocks, max_model_len)
        self._attempts: dict[str, SimAttempt] = {}
        self._priority = EventPriority(_TURN + turn)
        self._batch: Batch | None = None  # the step in progress, or the first of a jump that is not yet booked
        self._ends_s: list[float] = []  # when the steps of the jump end that are not yet booked
        self._alarm: simpy.Event | None = None  # the event of the next turn; any other that still comes is stale
        self._paused = False
        self._begun_s = 0.0  # when the first step of the jump began that is not yet booked
        self.on_step: OnStep | None = None

    # --- what is there: as it is now, completed steps included

    @property
    def num_waiting(self) -> int:
        return self._scheduler.num_waiting

    @property
    def num_running(self) -> int:
        return len(self._scheduler.running)

    @property
    def kv_used_fraction(self) -> float:
        return self.blocks.num_used / self._blocks.num_blocks

    @property
    def counters(self) -> Counters:
        self.settle()
        return self._scheduler.counters

    @property
    def blocks(self) -> BlockManager:
        self.settle()
        return self._blocks

    def sequences(self) -> list[Sequence]:
        """All live sequences, running and waiting."""
        self.settle()
        return self._scheduler.sequences()

    # --- requests

    def submit(self, request: Request) -> SimAttempt:
        """Queue a request.

        Raises: InvalidRequest if it cannot fit, Overloaded if the queue is full.
        """
        attempt = SimAttempt(self, make_sequence(request, self.env.now))
        self._scheduler.add(attempt.sequence)
        self._attempts[request.request_id] = attempt
        self._cut_jump()
        self._wake_if_idle()
        return attempt

    def abort(self, attempt: SimAttempt) -> None:
        """Drop `attempt`; nothing if it has ended."""
        self._drop(attempt, FinishReason.ABORT, None)

    def _drop(self, attempt: SimAttempt, reason: FinishReason, error: RequestError | None) -> None:
        request_id = attempt.sequence.request_id
        if self._attempts.get(request_id) is not attempt:
            return
        self.settle()
        self._cut_jump()
        self._scheduler.abort(request_id, reason)
        attempt.error = error
        self._end(attempt)

    def _end(self, attempt: SimAttempt) -> None:
        del self._attempts[attempt.sequence.request_id]
        attempt.ended.succeed()

    # --- faults

    @property
    def speed(self) -> float:
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        """From the next step on."""
        self._cut_jump()
        self._speed = speed

    def fail_all(self, error: RequestError) -> None:
        """Fail every attempt with `error`, as when all connections break; the cache stays."""
        for attempt in list(self._attempts.values()):
            self._drop(attempt, FinishReason.ERROR, error)

    def kill(self, error: RequestError) -> None:
        """Lose everything: every attempt fails with `error`, the cache is empty. New requests find it restarted."""
        self.fail_all(error)
        self._tell(0)
        self._blocks.forget()
        self._batch = self._alarm = None
        self._ends_s = []
        self._paused = False

    def pause(self) -> None:
        """Hang: hold everything, make no progress. A step that would end meanwhile ends at `resume`."""
        self._cut_jump()
        self._paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        self._wake_if_idle()

    # --- steps

    def _wake_if_idle(self) -> None:
        if self._alarm is None and not self._paused and (self._batch is not None or self._scheduler.has_work):
            self._wake_at(self.env.now)

    def _wake_at(self, when_s: float) -> None:
        self._alarm = Alarm(self.env, when_s, self._priority, self._turn)

    def _turn(self, alarm: simpy.Event) -> None:
        if alarm is not self._alarm:
            return  # it was set before a jump was cut short, or before the replica was killed
        self._alarm = None
        if self._paused:
            return
        if self._batch is not None:
            self._tell(len(self._ends_s))
            self._commit(self._batch, len(self._ends_s))
            self._ends_s = []
        self._begun_s = self.env.now
        self._batch = self._scheduler.schedule(self.env.now) or None
        if self._batch is not None:
            self._ends_s = self._step_ends(self._batch)
            self._wake_at(self._ends_s[-1])

    def _step_ends(self, batch: Batch) -> list[float]:
        """Return when `batch` ends, and the steps after it that are certain to be the same."""
        begins_s = self.env.now if self._wait_s is None else self.env.now + self._wait_s()
        steps = 1 if self.single_step else self._scheduler.steady_steps(batch)
        if steps == 1:
            return [begins_s + self.step_time.seconds(batch) / self._speed]
        seconds = self.step_time.decode_seconds(batch.decode_rows, batch.context_tokens, min(steps, _LONGEST_JUMP))
        ends_s = accumulate([one_s / self._speed for one_s in seconds], initial=begins_s)
        return list(islice(ends_s, 1, None))

    def _commit(self, batch: Batch, steps: int) -> None:
        scheduler = self._scheduler
        grown = scheduler.commit(batch, repeat(0)) if steps == 1 else scheduler.commit_steady(batch, steps)
        for sequence in grown:
            if sequence.turn_tokens == 1 or sequence.finish_reason is not None:
                self._report(self._attempts[sequence.request_id])

    def _report(self, attempt: SimAttempt) -> None:
        if attempt.first_token_s is None:
            attempt._see_first_token(self.env.now)
        if attempt.sequence.finish_reason is not None:
            self._end(attempt)

    def settle(self) -> None:
        """Book the steps of a jump that have ended by now (not the last: its end is a turn)."""
        ended = min(bisect_left(self._ends_s, self.env.now), len(self._ends_s) - 1)
        if ended > 0:
            assert self._batch is not None
            self._tell(ended, self._ends_s[ended - 1])
            self._batch = self._scheduler.advance_steady(self._batch, ended)
            del self._ends_s[:ended]

    @property
    def worked_until_s(self) -> float:
        """Return when the last step ended; now, while one is running."""
        return self._begun_s if self._batch is None else min(self.env.now, self._ends_s[-1])

    def read_meter(self) -> None:
        """Tell `on_step` all that was computed until now; of the step in progress, the part that has passed."""
        self.settle()
        self._tell(0)

    def _tell(self, steps: int, until_s: float = inf) -> None:
        """Tell `on_step` of the time since it was told last; what a hang adds to a step is no computing."""
        if self.on_step is not None and self._batch is not None:
            until_s = min(until_s, self.env.now, self._ends_s[-1])
            self.on_step(self._batch, steps, until_s - self._begun_s)
            self._begun_s = until_s

    def _cut_jump(self) -> None:
        """Let a jump end with the step in progress."""
        ended = bisect_left(self._ends_s, self.env.now)
        if ended + 1 < len(self._ends_s):
            del self._ends_s[ended + 1 :]
            self._wake_at(self._ends_s[-1])
