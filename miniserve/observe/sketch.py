"""A percentile sketch: any number of latencies in a few hundred counters, which can be added up across replicas.

Exact percentiles need all the values, and the p99 of a fleet is not the mean of its replicas' p99s. A sketch counts
values in buckets whose bounds grow by a constant factor (`buckets`), so the value it returns is off by at most `alpha`
of the true one, at p50 and at p99.99 alike.

Merging just adds counters: the sketch of all values is *exactly* the merge of the parts' sketches, in any order. (Other
sketches bound the error in *rank*, which says little about the value where it matters: at p99.9, 1 % of rank is the
whole tail.)
Source: DDSketch (Masson, Rim, Lee, VLDB 2019, arXiv:1908.10693).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Self

from miniserve.observe import buckets, percentiles


class Sketch:
    """Counts of values >= 0 in buckets of constant relative width.

    At alpha 1 %, all times from a nanosecond to a year fit in about 1,900 buckets. `max_buckets` is a hard limit on the
    size: values too far below the largest one are folded into the lowest bucket kept, so *low* percentiles lose their
    guarantee while high ones keep it.
    """

    def __init__(self, alpha: float = 0.01, max_buckets: int | None = None) -> None:
        """Raises: ValueError if `alpha` is not inside (0, 1) or `max_buckets` is below 1."""
        if not 0 < alpha < 1 or (max_buckets is not None and max_buckets < 1):
            raise ValueError(f"alpha ({alpha}) must lie between 0 and 1 and max_buckets ({max_buckets}) be at least 1")
        self.alpha = alpha
        self.max_buckets = max_buckets
        self._bounds = buckets.Buckets(alpha)
        self._zeros = 0
        self._buckets: Counter[int] = Counter()
        self._top = -(10**9)  # the largest key so far; no float has a key this low
        self._min = math.inf
        self._max = 0.0

    def __len__(self) -> int:
        """Return how many values have been added."""
        return self._zeros + self._buckets.total()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self._state() == other._state()

    __hash__ = None  # type: ignore[assignment]  # mutable

    @property
    def num_buckets(self) -> int:
        return len(self._buckets)

    def add(self, value: float) -> None:
        """Count a value. Raises: ValueError if it is negative, infinite or nan."""
        if not 0 <= value < math.inf:
            raise ValueError(f"a sketch holds finite values of at least 0, not {value}")
        self._min, self._max = min(self._min, value), max(self._max, value)
        if value == 0:
            self._zeros += 1
        else:
            self._count(self._bounds.key(value), 1)

    def merge(self, other: Self) -> None:
        """Add everything that `other` counted. Raises: ValueError if its alpha or size differs."""
        if (self.alpha, self.max_buckets) != (other.alpha, other.max_buckets):
            raise ValueError(
                f"sketches of alpha {self.alpha} with {self.max_buckets} buckets and alpha {other.alpha} with "
                f"{other.max_buckets} do not add up"
            )
        self._min, self._max = min(self._min, other._min), max(self._max, other._max)
        self._zeros += other._zeros
        for key, count in other._buckets.items():
            self._count(key, count)

    def percentile(self, p: float) -> float:
        """Return the p-th percentile (nearest rank) to within `alpha` of itself.

        Raises: ValueError if the sketch is empty or p is not in 0..100.
        """
        if not len(self):
            raise ValueError("a percentile of no values does not exist")
        left = percentiles.rank(p, len(self)) - self._zeros
        if left <= 0:
            return 0.0
        for key in sorted(self._buckets):
            left -= self._buckets[key]
            if left <= 0:
                break
        return min(max(self._bounds.middle(key), self._min), self._max)

    def _count(self, key: int, count: int) -> None:
        """Add to a bucket, folding low buckets if the number is limited.

        Only the largest key decides what is folded, so the order in which values or sketches arrive does not matter.
        """
        if self.max_buckets is not None:
            if key > self._top:
                self._top = key
                for low in [low for low in self._buckets if low <= key - self.max_buckets]:
                    self._buckets[key - self.max_buckets + 1] += self._buckets.pop(low)
            key = max(key, self._top - self.max_buckets + 1)
        self._buckets[key] += count

    def _state(self) -> tuple[object, ...]:
        return self.alpha, self.max_buckets, self._zeros, self._min, self._max, self._buckets


def sketch_of(values: Iterable[float], alpha: float = 0.01) -> Sketch:
    """Return the sketch of `values`."""
    sketch = Sketch(alpha)
    for value in values:
        sketch.add(value)
    return sketch
