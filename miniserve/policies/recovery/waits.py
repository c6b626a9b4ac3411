"""How long a client waits before it tries again: exponentially longer, never beyond a cap, and at random.

A wait is random on purpose. Clients that failed together and wait equally long come back together, and fail again.

Knows how often the request has failed and the wait before; not why it failed, nor whether to try again (`retry`).

Source: Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random


class Waits:
    """Waits between `base_s` and `cap_s` (0 <= base_s <= cap_s), in four ways; the luck comes from `rng`.

    All take the same two numbers, so that one can stand in for another: `failures` so far, from 1, however many; and
    `previous_s`, the wait before this one (before the first there was `base_s`).
    """

    def __init__(self, rng: Random, base_s: float, cap_s: float) -> None:
        self.rng = rng
        self.base_s = base_s
        self.cap_s = cap_s

    def bare(self, failures: int, previous_s: float) -> float:
        """Return the bare exponential: base, 2 base, 4 base, ... up to the cap. Nothing is random."""
        return min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 60))  # beyond any cap, and no overflow

    def full(self, failures: int, previous_s: float) -> float:
        """Return anything from 0 to the bare wait, all equally likely."""
        return self.rng.random() * self.bare(failures, previous_s)

    def equal(self, failures: int, previous_s: float) -> float:
        """Return half of the bare wait, and anything up to the other half: never nearly zero."""
        half_s = self.bare(failures, previous_s) / 2
        return half_s + self.rng.random() * half_s

    def decorrelated(self, failures: int, previous_s: float) -> float:
        """Return anything from base to three times the wait before, but no more than the cap.

        It grows from what was drawn, not with the count.
        """
        return min(self.cap_s, self.rng.uniform(self.base_s, 3 * previous_s))


Jitter = Callable[[Waits, int, float], float]
"""(waits, failures so far, the wait before this one) -> seconds: one of the four ways."""

no_jitter: Jitter = Waits.bare
full_jitter: Jitter = Waits.full
equal_jitter: Jitter = Waits.equal
decorrelated_jitter: Jitter = Waits.decorrelated

JITTERS: dict[str, Jitter] = {
    "none": no_jitter,
    "full": full_jitter,
    "equal": equal_jitter,
    "decorrelated": decorrelated_jitter,
}
