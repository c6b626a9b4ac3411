"""Time is injected: a clock is a function that returns seconds.

Policies are told the time or given a clock; they never import one. Live code uses `monotonic`, a simulation
`lambda: env.now`, and tests advance a `ManualClock` by hand.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

monotonic = time.monotonic


@dataclass
class ManualClock:
    """A clock that stands still until it is advanced."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Move the clock forward. Raises: ValueError if `seconds` is negative: our clocks never run backwards."""
        if seconds < 0:
            raise ValueError(f"a clock cannot go back ({seconds} s)")
        self.now_s += seconds
