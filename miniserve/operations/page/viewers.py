"""Everybody who has the page open gets the same text once a second, and whoever cannot keep up gets less of it.

A viewer's generator waits until there is something newer than what it sent last. One that has missed a text (its
browser was asleep, its network slow) is sent the whole history again instead of what it missed, so nothing queues up
for it: memory per viewer is bounded, and its charts have no gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from miniserve.errors import Overloaded

MOST_VIEWERS = 20


class Viewers:
    """`publish` what is new; `follow` is one viewer. `everything` makes the text for who has just come."""

    def __init__(self, everything: Callable[[], str]) -> None:
        self.count = 0
        self._everything = everything
        self._number = 0
        self._text = ""
        self._whole: tuple[int, str] | None = None  # made once for all who come between two texts
        self._changed = asyncio.Event()
        self._is_closed = False

    def publish(self, text: str) -> None:
        self._number += 1
        self._text = text
        self._wake()

    def close(self) -> None:
        """Let every viewer's stream end."""
        self._is_closed = True
        self._wake()

    async def follow(self) -> AsyncGenerator[str, None]:
        """Yield everything, then each new text. Raises: Overloaded when too many are looking already."""
        if self.count >= MOST_VIEWERS:
            raise Overloaded(
                f"{MOST_VIEWERS} browsers show this page already; close one, and this one comes by itself",
                retry_after_s=10.0,
            )
        self.count += 1
        try:
            sent = self._number
            yield self._all()
            while not self._is_closed:
                if sent == self._number:
                    await self._changed.wait()
                    continue
                missed, sent = self._number - sent > 1, self._number
                yield self._all() if missed else self._text
        finally:
            self.count -= 1

    def _all(self) -> str:
        if self._whole is None or self._whole[0] != self._number:
            self._whole = (self._number, self._everything())
        return self._whole[1]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
