"""Buckets of constant relative width: whatever a bucket holds, its middle is off by at most `alpha` of it.

    bucket k holds (gamma^(k-1), gamma^k],  gamma = (1 + alpha) / (1 - alpha),  its middle is 2 gamma^k / (gamma + 1)

Pure arithmetic; who counts what is in `sketch`.
"""

from __future__ import annotations

import math


class Buckets:
    """Gives each positive value the number of its bucket, whose middle is within `alpha` of it, 0 < alpha < 1."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def gamma(self) -> float:
        """Return the upper bound of a bucket over its lower bound."""
        return (1 + self.alpha) / (1 - self.alpha)

    def key(self, value: float) -> int:
        """Return the number of the bucket that holds `value`, which is above 0."""
        return math.ceil(math.log(value) / math.log(self.gamma()))

    def middle(self, key: int) -> float:
        """Return the value that is off by the same fraction, `alpha`, from both bounds of a bucket."""
        return self.gamma() ** (key - 1) * (1 + self.alpha)
