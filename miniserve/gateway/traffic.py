"""What clients got lately: a backend that passes everything through and keeps the numbers a person wants to see.

For the live table. Prometheus has its own (`observe.metrics`), in buckets; these are exact, over a recent window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

from miniserve.api.backend import Backend
from miniserve.observe.percentiles import Window
from miniserve.types import Clock, Request, TokenEvent

WINDOW_S = 5.0
TTFT_WINDOW = 500  # requests: the p99 then rests on five of them


class Traffic:
    """Counts around another backend; a `Backend` itself."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self.requests = 0
        self.in_flight = 0
        self.failed = 0
        self.ttft_s = Window(TTFT_WINDOW)
        self._backend = backend
        self._clock = clock
        self._tokens: deque[tuple[float, int]] = deque()  # (tenth of a second, tokens in it)

    def ready(self) -> bool:
        return self._backend.ready()

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        started_s, first = self._clock(), True
        self.requests += 1
        self.in_flight += 1
        try:
            async with aclosing(self._backend.generate(request)) as events:
                async for event in events:
                    if first and event.token_ids:
                        first = False
                        self.ttft_s.add(self._clock() - started_s)
                    self._count(len(event.token_ids))
                    yield event
        except Exception:
            self.failed += 1
            raise
        finally:
            self.in_flight -= 1

    def tokens_per_s(self) -> float:
        """Return the rate of tokens sent to clients over the last `WINDOW_S` seconds."""
        self._forget()
        return sum(count for _, count in self._tokens) / WINDOW_S

    def _count(self, tokens: int) -> None:
        slot = round(self._clock(), 1)
        if self._tokens and self._tokens[-1][0] == slot:
            tokens += self._tokens.pop()[1]
        self._tokens.append((slot, tokens))
        self._forget()

    def _forget(self) -> None:
        oldest_s = self._clock() - WINDOW_S
        while self._tokens and self._tokens[0][0] < oldest_s:
            self._tokens.popleft()
