"""How many requests may be inside at once? A fixed number, or one found by watching latency.

By Little's law a fleet that completes `x` requests/s in `s` seconds each holds `x * s` of them. Letting more in only
makes them wait inside. `Gradient2` looks for that point from outside: while latency stays at its long-run value, the
limit creeps up; when latency rises above that, the limit shrinks in proportion.

Knows how long requests took and how many were inside; nothing about replicas.

Source: Netflix concurrency-limits, `Gradient2Limit`.
"""

from __future__ import annotations

from typing import Protocol

from miniserve.errors import SetupError
from miniserve.policies.admission.admission import AdmissionVerdict, Admit, Reject
from miniserve.types import FleetView, Request


class Limit(Protocol):
    """How many requests may be inside, whether learned or fixed."""

    def current(self) -> int: ...

    def observe(self, latency_s: float, inflight: int) -> None:
        """Learn how long a request took, and how many were inside when it left, itself included."""
        ...


class FixedLimit:
    """Always the same number."""

    def __init__(self, *, limit: int = 64) -> None:
        if limit < 1:
            raise SetupError(f"limit ({limit}) must be at least 1")
        self._limit = limit

    def current(self) -> int:
        return self._limit

    def observe(self, latency_s: float, inflight: int) -> None: ...


class Gradient2:
    """Grows by `queue` while latency is as usual; shrinks by as much as latency exceeds the usual, at most by half.

    "Latency" is the mean of `samples` consecutive requests, since single ones vary too much to mean anything; "usual"
    is a slow average of those means. When latency falls below half the slow average, the average is pulled down faster.
    Under overload that never pauses, waiting inside becomes usual as well, and the limit drifts up: by a quarter in
    about 50,000 requests.
    """

    def __init__(
        self,
        *,
        initial: int = 20,  # this and the following: Netflix
        lowest: int = 20,
        highest: int = 200,
        smoothing: float = 0.2,
        queue: float = 4.0,
        long_window: int = 600,
        samples: int = 100,  # ours: the mean of 100 exponential times is within 10 %; 20 are too noisy to find 100
    ) -> None:
        if not 1 <= lowest <= initial <= highest or not 0 < smoothing <= 1 or min(long_window, samples) < 1:
            raise SetupError(
                f"needs 1 <= lowest ({lowest}) <= initial ({initial}) <= highest ({highest}), 0 < smoothing "
                f"({smoothing}) <= 1, long_window ({long_window}) and samples ({samples}) >= 1"
            )
        self._limit = float(initial)
        self._lowest = lowest
        self._highest = highest
        self._smoothing = smoothing
        self._queue = queue
        self._long_weight = 2 / (long_window + 1)
        self._samples = samples
        self._long_s = 0.0
        self._updates = 0
        self._sum_s = 0.0
        self._count = 0
        self._peak_inflight = 0

    def current(self) -> int:
        return int(self._limit)

    def observe(self, latency_s: float, inflight: int) -> None:
        self._sum_s += latency_s
        self._count += 1
        self._peak_inflight = max(self._peak_inflight, inflight)
        if self._count == self._samples:
            self._update(self._sum_s / self._count, self._peak_inflight)
            self._sum_s, self._count, self._peak_inflight = 0.0, 0, 0

    def _update(self, short_s: float, inflight: int) -> None:
        self._updates += 1
        weight = max(self._long_weight, 1 / self._updates)  # a plain mean at first, so that early samples weigh no more
        long_s = self._long_s + weight * (short_s - self._long_s)
        if long_s > 2 * short_s:
            long_s *= 0.9
        self._long_s = long_s
        if inflight < self._limit / 2:  # the limit is not what holds requests back: nothing to learn
            return
        gradient = max(0.5, min(1.0, long_s / short_s)) if short_s > 0 else 1.0
        wanted = self._limit * gradient + self._queue
        smoothed = (1 - self._smoothing) * self._limit + self._smoothing * wanted
        self._limit = min(self._highest, max(self._lowest, smoothed))


class ConcurrencyLimit:
    """Admits while fewer requests than the limit are inside."""

    def __init__(self, *, limit: Limit | None = None, retry_after_s: float = 1.0) -> None:
        self._limit = limit or FixedLimit()
        self._retry_after_s = retry_after_s
        self._inside: dict[str, float] = {}  # request id -> when it came in

    def decide(self, request: Request, view: FleetView, now_s: float) -> AdmissionVerdict:
        limit = self._limit.current()
        if len(self._inside) >= limit:
            message = f"{len(self._inside)} requests are inside, the limit is {limit}"
            return Reject(503, "too_many_requests_inside", message, self._retry_after_s)
        self._inside[request.request_id] = now_s
        return Admit()

    def finished(self, request: Request, tokens: int | None, now_s: float) -> None:
        if tokens is not None:
            self._limit.observe(now_s - self._inside[request.request_id], len(self._inside))
        del self._inside[request.request_id]
