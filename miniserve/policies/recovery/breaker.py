"""A circuit breaker: stop calling what keeps failing; after a while try again with a few calls, then with all.

    CLOSED ── too many of the last calls failed ──> OPEN
    OPEN ── `open_s` has passed ──> HALF_OPEN
    HALF_OPEN ── `trials` successes ──> CLOSED        HALF_OPEN ── one failure ──> OPEN, for longer

Each change of state begins a new *generation*. A call carries the generation in which it entered, and its result counts
only in that one: a call sent before the circuit opened says nothing about the half-open replica.

A breaker knows how its own calls ended, and nothing about other breakers. Its caller decides what counts as a failure
*of the replica*: a request that fails everywhere does not (`ejection.py` tells them apart).

Invariants: it opens only after at least `minimum_calls` results, of which a share >= `failure_ratio` are failures;
while open it admits no calls; while half-open it admits at most `trials` at a time; every permit is recorded exactly
once, and a cancelled call counts neither way.

Source: Nygard, "Release It!"; the counters follow Resilience4j, the numbers Polly.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from miniserve.errors import SetupError


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission to make one call. Belongs to the generation that granted it."""

    generation: int


class Breaker:
    """The circuit in front of one replica."""

    def __init__(
        self,
        *,
        failure_ratio: float = 0.5,  # Resilience4j
        window: int = 20,  # calls; Resilience4j's 100 would take too long to collect from long answers
        minimum_calls: int = 8,  # Polly's example
        open_s: float = 5.0,  # Polly
        trials: int = 3,  # successes that close it; Resilience4j uses 10
        growth: float = 2.0,  # each consecutive opening lasts this many times longer ...
        max_open_s: float = 60.0,  # ... up to Resilience4j's wait
    ) -> None:
        if not 0 < failure_ratio <= 1 or not 1 <= minimum_calls <= window or trials < 1:
            raise SetupError(
                f"a breaker needs 0 < failure_ratio ({failure_ratio}) <= 1, "
                f"1 <= minimum_calls ({minimum_calls}) <= window ({window}) and trials ({trials}) >= 1"
            )
        if not 0 < open_s <= max_open_s or growth < 1:
            raise SetupError(f"a breaker needs 0 < open_s ({open_s}) <= max_open_s ({max_open_s}), growth >= 1")
        self._failure_ratio = failure_ratio
        self._minimum_calls = minimum_calls
        self._open_s = open_s
        self._trials = trials
        self._growth = growth
        self._max_open_s = max_open_s
        self._state = BreakerState.CLOSED
        self._generation = 0
        self._failures: deque[bool] = deque(maxlen=window)  # CLOSED: the last calls, True = failed
        self._until_s = 0.0  # OPEN: when it ends
        self._open_for_s = open_s  # how long the next opening lasts
        self._entered = 0  # HALF_OPEN: trials running or succeeded
        self._succeeded = 0

    def state(self, now_s: float) -> BreakerState:
        """Return the state at `now_s`; once an opening is over, the state is half-open."""
        if self._state is BreakerState.OPEN and now_s >= self._until_s:
            self._become(BreakerState.HALF_OPEN)
        return self._state

    def allows(self, now_s: float) -> bool:
        """Return whether `enter` would grant a permit."""
        match self.state(now_s):
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return False
            case BreakerState.HALF_OPEN:
                return self._entered < self._trials

    def enter(self, now_s: float) -> Permit | None:
        """Return a permit for one call, to be recorded when the call ends; None if the circuit does not allow it."""
        if not self.allows(now_s):
            return None
        if self._state is BreakerState.HALF_OPEN:
            self._entered += 1
        return Permit(self._generation)

    def record(self, permit: Permit, ok: bool | None, now_s: float) -> None:
        """Count how a call ended; `None` (cancelled, or not the replica's fault) counts neither way."""
        if permit.generation != self._generation:
            return
        if self._state is BreakerState.HALF_OPEN:
            self._record_trial(ok, now_s)
        elif ok is not None:
            self._failures.append(not ok)
            if self._too_many_failed():
                self._open(now_s)

    def _too_many_failed(self) -> bool:
        calls = len(self._failures)
        return calls >= self._minimum_calls and sum(self._failures) >= self._failure_ratio * calls

    def _record_trial(self, ok: bool | None, now_s: float) -> None:
        if ok is None:
            self._entered -= 1
        elif not ok:
            self._open(now_s)
        else:
            self._succeeded += 1
            if self._succeeded == self._trials:
                self._open_for_s = self._open_s
                self._become(BreakerState.CLOSED)

    def _open(self, now_s: float) -> None:
        self._until_s = now_s + self._open_for_s
        self._open_for_s = min(self._max_open_s, self._open_for_s * self._growth)
        self._become(BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        self._state = state
        self._generation += 1
        self._failures.clear()
        self._entered = self._succeeded = 0
