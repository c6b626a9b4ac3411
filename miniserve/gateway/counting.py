"""Count a story's attempts as it is told: which replica, after what, and how each ended. Changes nothing in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from miniserve.observe.counts import GatewayCounts
from miniserve.policies.dispatch import ClientLeft, advance, cancel
from miniserve.types import AttemptResult, Effect, Hedge, Outcome, Request, Send, Story

OnFailedAttempt = Callable[[Request, AttemptResult], None]


def counted(
    story: Story, counts: GatewayCounts, failed: Callable[[AttemptResult], object] = lambda attempt: None
) -> Story:
    """Run `story` unchanged, counting its attempts in `counts`; `failed` is told of those that failed."""
    result: AttemptResult | None = None
    try:
        while not isinstance(effect := advance(story, result), Outcome):
            try:
                result = yield _counted(effect, counts)
            except ClientLeft as left:
                counts.clients_left += 1
                cancel(story, left.token_ids)
                raise
            if result is not None:
                for attempt in (*result.losers, result):
                    if attempt.error is not None:
                        counts.replicas[attempt.replica_id].failures[error_kind(attempt.error)] += 1
                        failed(attempt)
        return effect
    finally:
        story.close()


def error_kind(error: Exception) -> str:
    """Return what to call an error in a label: `NoFirstToken` is "no_first_token"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()


def _counted(effect: Effect, counts: GatewayCounts) -> Effect:
    if isinstance(effect, Send):
        _begin(effect, counts)
    elif isinstance(effect, Hedge):
        _begin(effect.first, counts)
        return replace(effect, second=lambda: _second(effect, counts))
    return effect


def _second(hedge: Hedge, counts: GatewayCounts) -> Send | None:
    if (send := hedge.second()) is not None:
        _begin(send, counts, is_hedge=True)
    return send


def _begin(send: Send, counts: GatewayCounts, *, is_hedge: bool = False) -> None:
    at = counts.replicas[send.replica_id]
    at.attempts += 1
    at.hedges += is_hedge
    at.retries += send.attempt > 0 and not is_hedge
    at.resumed += bool(send.request.resume_ids)
