"""What was decided, when and for which request, so that a simulated run and a live run can be compared.

Wrapped around a story, `logged` records every effect and result and changes nothing. If a simulated and a live run
leave equal logs, they made the same decisions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from miniserve.policies.dispatch import ClientLeft, advance, cancel
from miniserve.types import AttemptResult, Clock, Effect, Hedge, Outcome, Send, Sleep, Story


@dataclass(frozen=True, slots=True)
class Decision:
    """One entry. `what` is a verb and its objects: ("send", "r1", 0)."""

    at_s: float
    request_id: str  # empty: it is about no single request
    what: tuple[object, ...]


OnDecision = Callable[[Decision], None]

# What the objects of each verb are. `second` has no replica if the budget, or the lack of another, forbade it.
_OBJECTS: dict[object, tuple[str, ...]] = {
    "send": ("replica", "attempt"),
    "hedge": ("replica", "attempt"),
    "second": ("replica",),
    "sleep": ("seconds",),
    "result": ("replica", "finish_reason", "error", "tokens", "started_s", "first_token_s", "ended_s"),
    "left": ("tokens",),
    "end": ("finish_reason", "error", "attempts"),
    "scale": ("replicas",),
    "drain": ("replica",),
    "shares": ("new",),
    "mirror": ("fraction",),
    "rolled_back": ("version",),
    "retire": ("version",),
}


def decision_line(decision: Decision) -> str:
    """Return a decision as a line of JSON, the same whichever world it was made in."""
    verb, *objects = decision.what
    about = {"request": decision.request_id} if decision.request_id else {}
    fields = {"at_s": decision.at_s, **about, "what": verb, **dict(zip(_OBJECTS[verb], objects, strict=True))}
    return json.dumps(fields)


def logged(story: Story, request_id: str, clock: Clock, write: OnDecision) -> Story:
    """Run `story` unchanged, passing each of its decisions and results to `write`."""

    def note(*what: object) -> None:
        write(Decision(clock(), request_id, what))

    result: AttemptResult | None = None
    try:
        while not isinstance(effect := advance(story, result), Outcome):
            try:
                result = yield _noted(effect, note)
            except ClientLeft as left:
                note("left", len(left.token_ids))
                cancel(story, left.token_ids)
                raise
            if result is not None:
                for attempt in (*result.losers, result):
                    note("result", *_fields(attempt))
        note("end", effect.finish_reason, _named(effect.error), len(effect.attempts))
        return effect
    finally:
        story.close()


def _noted(effect: Effect, note: Callable[..., None]) -> Effect:
    match effect:
        case Sleep(seconds):
            note("sleep", seconds)
        case Send():
            note("send", effect.replica_id, effect.attempt)
        case Hedge():
            note("hedge", effect.first.replica_id, effect.first.attempt)

            def second() -> Send | None:
                send = effect.second()
                note("second", None if send is None else send.replica_id)
                return send

            return replace(effect, second=second)
    return effect


def _fields(attempt: AttemptResult) -> tuple[object, ...]:
    times = (attempt.started_s, attempt.first_token_s, attempt.ended_s)
    return attempt.replica_id, attempt.finish_reason, _named(attempt.error), len(attempt.token_ids), *times


def _named(error: Exception | None) -> str | None:
    return None if error is None else type(error).__name__
