"""Whether a failed request is retried, and after how long.

A retry policy knows the error, how often the request has failed, and its deadline. It does not know whether the fleet
can afford the retry: dispatch asks the budget that (`retry_budget.py`), as a separate question. Nor does it know what
has reached the client: after the first token a plain retry is out of the question, whatever this module says.

See `waits` for how long a wait is, and why it is random.

Source: gRPC A6 for the push-back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from miniserve.errors import Overloaded, RateLimited, RequestError, SetupError
from miniserve.policies.recovery import waits
from miniserve.seeds import generator


class RetryPolicy(Protocol):
    """Decides about the next attempt of one request."""

    def delay_s(self, attempt: int, error: Exception, now_s: float, deadline_s: float | None) -> float | None:
        """Return how long to wait before the next attempt, or None to give up. `attempt`: failures so far, from 1."""
        ...


def may_retry(error: Exception) -> bool:
    """Return whether another attempt can help: the error is retryable, and no negative push-back forbids it."""
    if not isinstance(error, RequestError) or not error.retryable:
        return False
    return error.retry_after_s is None or error.retry_after_s >= 0


def was_too_busy(error: Exception) -> bool:
    """Return whether a replica was only too busy: it has done no work for the request, and another may be free."""
    return isinstance(error, RateLimited | Overloaded) and may_retry(error)


class NeverRetry:
    """One attempt per request."""

    def delay_s(self, attempt: int, error: Exception, now_s: float, deadline_s: float | None) -> float | None:
        return None


class NaiveRetry:
    """Retries at once, whatever the error: this is how retry storms start. For teaching."""

    def __init__(self, *, max_attempts: int = 10, wait_s: float = 0.0) -> None:
        check_settings(max_attempts, wait_s, wait_s)
        self._max_attempts = max_attempts
        self._wait_s = wait_s

    def delay_s(self, attempt: int, error: Exception, now_s: float, deadline_s: float | None) -> float | None:
        return self._wait_s if attempt < self._max_attempts else None


class Backoff:
    """Waits exponentially longer, with jitter; obeys the server's push-back; never waits past the deadline."""

    def __init__(
        self,
        *,
        max_attempts: int = 3,  # Google SRE book; includes the first
        base_s: float = 0.05,  # botocore 2.1, for errors other than throttling
        cap_s: float = 20.0,  # botocore
        jitter: waits.Jitter = waits.full_jitter,
        seed: int = 0,
    ) -> None:
        check_settings(max_attempts, base_s, cap_s)
        self._max_attempts = max_attempts
        self._waits = waits.Waits(generator(seed, "retry"), base_s, cap_s)
        self._jitter = jitter

    def delay_s(self, attempt: int, error: Exception, now_s: float, deadline_s: float | None) -> float | None:
        """Return the wait before the next attempt, or None to give up; `attempt` counts the failures so far, from 1."""
        if attempt >= self._max_attempts or not may_retry(error):
            return None
        pushed_back_s = error.retry_after_s if isinstance(error, RequestError) else None
        delay_s = self._draw(attempt) if pushed_back_s is None else pushed_back_s
        return delay_s if deadline_s is None or now_s + delay_s < deadline_s else None

    def _draw(self, attempt: int) -> float:
        """Draw this wait and, since earlier waits are not remembered, redraw the ones that may have led up to it."""
        wait_s = self._waits.base_s
        for failures in range(1, attempt + 1):
            wait_s = self._jitter(self._waits, failures, wait_s)
        return wait_s


def expected_attempts(failure_probability: float, max_attempts: int) -> float:
    """Return the mean number of attempts when each fails independently: (1 - p^n) / (1 - p)."""
    return sum(failure_probability**n for n in range(max_attempts))


def check_settings(max_attempts: int, base_s: float, cap_s: float) -> None:
    """Refuse settings that make no sense. Raises: SetupError."""
    if max_attempts < 1:
        raise SetupError(f"max_attempts ({max_attempts}) must be at least 1: the first attempt counts too")
    if not 0 <= base_s <= cap_s:
        raise SetupError(f"waits need 0 <= base_s ({base_s:g}) <= cap_s ({cap_s:g})")


RETRIES: dict[str, Callable[..., RetryPolicy]] = {"never": NeverRetry, "naive": NaiveRetry, "backoff": Backoff}
