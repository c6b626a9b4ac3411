"""What lies between the gateway and a replica: distance, and connections that break.

A `SimAttempt` is an attempt as its replica sees it. This module wraps one in two ways that look the same to a driver:
`CutAttempt` loses its stream after a number of tokens, `FarAttempt` begins later and hears everything later. Neither
decides anything; `SimFleet` says which attempt is cut and how far away a replica is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import simpy

from miniserve.errors import RequestError, SetupError
from miniserve.faults import AttemptFault
from miniserve.types import FinishReason, Request


class Attempt(Protocol):
    """One request on its way through one replica, such as `sim.replica.SimAttempt`.

    `ended` fires once, with the value None; `finish_reason` or `error` is then set. `first_token` fires before it or
    never.
    """

    @property
    def first_token(self) -> simpy.Event: ...
    @property
    def ended(self) -> simpy.Event: ...
    @property
    def finish_reason(self) -> FinishReason | None: ...
    @property
    def error(self) -> RequestError | None: ...
    @property
    def first_token_s(self) -> float | None: ...
    @property
    def cached_tokens(self) -> int: ...
    def tokens_sent(self) -> int: ...
    def abort(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Distances:
    """One-way seconds between regions, in either order. No region, or the same region, means no delay."""

    seconds: Mapping[tuple[str, str], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pair, seconds in self.seconds.items():
            if not seconds >= 0:
                raise SetupError(f"the distance {pair[0]!r} to {pair[1]!r} ({seconds} s) must be at least 0")

    def one_way_s(self, here: str | None, there: str | None) -> float:
        """Raises: SetupError for two regions whose distance is not given."""
        if not here or not there or here == there:
            return 0.0
        seconds = self.seconds.get((here, there), self.seconds.get((there, here)))
        if seconds is None:
            raise SetupError(f"the distance between the regions {here!r} and {there!r} is not given")
        return seconds


def shortened(request: Request, fault: AttemptFault) -> Request:
    """Return the request as the replica serves it when its stream will break: its work ends where the stream does."""
    tokens = min(request.sampling.max_tokens, len(request.resume_ids) + fault.after_tokens)
    return replace(request, sampling=replace(request.sampling, max_tokens=tokens))


class CutAttempt:
    """An attempt at a `shortened` request, which fails once all its tokens have come. Shorter answers escape."""

    __slots__ = ("_fault", "_inner")

    def __init__(self, inner: Attempt, fault: AttemptFault) -> None:
        self._inner = inner
        self._fault = fault

    @property
    def first_token(self) -> simpy.Event:
        return self._inner.first_token

    @property
    def ended(self) -> simpy.Event:
        return self._inner.ended

    @property
    def first_token_s(self) -> float | None:
        return self._inner.first_token_s

    @property
    def finish_reason(self) -> FinishReason | None:
        return None if self._is_cut() else self._inner.finish_reason

    @property
    def error(self) -> RequestError | None:
        return self._fault.error() if self._is_cut() else self._inner.error

    @property
    def cached_tokens(self) -> int:
        return self._inner.cached_tokens

    def tokens_sent(self) -> int:
        return self._inner.tokens_sent()

    def abort(self) -> None:
        self._inner.abort()

    def _is_cut(self) -> bool:
        ended_by_itself = self._inner.finish_reason not in (None, FinishReason.ABORT)
        return ended_by_itself and self.tokens_sent() == self._fault.after_tokens


class FarAttempt:
    """An attempt that `start` begins `one_way_s` from now, and whose news takes as long to come back.

    Tokens in transit count as sent: only a fault can stop them. An abort takes effect here at once, and stops the work
    there when it arrives.
    """

    def __init__(self, env: simpy.Environment, one_way_s: float, start: Callable[[], Attempt]) -> None:
        self._env = env
        self._one_way_s = one_way_s
        self._start = start
        self._inner: Attempt | None = None
        self.first_token = simpy.Event(env)
        self.ended = simpy.Event(env)
        self.error: RequestError | None = None
        self.finish_reason: FinishReason | None = None
        self.first_token_s: float | None = None
        self._later(self._begin)

    @property
    def cached_tokens(self) -> int:
        return 0 if self._inner is None or self.first_token_s is None else self._inner.cached_tokens

    def tokens_sent(self) -> int:
        return 0 if self._inner is None or self.first_token_s is None else self._inner.tokens_sent()

    def abort(self) -> None:
        if not self.ended.triggered:
            self._end(FinishReason.ABORT, None)
            self._later(self._abort_there)

    def _later(self, call: Callable[[], None]) -> None:
        def wake(_: simpy.Event) -> None:
            call()

        self._env.timeout(self._one_way_s).callbacks.append(wake)

    def _begin(self) -> None:
        try:
            self._inner = self._start()
        except RequestError as error:
            self._refused(error)
            return
        self._inner.first_token.callbacks.append(lambda _: self._later(self._hear_first_token))
        self._inner.ended.callbacks.append(lambda _: self._later(self._hear_end))

    def _refused(self, error: RequestError) -> None:
        self._later(lambda: self._end(None, error))

    def _hear_first_token(self) -> None:
        if not self.ended.triggered:
            self.first_token_s = self._env.now
            self.first_token.succeed()

    def _hear_end(self) -> None:
        assert self._inner is not None
        self._end(self._inner.finish_reason, self._inner.error)

    def _abort_there(self) -> None:
        if self._inner is not None:
            self._inner.abort()

    def _end(self, finish_reason: FinishReason | None, error: RequestError | None) -> None:
        if not self.ended.triggered:
            self.finish_reason, self.error = finish_reason, error
            self.ended.succeed()
