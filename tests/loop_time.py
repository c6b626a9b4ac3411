"""How long an event loop is held: the CPU time of each callback, whatever else the machine does meanwhile."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch


@dataclass
class Held:
    """The most CPU time that one callback of any loop took, and which one that was."""

    longest_s: float = 0.0
    by: str = ""


@contextmanager
def loop_held() -> Iterator[Held]:
    """Measure the callbacks that run inside the block, of all loops in this process.

    What is there already is hidden from the garbage collector: to search all that a test run has made takes it longer
    than the callbacks that it happens to begin in.
    """
    held, run = Held(), asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        begun_s = time.thread_time()
        run(handle)
        took_s = time.thread_time() - begun_s
        if took_s > held.longest_s:
            held.longest_s, held.by = took_s, repr(handle)

    gc.collect()
    gc.freeze()
    try:
        with patch.object(asyncio.Handle, "_run", timed):
            yield held
    finally:
        gc.unfreeze()
