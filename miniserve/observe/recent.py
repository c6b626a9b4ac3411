"""What clients got lately, for a person who watches: exact numbers over a recent window.

Prometheus has its own (`observe.metrics`), in buckets and since the start. Knows no clock; it is told the time.
"""

from __future__ import annotations

from collections import deque

from miniserve.observe.percentiles import Window

WINDOW_S = 5.0
TTFT_WINDOW = 2_000  # requests: the p99.9 then rests on two of them
ITL_WINDOW = 10_000  # tokens


class Recent:
    """Told of each generation as it begins, brings tokens, and ends."""

    def __init__(self) -> None:
        self.requests = 0
        self.in_flight = 0
        self.failed = 0
        self.ttft_s = Window(TTFT_WINDOW)
        self.itl_s = Window(ITL_WINDOW)
        self.e2e_s = Window(TTFT_WINDOW)  # of answers that were complete
        self._tokens: deque[tuple[float, int]] = deque()  # (tenth of a second, tokens in it)

    def begin(self) -> None:
        self.requests += 1
        self.in_flight += 1

    def add_tokens(self, count: int, now_s: float) -> None:
        """Count tokens that are sent to a client."""
        slot = round(now_s, 1)
        if self._tokens and self._tokens[-1][0] == slot:
            count += self._tokens.pop()[1]
        self._tokens.append((slot, count))
        self._forget(now_s)

    def end(self, *, failed: bool) -> None:
        self.in_flight -= 1
        self.failed += failed

    def tokens_per_s(self, now_s: float) -> float:
        """Return the rate of tokens sent to clients over the last `WINDOW_S` seconds."""
        self._forget(now_s)
        return sum(count for _, count in self._tokens) / WINDOW_S

    def _forget(self, now_s: float) -> None:
        while self._tokens and self._tokens[0][0] < now_s - WINDOW_S:
            self._tokens.popleft()
