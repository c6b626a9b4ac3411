"""Policies meet virtual time: perform the effects of `policies.dispatch` in simpy. The mirror of `gateway/drive.py`.

Knows simpy and the simulated fleet; decides nothing. There is no client to stream to: an attempt's tokens are counted
when it ends.

**Ties.** Events at one instant happen in the order that `sim.timers` states; the parity tests hold the live world to
the same order. A token that comes at the very instant of a limit is too late: limits are timers, and tokens come in a
replica's turn.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import simpy

from miniserve.errors import RequestError, deadline_passed, no_first_token
from miniserve.policies.bundle import Policies
from miniserve.policies.dispatch import advance, cancel
from miniserve.policies.health import HealthTick, StallTick
from miniserve.sim.fleet import SimFleet
from miniserve.sim.link import Attempt
from miniserve.types import AttemptResult, Hedge, Outcome, Send, Sleep, Story, TokenIds

_Process = Generator[simpy.Event, Any, AttemptResult]


def run(env: simpy.Environment, story: Story, fleet: SimFleet) -> Generator[simpy.Event, Any, Outcome]:
    """Perform `story` as a simpy process. A client that leaves interrupts it; its running attempts are aborted.

    Raises: PolicyError, when a policy breaks its contract.
    """
    result: AttemptResult | None = None
    performance: _Attempt | _Race | None = None
    try:
        while not isinstance(effect := advance(story, result), Outcome):
            if isinstance(effect, Sleep):
                result = None
                yield env.timeout(effect.seconds)
            else:
                performance = _perform(env, fleet, effect)
                result = yield from performance.run()
                performance = None
        return effect
    except BaseException:  # not `finally`: most stories end by themselves, and this is a hot path
        cancel(story, () if performance is None else performance.tokens_sent())
        raise


def start_control(fleet: SimFleet, policies: Policies, *, tick_interval_s: float = 0.5) -> None:
    """Start the control loops that a live gateway has. Call it before adding replicas, so that ticks precede probes."""
    ticks = (HealthTick(policies), StallTick(policies, fleet.running))

    def tick_all(now_s: float) -> None:
        view = fleet.view()
        for tick in ticks:
            tick(now_s, view)

    fleet.every(tick_interval_s, tick_all)


def _perform(env: simpy.Environment, fleet: SimFleet, effect: Send | Hedge) -> _Attempt | _Race:
    return _Attempt(env, fleet, effect) if isinstance(effect, Send) else _Race(env, fleet, effect)


class _Attempt:
    """One `Send`, performed."""

    __slots__ = ("_env", "_error", "_fleet", "_news_s", "_send", "attempt", "started_s")

    def __init__(self, env: simpy.Environment, fleet: SimFleet, send: Send) -> None:
        self._env = env
        self._fleet = fleet
        self._send = send
        self.started_s = self._news_s = env.now
        self._error: RequestError | None = None  # why it could not start, or was cut off
        self.attempt: Attempt | None = None
        try:
            self.attempt = fleet.start_attempt(send)
        except RequestError as error:
            self._error = error
            return
        fleet.running[self] = None
        self.attempt.ended.callbacks.append(self._forget)
        if send.first_token_within_s is not None:
            self._after(send.first_token_within_s, self._miss_first_token)
        if send.within_s is not None:
            self._after(send.within_s, self._miss_deadline)

    def run(self) -> _Process:
        if self.attempt is not None:
            try:
                yield self.attempt.ended
            finally:
                self.stop()
        return self.result()

    @property
    def replica_id(self) -> str:
        return self._send.replica_id

    def _forget(self, _: simpy.Event) -> None:
        del self._fleet.running[self]

    def _after(self, seconds: float, call: Callable[[simpy.Event], None]) -> None:
        self._env.timeout(seconds).callbacks.append(call)

    def _miss_first_token(self, _: simpy.Event) -> None:
        if self.attempt is None or self.attempt.first_token_s is not None or self.attempt.ended.triggered:
            return
        more_s = None if self._send.wait_on is None else self._send.wait_on(self._env.now)
        if more_s is None:
            self._fail(no_first_token(self._env.now - self.started_s))
        else:
            self._after(more_s, self._miss_first_token)

    def _miss_deadline(self, _: simpy.Event) -> None:
        self._fail(deadline_passed())

    def cut_off(self, error: RequestError) -> None:
        """Let it fail, after the probes of this instant, as a live driver's task would."""
        self._after(0.0, lambda _: self._fail(error))

    def _fail(self, error: RequestError) -> None:
        if self.attempt is not None and not self.attempt.ended.triggered:
            self._error = error
            self.attempt.abort()

    @property
    def has_begun(self) -> bool:
        """Whether it has produced a token."""
        return self.attempt is not None and self.attempt.first_token_s is not None

    def on_news(self, tell: Callable[[_Attempt], None]) -> None:
        """Call `tell` once: at the first token, or at an end without one."""
        is_told = False

        def once(_: simpy.Event | None) -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                self._news_s = self._env.now
                tell(self)

        if self.attempt is None:
            once(None)
        else:
            self.attempt.first_token.callbacks.append(once)
            self.attempt.ended.callbacks.append(once)

    def tokens_sent(self) -> TokenIds:
        """Return the tokens made so far: they count up from the last one in the request."""
        if self.attempt is None:
            return ()
        request = self._send.request
        last = request.resume_ids[-1] if request.resume_ids else request.prompt_ids[-1]
        return range(last + 1, last + 1 + self.attempt.tokens_sent())

    def result(self, losers: tuple[AttemptResult, ...] = ()) -> AttemptResult:
        """Return how it ended; it has ended just now."""
        attempt, started_s, now_s = self.attempt, self.started_s, self._env.now
        if attempt is None:
            return AttemptResult(self._send.replica_id, None, (), self._error, started_s, None, now_s, losers)
        error = self._error or attempt.error
        return AttemptResult(
            self._send.replica_id,
            attempt.finish_reason if error is None else None,
            self.tokens_sent(),
            error,
            started_s,
            attempt.first_token_s,
            now_s,
            losers,
            attempt.cached_tokens,
        )

    def stop(self) -> bool:
        """Abort it if it is still running; return whether it was."""
        if self.attempt is None or self.attempt.ended.triggered:
            return False
        self.attempt.abort()
        return True

    def lose(self) -> AttemptResult:
        """Stop it if it is still running; return how it ended. None of it has reached the client."""
        attempt, error, first_token_s, ended_s = self.attempt, self._error, None, self._news_s
        if attempt is not None:
            error, first_token_s = error or attempt.error, attempt.first_token_s
            if self.stop():
                ended_s = self._env.now
        return AttemptResult(self._send.replica_id, None, (), error, self.started_s, first_token_s, ended_s)


class _Race:
    """One `Hedge`, performed: the attempt that produces the first token goes on.

    News arrives here one turn of the event loop after it happened, as in the live race, whose lanes are tasks.
    """

    def __init__(self, env: simpy.Environment, fleet: SimFleet, hedge: Hedge) -> None:
        self._env = env
        self._fleet = fleet
        self._hedge = hedge
        self._lanes: list[_Attempt] = []
        self._winner: _Attempt | None = None
        self._news: list[_Attempt] = []  # lanes with a first token, or an end without one, not handled yet
        self._wake: simpy.Event = env.event()

    def run(self) -> _Process:
        try:
            self._winner = winner = yield from self._first_with_token()
            # Losers stop at the winner's first token, not at its end: from then on they would only waste the fleet's
            # time.
            losers = tuple(lane.lose() for lane in self._lanes if lane is not winner)
            if winner.attempt is not None and not winner.attempt.ended.processed:
                yield winner.attempt.ended
                yield self._env.timeout(0)
        finally:
            for lane in self._lanes:
                lane.stop()
        return winner.result(losers)

    def tokens_sent(self) -> TokenIds:
        return () if self._winner is None else self._winner.tokens_sent()

    def _first_with_token(self) -> Generator[simpy.Event, Any, _Attempt]:
        """Return the lane that produces a token first or, if both fail, the last to fail."""
        hedge_at_s = self._env.now + self._hedge.after_s
        self._env.timeout(self._hedge.after_s).callbacks.append(self._wake_up)
        yield from self._start(self._hedge.first)
        if not self._news:
            yield self._wake
        if self._env.now < hedge_at_s:
            return self._news.pop()
        if (second := self._hedge.second()) is not None:
            yield from self._start(second)
        lane = yield from self._heard()
        if not lane.has_begun and len(self._lanes) > 1:
            lane = yield from self._heard()
        return lane

    def _start(self, send: Send) -> Generator[simpy.Event, Any, None]:
        yield self._env.timeout(0)
        lane = _Attempt(self._env, self._fleet, send)
        self._lanes.append(lane)
        lane.on_news(self._tell)

    def _tell(self, lane: _Attempt) -> None:
        self._news.append(lane)
        self._wake_up(None)

    def _wake_up(self, _: simpy.Event | None) -> None:
        if not self._wake.triggered:
            self._wake.succeed()

    def _heard(self) -> Generator[simpy.Event, Any, _Attempt]:
        if not self._news:
            self._wake = self._env.event()
            yield self._wake
        return self._news.pop(0)
