"""How long a client waits before it tries again: exponentially longer, never above a cap, and at random.

Waits are random on purpose. Clients that fail together and wait equally long come back together, and fail again.

Knows how often the request has failed and the previous wait; not why it failed, nor whether to try again (`retry`).

Source: Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random


class Waits:
    """Four ways to choose a wait from `base_s` and `cap_s` (0 <= base_s <= cap_s); the randomness comes from `rng`.

    All take the same two numbers, so they are interchangeable: `failures` so far, from 1 upwards without limit, and
    `previous_s`, the wait before this one (`base_s` before the first).
    """

    def __init__(self, rng: Random, base_s: float, cap_s: float) -> None:
        self.rng = rng
        self.base_s = base_s
        self.cap_s = cap_s

    def bare(self, failures: int, previous_s: float) -> float:
        """Return the bare exponential: base, 2 base, 4 base, ... up to the cap. No randomness."""
        return min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 60))  # beyond any cap, and no overflow

    def full(self, failures: int, previous_s: float) -> float:
        """Return a uniformly random wait between 0 and the bare wait."""
        return self.rng.random() * self.bare(failures, previous_s)

    def equal(self, failures: int, previous_s: float) -> float:
        """Return half of the bare wait plus a uniformly random part of the other half: never close to zero."""
        half_s = self.bare(failures, previous_s) / 2
        return half_s + self.rng.random() * half_s

    def decorrelated(self, failures: int, previous_s: float) -> float:
        """Return a uniformly random wait between base and three times the previous wait, but at most the cap.

        It grows from the wait that was drawn, not with the count.
        """
        return min(self.cap_s, self.rng.uniform(self.base_s, 3 * previous_s))


Jitter = Callable[[Waits, int, float], float]
"""(waits, failures so far, the previous wait) -> seconds: one of the four ways."""

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
