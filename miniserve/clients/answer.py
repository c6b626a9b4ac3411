"""One streamed answer as a client reads it: when its tokens came, how it ended, and what that means for another try."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from miniserve.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    Overloaded,
    RateLimited,
    RequestError,
    UpstreamError,
)
from miniserve.observe.outcomes import CLIENT_LEFT, SERVED
from miniserve.sse import SSEDecoder

_KINDS = (RateLimited, InternalError, UpstreamError, Overloaded, DeadlineExceeded)
_BY_STATUS = {kind.status: kind for kind in _KINDS}
_BY_TYPE = {kind.type: kind for kind in _KINDS}
_GAVE_UP = {CLIENT_LEFT, DeadlineExceeded.status}  # the limit was this client's own, so it may ask again


@dataclass(slots=True)
class Answer:
    """One answer so far. Until it has ended properly it counts as broken off."""

    status: int = UpstreamError.status
    problem: str = "the answer broke off"
    retry_after_s: float | None = None  # as the server asked for
    first_token_s: float | None = None
    last_token_s: float = 0.0
    ended_s: float | None = None
    pieces: int = 0
    gaps_s: list[float] = field(default_factory=list)  # between tokens
    usage: dict[str, Any] = field(default_factory=dict)
    _decoder: SSEDecoder = field(default_factory=SSEDecoder)

    def fail(self, status: int, problem: str, retry_after: str | None = None) -> None:
        """Record how it failed."""
        self.status, self.problem = status, problem
        self.retry_after_s = _seconds(retry_after)

    def error(self) -> RequestError:
        """Return what a retry policy is told of an answer that failed."""
        if self.status in _GAVE_UP:
            return Overloaded(self.problem, code="client_timeout")
        kind = _BY_STATUS.get(self.status, InvalidRequest if self.status < 500 else UpstreamError)
        return kind(self.problem, retry_after_s=self.retry_after_s)

    def feed(self, chunk: bytes, now_s: float) -> None:
        """Read what has just come. Raises: ValueError if it is not what the API promises; the error it speaks of."""
        before = self.pieces
        for data in self._decoder.feed(chunk):
            self._take(data, now_s)
        if not (came := self.pieces - before):
            return
        if self.first_token_s is None:
            self.first_token_s = now_s
            came -= 1
            self.gaps_s += [0.0] * came
        else:  # tokens that come together share their time, as in the server's own metrics
            self.gaps_s += [(now_s - self.last_token_s) / came] * came
        self.last_token_s = now_s

    def _take(self, data: str, now_s: float) -> None:
        if data == "[DONE]":
            self.status, self.ended_s = SERVED, now_s
            return
        try:
            event = json.loads(data)
        except RecursionError:
            raise ValueError(f"an event is nested too deeply: {data[:100]}") from None
        if not isinstance(event, dict):
            raise ValueError(f"an event is no object: {data[:100]}")
        if "error" in event:
            raise _kind_of(event["error"])(message_in(data))
        self.usage = event.get("usage") or self.usage
        self.pieces += sum(1 for choice in event.get("choices", ()) if choice.get("text"))


def _kind_of(error: object) -> type[RequestError]:
    kind = error.get("type") if isinstance(error, dict) else None
    return _BY_TYPE.get(kind, UpstreamError) if isinstance(kind, str) else UpstreamError


def message_in(body: str | bytes) -> str:
    """Return the message of an error object."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "the server gave no reason"


def _seconds(retry_after: str | None) -> float | None:
    try:
        wait_s = float(retry_after) if retry_after is not None else math.nan
    except ValueError:
        return None  # a date: no server of ours sends one
    return wait_s if 0 <= wait_s < math.inf else None
