"""Whether the fleet can afford one more retry: three ways to keep failures from multiplying the load.

A retry policy sees a single request; a storm is made of many, each with a good reason to retry. A budget sees all the
requests of one gateway. Retry at one layer only: five layers that try three times each turn one request into 243
attempts.

Budgets know counts of requests, attempts and failures, and the time they are told; they cannot tell requests apart.

Source: Finagle `RetryBudget`; gRPC A6 (throttling); Google SRE book, chapter 21 (client-side throttling).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from miniserve.errors import SetupError
from miniserve.seeds import generator

_MILLI = 1000  # amounts are whole thousandths, so that sums are exact
_SLOTS = 10  # slots per window; a window forgets slot by slot


class Budget(Protocol):
    """Is told of requests and results, and decides whether one more attempt (a retry or a hedge) may be sent."""

    def deposit(self, now_s: float) -> None:
        """Count one new request."""
        ...

    def withdraw(self, now_s: float) -> bool:
        """Take the price of one extra attempt; False: refused, and nothing is taken."""
        ...

    def record(self, ok: bool, now_s: float) -> None:
        """Count how an attempt ended. Report only failures that a retry could fix."""
        ...


class SlidingSum:
    """A sum over the last `window_s` seconds, plus at most a tenth of that."""

    def __init__(self, window_s: float) -> None:
        self._slot_s = window_s / _SLOTS
        self._slots: deque[tuple[int, int]] = deque()  # (slot number, amount), oldest first
        self._total = 0

    def add(self, amount: int, now_s: float) -> None:
        slot = int(now_s / self._slot_s)
        self._total += amount
        if self._slots and self._slots[-1][0] >= slot:
            slot, before = self._slots.pop()
            amount += before
        self._slots.append((slot, amount))

    def total(self, now_s: float) -> int:
        oldest = int(now_s / self._slot_s) - _SLOTS
        while self._slots and self._slots[0][0] < oldest:
            self._total -= self._slots.popleft()[1]
        return self._total


class RetryBudget:
    """Finagle's budget: every request pays for a fifth of a retry; unused credit expires.

    Invariant: over any `ttl_s`, withdrawals <= `ratio` * deposits of the last 2.1 ttl + `floor_per_s` * ttl: the first
    of them may have been paid for by deposits that were about to expire.
    """

    def __init__(self, *, ratio: float = 0.2, floor_per_s: float = 10.0, ttl_s: float = 10.0) -> None:  # all Finagle's
        if ratio < 0 or floor_per_s < 0 or ttl_s <= 0:
            raise SetupError(f"ratio ({ratio}) and floor_per_s ({floor_per_s}) must be >= 0 and ttl_s ({ttl_s}) > 0")
        self._deposit = round(ratio * _MILLI)
        self._reserve = round(floor_per_s * ttl_s * _MILLI)
        self._balance = SlidingSum(ttl_s)

    def deposit(self, now_s: float) -> None:
        self._balance.add(self._deposit, now_s)

    def withdraw(self, now_s: float) -> bool:
        if self._reserve + self._balance.total(now_s) < _MILLI:
            return False
        self._balance.add(-_MILLI, now_s)
        return True

    def record(self, ok: bool, now_s: float) -> None:
        """Ignore results: this budget depends on the traffic, not on how it fares."""


class TokenThrottle:
    """gRPC's throttle: a failure costs a token, a success earns a tenth; extra attempts only while over half full."""

    def __init__(self, *, max_tokens: float = 10.0, token_ratio: float = 0.1) -> None:  # A6's example
        if max_tokens <= 0 or token_ratio <= 0:
            raise SetupError(f"max_tokens ({max_tokens}) and token_ratio ({token_ratio}) must be above 0")
        self._max = self._tokens = round(max_tokens * _MILLI)
        self._earned = round(token_ratio * _MILLI)

    def deposit(self, now_s: float) -> None:
        """Ignore requests: only results move tokens."""

    def withdraw(self, now_s: float) -> bool:
        return 2 * self._tokens > self._max

    def record(self, ok: bool, now_s: float) -> None:
        change = self._earned if ok else -_MILLI
        self._tokens = min(self._max, max(0, self._tokens + change))


class Unlimited:
    """Allows every extra attempt. For teaching what happens then."""

    def deposit(self, now_s: float) -> None: ...

    def withdraw(self, now_s: float) -> bool:
        return True

    def record(self, ok: bool, now_s: float) -> None: ...


class ClientThrottle:
    """Google's throttle: the fewer requests a backend accepts, the more are refused locally.

    It limits all requests, not only retries: P(refuse) = max(0, (requests - k * accepts) / (requests + 1)). So a
    backend that accepts `c` requests/s is sent about `k * c`, whatever the demand.
    """

    def __init__(self, *, k: float = 2.0, window_s: float = 120.0, seed: int = 0) -> None:  # SRE book's
        if k < 1 or window_s <= 0:
            raise SetupError(f"k ({k}) must be at least 1 and window_s ({window_s}) above 0")
        self._k = k
        self._requests = SlidingSum(window_s)
        self._accepts = SlidingSum(window_s)
        self._rng = generator(seed, "client throttle")

    def refuse_probability(self, now_s: float) -> float:
        """Return the share of requests that would be refused now."""
        requests, accepts = self._requests.total(now_s), self._accepts.total(now_s)
        return max(0.0, (requests - self._k * accepts) / (requests + 1))

    def admits(self, now_s: float) -> bool:
        """Count one request, sent or not; return whether to send it."""
        probability = self.refuse_probability(now_s)
        self._requests.add(1, now_s)
        return self._rng.random() >= probability

    def accepted(self, now_s: float) -> None:
        """Count one request that the backend accepted, whatever it answered."""
        self._accepts.add(1, now_s)


BUDGETS: dict[str, Callable[..., Budget]] = {"finagle": RetryBudget, "grpc": TokenThrottle, "unlimited": Unlimited}
