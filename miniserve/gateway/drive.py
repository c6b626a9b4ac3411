"""Policies meet the world: perform what `policies.dispatch` asks for, and stream the tokens past it to the client.

Knows asyncio and the fleet; decides nothing. The story is told only how an attempt ended and which tokens reached the
client. When the client goes away, `generate` is closed wherever it stands, and closing the connection to the replica
is what frees its blocks. `sim/drive.py` is the same for the simulated world.

**Ties.** What happens at one instant happens in one order in both worlds (`tests/parity/virtual_time.py` states it). A
token that comes at the very instant of a limit comes too late. (On a real clock nothing happens at the same time.)
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial

from miniserve.errors import InternalError, PolicyError, RequestError, deadline_passed, no_first_token
from miniserve.gateway.counting import OnFailedAttempt, counted
from miniserve.gateway.fleet import Fleet
from miniserve.gateway.queue_cost import QueueCost
from miniserve.observe.counts import GatewayCounts
from miniserve.policies.bundle import Policies
from miniserve.policies.decision_log import OnDecision, logged
from miniserve.policies.dispatch import advance, cancel, dispatch
from miniserve.policies.health import HealthTick, StallTick
from miniserve.policies.routing.balancer import Balancer
from miniserve.replica.drain import DrainGate
from miniserve.types import AttemptResult, FinishReason, Hedge, Outcome, Request, Send, Sleep, Story, TokenEvent

log = logging.getLogger(__name__)


class FleetBackend:
    """The fleet as one `api.backend.Backend`. A bare balancer stands for the default policies around it."""

    def __init__(self, fleet: Fleet, policies: Policies | Balancer, *, on_decision: OnDecision | None = None) -> None:
        self.door = DrainGate("the gateway")
        self.policies = policies if isinstance(policies, Policies) else Policies(policies)
        self.requests: Counter[str] = Counter()  # that have come, by model and whatever their fate
        self.counts = GatewayCounts()
        self._fleet = fleet
        self._on_decision = on_decision
        self.on_failed: list[OnFailedAttempt] = []  # told of failed attempts, saved elsewhere or not
        self._queue_cost = QueueCost()
        self._running: dict[_Attempt, None] = {}  # a set in order
        fleet.add_tick(HealthTick(self.policies))
        fleet.add_tick(StallTick(self.policies, self._running))

    def ready(self) -> bool:
        return self.door.is_open and self._fleet.any_ready()

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing new, finish what runs; return whether all of it finished within `timeout_s`."""
        self.door.shut()
        return await self.door.empty(timeout_s)

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        """Yield the request's tokens from whichever replica serves it. Raises: the last attempt's error."""
        with self.door.enter():
            self.requests[request.model] += 1
            story, performance = self._story(request), None
            try:
                asked = advance(story)
                while not isinstance(asked, Outcome):
                    result = None
                    if isinstance(asked, Sleep):
                        await asyncio.sleep(asked.seconds)
                    else:
                        performance = self._perform(asked)
                        async with aclosing(performance.run()) as events:
                            async for event in events:
                                yield event
                        result = performance.result()
                    performance, asked = None, advance(story, result)
            except PolicyError as error:
                log.error("%s", error)
                raise InternalError("the gateway failed while serving this request") from error
            finally:
                cancel(story, () if performance is None else performance.tokens_sent())
            if asked.error is not None:
                raise self._queue_cost.told(asked.error, self._fleet.view(), self._fleet.clock())
            for attempt in asked.attempts[-1:]:
                self._queue_cost.answered(attempt.replica_id, self._fleet.clock())

    def _tell_failed(self, request: Request, attempt: AttemptResult) -> None:
        for listener in self.on_failed:
            listener(request, attempt)

    def _perform(self, effect: Send | Hedge) -> _Attempt | _Race:
        begin = partial(_Attempt, self._fleet, self._running)
        return begin(effect) if isinstance(effect, Send) else _Race(begin, effect)

    def _story(self, request: Request) -> Story:
        story = dispatch(request, self._fleet.view, self._fleet.clock, self.policies)
        story = counted(story, self.counts, partial(self._tell_failed, request))
        if self._on_decision is None:
            return story
        return logged(story, request.request_id, self._fleet.clock, self._on_decision)


class _Attempt:
    """One `Send`, performed: its events while it runs, its result afterwards."""

    def __init__(self, fleet: Fleet, running: dict[_Attempt, None], send: Send) -> None:
        self.has_begun = False  # it has brought something
        self.replica_id = send.replica_id
        self._fleet = fleet
        self._running = running
        self._send = send
        self._token_ids: list[int] = []
        self._is_text = False
        self._cached_tokens = 0
        self._finish_reason: FinishReason | None = None
        self._error: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()  # the loop's clock, which timeouts are measured by
        within_s = send.within_s
        self._deadline_at = None if within_s is None else self._started_at + within_s
        self._is_patient = True  # until the limit on the first token has passed for good
        self._cut: RequestError | None = None
        self._limit: asyncio.Timeout | None = None  # on the event that is being waited for
        self.started_s = fleet.clock()
        self._first_token_s: float | None = None
        self._ended_s = self.started_s

    async def run(self) -> AsyncGenerator[TokenEvent, None]:
        """Yield what the replica sends. Never raises its failure: that is in `result`."""
        self._running[self] = None
        try:
            async with aclosing(self._fleet.attempt(self._send)) as events:
                while (event := await self._next(events)) is not None:
                    self._note(event)
                    yield event
        except RequestError as error:
            self._error = error
        except Exception:
            log.exception("attempt %d on replica %s broke", self._send.attempt, self._send.replica_id)
            self._error = InternalError("the gateway failed while serving this request")
        finally:
            del self._running[self]
            self._ended_s = self._fleet.clock()

    def cut_off(self, error: RequestError) -> None:
        """Let it fail with `error`, now or when its consumer comes back for more."""
        self._cut = error
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(self._loop.time())

    async def _next(self, events: AsyncGenerator[TokenEvent, None]) -> TokenEvent | None:
        """Return the next event, None at the end. Raises: the error of the limit that passes first."""
        try:
            async with asyncio.timeout_at(self._deadline_at) as self._limit:
                with self._first_token_limit(self._limit):
                    event = await anext(events, None)
        except TimeoutError:
            if self._limit is not None and self._limit.expired():
                raise self._too_late() from None
            raise
        finally:
            self._limit = None
        if self._cut is not None:
            raise self._cut
        if not self._is_patient or (self._deadline_at is not None and self._loop.time() >= self._deadline_at):
            raise self._too_late()
        return event

    @contextmanager
    def _first_token_limit(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Let `limit` expire early if the first token has not come, and need not be waited for any longer."""
        within_s = self._send.first_token_within_s
        if within_s is None or self.has_begun:
            yield
            return
        self._asking = self._loop.call_at(self._started_at + within_s, self._lose_patience, limit)
        try:
            yield
        finally:
            self._asking.cancel()

    def _lose_patience(self, limit: asyncio.Timeout) -> None:
        more_s = None if self._send.wait_on is None else self._send.wait_on(self._fleet.clock())
        if more_s is not None:
            self._asking = self._loop.call_later(more_s, self._lose_patience, limit)
        elif not limit.expired():
            self._is_patient = False
            limit.reschedule(self._loop.time())

    def _too_late(self) -> RequestError:
        if self._cut is not None:
            return self._cut
        if self._is_patient:
            return deadline_passed()
        return no_first_token(self._loop.time() - self._started_at)

    def _note(self, event: TokenEvent) -> None:
        self.has_begun = True
        self._token_ids += event.token_ids
        self._is_text = self._is_text or bool(event.text)
        self._finish_reason = event.finish_reason
        self._cached_tokens = max(self._cached_tokens, event.cached_tokens)
        if self._first_token_s is None:
            self._first_token_s = self._fleet.clock()

    def tokens_sent(self) -> tuple[int, ...]:
        return tuple(self._token_ids)

    def result(self, losers: tuple[AttemptResult, ...] = ()) -> AttemptResult:
        if self._error is None and self._finish_reason is None:
            self._error = InternalError("a replica's answer ended without a reason")
        if self._error is not None:
            _log_failure(self._send, self._error, len(self._token_ids))
        return self._told(losers)

    def result_as_loser(self) -> AttemptResult:
        """Return how it ended, aborted or failed; nothing of it has reached the client."""
        self._token_ids.clear()
        self._is_text = False
        self._finish_reason = None
        self._cached_tokens = 0
        return self._told(())

    def _told(self, losers: tuple[AttemptResult, ...]) -> AttemptResult:
        return AttemptResult(
            self._send.replica_id,
            self._finish_reason,
            self.tokens_sent(),
            self._error,
            self.started_s,
            self._first_token_s,
            self._ended_s,
            losers,
            self._cached_tokens,
            self._is_text,
        )


def _log_failure(send: Send, error: Exception, tokens: int) -> None:
    where = f"attempt {send.attempt} on {send.replica_id}"
    log.info("request %s %s: %s after %d tokens", send.request.request_id, where, type(error).__name__, tokens)


class _Lane:
    """One attempt of a race, running in a task of its own: an upstream's generator belongs to one task."""

    def __init__(self, attempt: _Attempt, news: asyncio.Queue[_Lane]) -> None:
        """`news` gets this lane once: when it has its first event, or has ended without one."""
        self.attempt = attempt
        self.events: asyncio.Queue[TokenEvent | None] = asyncio.Queue()  # None: the end
        self._news = news
        self._is_news_told = False
        self._task = asyncio.create_task(self._run(), name="lane of a hedged request")

    async def _run(self) -> None:
        async with aclosing(self.attempt.run()) as events:
            async for event in events:
                self._pass_on(event)
        self._pass_on(None)

    def _pass_on(self, event: TokenEvent | None) -> None:
        self.events.put_nowait(event)
        if not self._is_news_told:
            self._is_news_told = True
            self._news.put_nowait(self)

    async def stop(self) -> None:
        if not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class _Race:
    """One `Hedge`, performed: the events of whoever brings the first one."""

    def __init__(self, begin: Callable[[Send], _Attempt], hedge: Hedge) -> None:
        self._begin = begin
        self._hedge = hedge
        self._news: asyncio.Queue[_Lane] = asyncio.Queue()
        self._lanes: list[_Lane] = []
        self._decided: _Lane | None = None

    async def run(self) -> AsyncGenerator[TokenEvent, None]:
        """Yield the winner's events; whichever way this is left, no attempt runs on."""
        try:
            self._start(self._hedge.first)
            self._decided = winner = await self._first_to_bring_one()
            for lane in self._lanes:
                if lane is not winner:
                    await lane.stop()
            while (event := await winner.events.get()) is not None:
                yield event
        finally:
            for lane in self._lanes:
                await lane.stop()

    def _start(self, send: Send) -> None:
        self._lanes.append(_Lane(self._begin(send), self._news))

    async def _first_to_bring_one(self) -> _Lane:
        """Return the lane that brings an event first; if both fail, the last of them."""
        lane = await self._news_of_first_alone()
        if lane is not None:
            return lane
        if (second := self._hedge.second()) is not None:
            self._start(second)
        lane = await self._news.get()
        if not lane.attempt.has_begun and len(self._lanes) > 1:
            lane = await self._news.get()
        return lane

    async def _news_of_first_alone(self) -> _Lane | None:
        try:
            async with asyncio.timeout(self._hedge.after_s):
                return await self._news.get()
        except TimeoutError:
            return None

    def tokens_sent(self) -> tuple[int, ...]:
        return () if self._decided is None else self._decided.attempt.tokens_sent()

    def result(self) -> AttemptResult:
        assert self._decided is not None
        losers = [lane.attempt.result_as_loser() for lane in self._lanes if lane is not self._decided]
        return self._decided.attempt.result(tuple(losers))
