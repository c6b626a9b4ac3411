"""Draining: let requests in until the door is shut, then wait until those inside have left.

One door stands before a replica's engine and one before the fleet; both drain the same way. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from miniserve.errors import draining


class DrainGate:
    """Counts who is inside; once shut, turns newcomers away with 503."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.inside = 0
        self.is_open = True
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Be inside for the length of the block. Raises: Overloaded when the door is shut."""
        if not self.is_open:
            raise draining(self.name)
        self.inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self.inside -= 1
            if self.inside == 0:
                self._empty.set()

    def shut(self) -> None:
        """Turn newcomers away from now on; those inside may finish."""
        self.is_open = False

    async def empty(self, timeout_s: float) -> bool:
        """Wait until nobody is inside, `timeout_s` at most; say whether that came true."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
