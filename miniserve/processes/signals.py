"""Ctrl-C and SIGTERM as events that the program's own loop waits for: the first drains, the second stops at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

_STOP = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """`first` is set by the first signal; a second one calls `at_once` (on the loop).

    Uses plain `signal.signal`, which works on every platform; the handler only wakes the loop.
    """

    def __init__(self, at_once: Callable[[], None] = lambda: None) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self._at_once = at_once
        self._loop = asyncio.get_running_loop()

    @contextlib.contextmanager
    def caught(self) -> Iterator[StopSignals]:
        """Handle the signals for the duration of the block (main thread only)."""
        before = [signal.signal(number, self._handle) for number in _STOP]
        try:
            yield self
        finally:
            for number, handler in zip(_STOP, before, strict=True):
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._received)

    def _received(self) -> None:
        if self.first.is_set():
            self.second.set()
            self._at_once()
        self.first.set()
