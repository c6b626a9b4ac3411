"""Messages to somebody else's server, which may be slow, broken or not there: that costs nothing here.

One at a time, from a queue with an end: when the receiver hangs for long, the oldest messages are given up. A message
is tried a few times with growing waits; that the receiver does not take them is said once, until it does again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import httpx

from miniserve.policies.recovery.waits import Waits

log = logging.getLogger(__name__)

QUEUED = 100  # messages
TRIES = 4
TIMEOUT_S = 5.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0


class Webhook:
    """Sends JSON objects to `url` in the background; `on_trouble` is told when they do not arrive."""

    def __init__(self, url: str, on_trouble: Callable[[str], object], *, first_wait_s: float = FIRST_WAIT_S) -> None:
        self._url = url
        self._on_trouble = on_trouble
        self._waits = Waits(Random(), first_wait_s, LONGEST_WAIT_S)  # nothing is decided by it
        self._queue: deque[Mapping[str, Any]] = deque(maxlen=QUEUED)
        self._task: asyncio.Task[None] | None = None
        self._is_in_trouble = False

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue a message. Call it on the event loop."""
        self._queue.append(message)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send_all(), name="alert webhook")

    async def close(self) -> None:
        """Give up what has not been sent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _send_all(self) -> None:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            while self._queue:
                trouble = await self._sent(client, self._queue.popleft())
                if trouble is not None and not self._is_in_trouble:
                    self._on_trouble(f"the webhook for alerts does not take them: {trouble}")
                self._is_in_trouble = trouble is not None

    async def _sent(self, client: httpx.AsyncClient, message: Mapping[str, Any]) -> str | None:
        """Return None once the message has been taken, else why not."""
        trouble: str | None = None
        for failures in range(TRIES):
            if failures:
                await asyncio.sleep(self._waits.full(failures, 0.0))
            try:
                answer = await client.post(self._url, json=message)
            except httpx.HTTPError as error:
                trouble = f"{type(error).__name__}"
                continue
            if answer.is_success:
                return None
            trouble = f"it answers {answer.status_code}"
            if answer.status_code < 500 and answer.status_code != 429:
                return trouble  # it will not like the same message better later
        return trouble
