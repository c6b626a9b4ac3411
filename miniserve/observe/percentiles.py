"""Exact percentiles by nearest rank: always a value that really occurred, never an interpolation.

The p-th percentile of n values is the smallest of them such that at least p % are no larger: the one of rank
ceil(p/100 * n). Serving is judged by its tails, and interpolating between two tail values invents a latency that no
request had.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Protocol


class Ordered(Protocol):
    """Values in ascending order, however they are stored."""

    def __len__(self) -> int: ...
    def __getitem__(self, place: int, /) -> float: ...


def percentile(values: Iterable[float], p: float) -> float:
    """Return the p-th percentile (p in 0..100; 0 is the minimum).

    Raises: ValueError if there are no values, one is nan, or p is out of range.
    """
    return percentiles(values, (p,))[0]


def percentiles(values: Iterable[float], ps: Sequence[float]) -> tuple[float, ...]:
    """Return several percentiles, sorting the values once."""
    values = list(values)
    if any(value != value for value in values):
        raise ValueError("a percentile of values that are not all numbers (nan) does not exist")
    return percentiles_of_sorted(sorted(values), ps)


def percentiles_of_sorted(ordered: Ordered, ps: Sequence[float]) -> tuple[float, ...]:
    """Return several percentiles of values already sorted: a list, or a numpy array after `np.sort`."""
    if len(ordered) == 0:
        raise ValueError("a percentile of no values does not exist")
    if ordered[-1] != ordered[-1]:  # sorting puts nan last, in numpy
        raise ValueError("a percentile of values that are not all numbers (nan) does not exist")
    return tuple(ordered[rank(p, len(ordered)) - 1] for p in ps)


def rank(p: float, n: int) -> int:
    """Return the rank, 1 to n. In binary floating point, 7 % of 100 would have rank 8, so p is read as a decimal."""
    if not 0 <= p <= 100:
        raise ValueError(f"a percentile lies between 0 and 100, not at {p}")
    return max(1, math.ceil(Fraction(str(p)) * n / 100))


class Window:
    """The last `size` values, for live percentiles. Adding is O(1); reading sorts the window."""

    def __init__(self, size: int) -> None:
        """Raises: ValueError if `size` is below 1."""
        if size < 1:
            raise ValueError(f"a window holds at least one value, not {size}")
        self._values: deque[float] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._values)

    def add(self, value: float) -> None:
        """Add a value; when the window is full, the oldest is dropped. Raises: ValueError if it is nan."""
        if value != value:
            raise ValueError("a window holds numbers, not nan")
        self._values.append(value)

    def percentiles(self, *ps: float) -> tuple[float, ...] | None:
        """Return the percentiles of the window, or None while it is empty."""
        return percentiles(self._values, ps) if self._values else None
