"""The last ten minutes as numbers, one row a second: what the page's charts begin with when somebody opens it.

Pure: told of answers and of views, with the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from miniserve.types import FleetView

PERIOD_S = 1.0
KEPT_SAMPLES = 600
TTFT_WINDOW_S = 30.0  # the percentiles of a sample are those of the answers in the seconds before it
RATE_WINDOW_S = 5.0
MOST_ANSWERS = 20_000  # in a window; beyond, the oldest are forgotten early

COLUMNS = (
    "at_s",  # seconds since 1970
    "ttft_p50_s",
    "ttft_p95_s",
    "ttft_p99_s",
    "tokens_per_s",
    "requests_per_s",
    "failed_per_s",
    "waiting",  # requests in the replicas' queues
    "running",
    "kv_mean",  # share of the KV blocks in use, over the replicas that are ready
    "kv_most",
    "ready",  # replicas
    "replicas",
)
Row = list[float | None]


@dataclass(frozen=True, slots=True)
class _Ended:
    at_s: float
    ttft_s: float | None
    failed: bool


@dataclass
class PageSamples:
    """`answered` for each call, `take` once a second."""

    _ended: deque[_Ended] = field(default_factory=lambda: deque(maxlen=MOST_ANSWERS))
    _rows: deque[Row] = field(default_factory=lambda: deque(maxlen=KEPT_SAMPLES))

    def answered(self, now_s: float, ttft_s: float | None, failed: bool) -> None:
        self._ended.append(_Ended(now_s, ttft_s, failed))

    def take(self, now_s: float, wall_s: float, view: FleetView, tokens_per_s: float) -> Row:
        """Make a sample of this moment, keep it and return it, in the order of `COLUMNS`."""
        while self._ended and self._ended[0].at_s < now_s - TTFT_WINDOW_S:
            self._ended.popleft()
        lately = list(self._lately(now_s - RATE_WINDOW_S))
        ttfts = sorted(one.ttft_s for one in self._ended if one.ttft_s is not None)
        ready = view.ready()
        kv = [one.kv_used_fraction for one in ready] or [0.0]
        row: Row = [
            round(wall_s, 1),
            *(_percentile(ttfts, share) for share in (0.5, 0.95, 0.99)),
            round(tokens_per_s, 1),
            len(lately) / RATE_WINDOW_S,
            sum(one.failed for one in lately) / RATE_WINDOW_S,
            sum(one.queue_depth for one in view.replicas),
            sum(one.running for one in view.replicas),
            round(sum(kv) / len(kv), 4),
            round(max(kv), 4),
            len(ready),
            len(view.replicas),
        ]
        self._rows.append(row)
        return row

    def rows(self) -> list[Row]:
        return list(self._rows)

    def _lately(self, since_s: float) -> Iterator[_Ended]:
        for one in reversed(self._ended):
            if one.at_s < since_s:
                return
            yield one


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the value that at least `share` of the values do not surpass (the nearest rank)."""
    if not ordered:
        return None
    rank = max(1, -(-len(ordered) * round(share * 100) // 100))
    return round(ordered[rank - 1], 4)
