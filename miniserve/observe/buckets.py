"""Buckets of constant relative width: the middle of a bucket is within `alpha` of every value in it.

    bucket k holds (gamma^(k-1), gamma^k],  gamma = (1 + alpha) / (1 - alpha),  its middle is 2 gamma^k / (gamma + 1)

Pure arithmetic; the counting is in `sketch`.
"""

from __future__ import annotations

import math


class Buckets:
    """Assigns each positive value to a numbered bucket whose middle is within `alpha` of it, 0 < alpha < 1."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def gamma(self) -> float:
        """Return the ratio of a bucket's upper bound to its lower bound."""
        return (1 + self.alpha) / (1 - self.alpha)

    def key(self, value: float) -> int:
        """Return the number of the bucket that holds `value`, which must be above 0."""
        return math.ceil(math.log(value) / math.log(self.gamma()))

    def middle(self, key: int) -> float:
        """Return the value that differs from both bounds of a bucket by the same fraction of them, `alpha`."""
        return self.gamma() ** (key - 1) * (1 + self.alpha)
