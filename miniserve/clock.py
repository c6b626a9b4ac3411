"""Time is injected: a clock is a function that returns seconds.

Policies are told the time or given a clock; they never import one. `monotonic` is the live world's, simpy's is
`lambda: env.now`, and a test turns `ManualClock` by hand.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

monotonic = time.monotonic


@dataclass
class ManualClock:
    """A clock that stands still until told otherwise."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Raises: ValueError if `seconds` is negative, since no clock of ours runs backwards."""
        if seconds < 0:
            raise ValueError(f"a clock cannot go back ({seconds} s)")
        self.now_s += seconds
