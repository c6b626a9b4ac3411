"""Policies meet the world: perform what `policies.dispatch` asks for, and stream the tokens past it to the client.

Knows asyncio and the fleet; decides nothing. The generator is told only how an attempt ended and which tokens reached
the client. When the client goes away, `generate` is closed wherever it stands, and closing the connection to the
replica is what frees its blocks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing

from miniserve.errors import InternalError, RequestError
from miniserve.live.door import Door
from miniserve.live.fleet import Fleet
from miniserve.policies.balancer import Balancer
from miniserve.policies.dispatch import dispatch
from miniserve.types import AttemptResult, Effect, FinishReason, Outcome, Request, Send, Sleep, TokenEvent

log = logging.getLogger(__name__)

_Story = Generator[Effect, AttemptResult | None, Outcome]


class FleetBackend:
    """The fleet as one `gateway.backend.Backend`."""

    def __init__(self, fleet: Fleet, balancer: Balancer, *, max_attempts: int = 3) -> None:
        self.door = Door("the gateway")
        self._fleet = fleet
        self._balancer = balancer
        self._max_attempts = max_attempts

    def ready(self) -> bool:
        return self.door.is_open and self._fleet.any_ready()

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing new, finish what runs; return whether all of it finished within `timeout_s`."""
        self.door.shut()
        return await self.door.empty(timeout_s)

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        """Yield the request's tokens from whichever replica serves it. Raises: the last attempt's error."""
        with self.door.enter():
            story = dispatch(request, self._fleet.view, self._balancer, max_attempts=self._max_attempts)
            try:
                asked = _next(story, None)
                while not isinstance(asked, Outcome):
                    result = None
                    match asked:
                        case Sleep(seconds):
                            await asyncio.sleep(seconds)
                        case Send():
                            attempt = _Attempt(self._fleet, asked)
                            async with aclosing(attempt.run()) as events:
                                async for event in events:
                                    yield event
                            result = attempt.result()
                    asked = _next(story, result)
            finally:
                story.close()
            if asked.error is not None:
                raise asked.error


def _next(story: _Story, result: AttemptResult | None) -> Effect | Outcome:
    try:
        return story.send(result)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


class _Attempt:
    """One `Send`, performed: its events while it runs, its result afterwards."""

    def __init__(self, fleet: Fleet, send: Send) -> None:
        self._fleet = fleet
        self._send = send
        self._token_ids: list[int] = []
        self._finish_reason: FinishReason | None = None
        self._error: Exception | None = None

    async def run(self) -> AsyncGenerator[TokenEvent, None]:
        """Yield what the replica sends. Never raises its failure: that is in `result`."""
        try:
            with self._fleet.sending(self._send.replica_id) as upstream:
                async with aclosing(upstream.generate(self._send.request)) as events:
                    async for event in events:
                        self._token_ids += event.token_ids
                        self._finish_reason = event.finish_reason
                        yield event
        except RequestError as error:
            self._error = error
        except Exception:
            log.exception("attempt %d on replica %s broke", self._send.attempt, self._send.replica_id)
            self._error = InternalError("the gateway failed while serving this request")

    def result(self) -> AttemptResult:
        if self._error is None and self._finish_reason is None:
            self._error = InternalError("a replica's answer ended without a reason")
        if self._error is not None:
            _log_failure(self._send, self._error, len(self._token_ids))
        return AttemptResult(self._send.replica_id, self._finish_reason, tuple(self._token_ids), self._error)


def _log_failure(send: Send, error: Exception, tokens: int) -> None:
    where = f"attempt {send.attempt} on {send.replica_id}"
    log.info("request %s %s: %s after %d tokens", send.request.request_id, where, type(error).__name__, tokens)
