"""How long prompts and answers are: a distribution is given by its inverse, a function of a number in [0, 1).

The caller supplies the random number, one per request. So the n-th request keeps its random number when the
distribution is exchanged, and comparing two distributions compares nothing else.

The published figures are from two hours of two Azure services, 2023 (Patel et al., Splitwise, ISCA 2024: the
`AzurePublicDataset` traces): a few quantiles, no rows. Between two knots the logarithm of the length is linear in the
probability. A lognormal would be shorter to write, but the conversations' answers have two humps, and it misses both.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

MOST_TOKENS = (
    1 << 24
)  # of one prompt or answer, on average: counts are 32-bit numbers, and the longest is 36 times that


class Lengths(Protocol):
    """A distribution of token counts, all at least 1."""

    @property
    def mean_tokens(self) -> float: ...

    def at(self, u: float) -> int:
        """Return the length below which a share `u` (0 <= u < 1) of all lengths lies."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same length."""

    tokens: int

    def __post_init__(self) -> None:
        if not 1 <= self.tokens <= MOST_TOKENS:
            raise ValueError(f"tokens ({self.tokens}) must be at least 1 and at most {MOST_TOKENS}")

    @property
    def mean_tokens(self) -> float:
        return float(self.tokens)

    def at(self, u: float) -> int:
        return self.tokens


@dataclass(frozen=True, slots=True)
class Geometric:
    """Ends after each token with the same probability: the memoryless distribution of whole numbers."""

    mean_tokens: float

    def __post_init__(self) -> None:
        if not 1 <= self.mean_tokens <= MOST_TOKENS:
            raise ValueError(f"mean_tokens ({self.mean_tokens:g}) must be at least 1 and at most {MOST_TOKENS}")

    def at(self, u: float) -> int:
        if self.mean_tokens == 1:
            return 1
        return max(1, math.ceil(math.log1p(-u) / math.log1p(-1 / self.mean_tokens)))


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A distribution given by published quantiles, log-linear in between.

    `knots` are pairs (share, value), both increasing, from share 0 to share 1. `scale` multiplies all values.
    Raises: ValueError if the knots are not like that.
    """

    knots: tuple[tuple[float, float], ...]
    scale: float = 1.0
    _shares: tuple[float, ...] = field(init=False, repr=False, compare=False, default=())
    _logs: tuple[float, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        shares, values = zip(*self.knots, strict=True)
        if shares[0] != 0 or shares[-1] != 1 or any(a >= b for a, b in pairwise(shares)):
            raise ValueError(f"the shares of quantile knots must increase from 0 to 1, not {list(shares)}")
        if values[0] <= 0 or any(a > b for a, b in pairwise(values)) or not self.scale > 0:
            raise ValueError(f"the values of quantile knots must be above 0 and never decrease, not {list(values)}")
        if not values[-1] * self.scale <= MOST_TOKENS:
            raise ValueError(f"the largest value times scale ({self.scale:g}) must be at most {MOST_TOKENS}")
        object.__setattr__(self, "_shares", shares)
        object.__setattr__(self, "_logs", tuple(math.log(value * self.scale) for value in values))

    def value(self, u: float) -> float:
        """Return the value below which a share `u` (0 <= u < 1) lies."""
        i = bisect_right(self._shares, u)
        low, high, logs = self._shares[i - 1], self._shares[i], self._logs
        return math.exp(logs[i - 1] + (logs[i] - logs[i - 1]) * (u - low) / (high - low))

    def at(self, u: float) -> int:
        return max(1, round(self.value(u)))

    def share_below(self, value: float) -> float:
        """Return the share of values below `value`: the inverse of `value`."""
        log = math.log(value) if value > 0 else -math.inf
        if log <= self._logs[0]:
            return 0.0
        i = bisect_right(self._logs, log)
        if i == len(self._logs):
            return 1.0
        low, high, shares = self._logs[i - 1], self._logs[i], self._shares
        return shares[i - 1] + (shares[i] - shares[i - 1]) * (log - low) / (high - low)

    @property
    def mean(self) -> float:
        """Return the exact mean of the curve between the knots."""
        total = 0.0
        for i in range(1, len(self._shares)):
            low, high = math.exp(self._logs[i - 1]), math.exp(self._logs[i])
            between = (high - low) / math.log(high / low) if high > low else low
            total += (self._shares[i] - self._shares[i - 1]) * between
        return total

    @property
    def mean_tokens(self) -> float:
        return self.mean


# Azure 2023 conversation: 19,366 requests, mean 1,155 in and 211 out
CONVERSATION_PROMPT = Quantiles((
    (0.0, 2), (0.01, 29), (0.05, 181), (0.1, 207), (0.25, 396), (0.4, 703), (0.5, 1020), (0.6, 1071),
    (0.75, 1189), (0.8, 1315), (0.9, 2734), (0.95, 4083), (0.99, 4142), (0.999, 6122), (1.0, 14050),
))  # fmt: skip
CONVERSATION_OUTPUT = Quantiles((
    (0.0, 7), (0.01, 16), (0.05, 41), (0.1, 54), (0.25, 85), (0.4, 103), (0.5, 129), (0.6, 177),
    (0.7, 384), (0.8, 400), (0.9, 424), (0.95, 451), (0.99, 601), (0.999, 954), (1.0, 1000),
))  # fmt: skip
# Azure 2023 code: 8,819 requests, mean 2,048 in and 28 out
CODE_PROMPT = Quantiles((
    (0.0, 3), (0.01, 17), (0.05, 75), (0.1, 147), (0.25, 578), (0.5, 1469), (0.75, 2744), (0.9, 5186),
    (0.95, 7302), (0.99, 7436), (1.0, 7437),
))  # fmt: skip
CODE_OUTPUT = Quantiles((
    (0.0, 6), (0.05, 6), (0.25, 9), (0.5, 13), (0.75, 24), (0.9, 55), (0.95, 90), (0.99, 249),
    (0.999, 824), (1.0, 1899),
))  # fmt: skip
