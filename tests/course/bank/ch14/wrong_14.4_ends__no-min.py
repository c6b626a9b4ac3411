# question: 14.4
import math
from collections import Counter

from miniserve.observe import buckets, percentiles


class Sketch:
    def __init__(self, alpha: float = 0.01, max_buckets: int | None = None) -> None:
        self.alpha = alpha
        self.max_buckets = max_buckets
        self._bounds = buckets.Buckets(alpha)
        self._zeros = 0
        self._buckets: Counter[int] = Counter()
        self._top = -(10**9)
        self._min = math.inf
        self._max = 0.0

    def __len__(self) -> int:
        return self._zeros + self._buckets.total()

    @property
    def num_buckets(self) -> int:
        return len(self._buckets)

    def _count(self, key: int, count: int) -> None:
        if self.max_buckets is not None:
            if key > self._top:
                self._top = key
                for low in [low for low in self._buckets if low <= key - self.max_buckets]:
                    self._buckets[key - self.max_buckets + 1] += self._buckets.pop(low)
            key = max(key, self._top - self.max_buckets + 1)
        self._buckets[key] += count

    def add(self, value: float) -> None:
        if not 0 <= value < math.inf:
            raise ValueError(value)
        self._min, self._max = min(self._min, value), max(self._max, value)
        if value == 0:
            self._zeros += 1
        else:
            self._count(self._bounds.key(value), 1)

    def merge(self, other: "Sketch") -> None:
        if (self.alpha, self.max_buckets) != (other.alpha, other.max_buckets):
            raise ValueError("different sketches")
        self._max = max(self._max, other._max)
        self._zeros += other._zeros
        for key, count in other._buckets.items():
            self._count(key, count)

    def percentile(self, p: float) -> float:
        if len(self) == 0:
            raise ValueError("no values")
        left = percentiles.rank(p, len(self)) - self._zeros
        if left <= 0:
            return 0.0
        for key in sorted(self._buckets):
            left -= self._buckets[key]
            if left <= 0:
                return min(max(self._bounds.middle(key), self._min), self._max)
        raise AssertionError
