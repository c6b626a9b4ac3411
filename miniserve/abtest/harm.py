"""Is the new version worse? Evidence that you may look at after every batch, exact for rates of any size.

Each batch has `n_c` answers from the canary and `n_b` from the baseline, some of them bad. The evidence is multiplied
by how much better "the canary is worse by `harm`" explains the batch than "it is not worse" does:

    E = Bin(canary | c1) Bin(baseline | b1) / (Bin(canary | c0) Bin(baseline | b0))

with b1 estimated from *earlier* batches, c1 = b1 + harm, c0 = b0 + tolerated, and b0 such that
n_c (c1 - c0) / (c0 (1 - c0)) + n_b (b1 - b0) / (b0 (1 - b0)) = 0.
Whatever the true rates are, if the canary is worse by no more than `tolerated`, the expectation of E is at most 1. With
both rates off by x from (c0, b0) it is a product of n_c + n_b factors whose mean is 1 + x * 0, and a product is largest
when its factors are equal; a better canary only lowers it. So the probability that the running product ever reaches
1/alpha is at most alpha (Ville). That needs no plan of looks and no normal approximation, which raises false alarms far
too often for errors of 1 %. Each batch is compared only within itself, so a rate that drifts through the day does not
matter.

Answers are treated as independent: count a user who asks all day only once, or the test overrates its evidence.
Source: Turner, Ly & Grünwald 2021, "Generic E-variables for exact sequential k-sample tests that allow for optional
stopping" (arXiv:2106.02693).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from miniserve.errors import SetupError

_EDGE = 1e-6  # rates are estimated within [_EDGE, 1 - _EDGE]: nothing counts as impossible


@dataclass(frozen=True, slots=True)
class Trials:
    """How many of `n` answers were bad."""

    bad: int = 0
    n: int = 0

    def __post_init__(self) -> None:
        """Raises: SetupError unless 0 <= bad <= n."""
        if not 0 <= self.bad <= self.n:
            raise SetupError(f"bad answers ({self.bad}) must lie between 0 and the number of answers ({self.n})")

    def __add__(self, other: Trials) -> Trials:
        return Trials(self.bad + other.bad, self.n + other.n)

    @property
    def rate(self) -> float:
        """Return the share of bad answers; nan if there are no answers."""
        return self.bad / self.n if self.n else math.nan


def log_evidence(canary: Trials, baseline: Trials, guess: float, harm: float, tolerated: float = 0.0) -> float:
    """Return ln E of one batch. `guess` is the baseline's rate, estimated before this batch."""
    b1 = min(max(guess, _EDGE), 1 - harm - _EDGE)
    c1 = b1 + harm
    if not canary.n or not baseline.n:
        return 0.0  # nothing to compare
    b0 = _null_rate(canary.n, baseline.n, b1, c1, tolerated)
    return _log_ratio(canary, c1, b0 + tolerated) + _log_ratio(baseline, b1, b0)


def log_evidence_above(canary: Trials, limit: float, harm: float) -> float:
    """Return ln E of one batch for "the rate is `limit` + `harm`" against "at most `limit`". Needs no baseline."""
    return _log_ratio(canary, min(limit + harm, 1 - _EDGE), limit)


def _log_ratio(trials: Trials, p1: float, p0: float) -> float:
    return trials.bad * math.log(p1 / p0) + (trials.n - trials.bad) * math.log((1 - p1) / (1 - p0))


def _null_rate(n_c: int, n_b: int, b1: float, c1: float, tolerated: float) -> float:
    """Return b0 of the harmless explanation closest to (c1, b1), by bisection."""
    if tolerated == 0:
        return (n_c * c1 + n_b * b1) / (n_c + n_b)

    def pull(b0: float) -> float:
        c0 = b0 + tolerated
        return n_c * (c1 - c0) / (c0 * (1 - c0)) + n_b * (b1 - b0) / (b0 * (1 - b0))

    low, high = b1, c1 - tolerated  # pull(low) > 0 > pull(high)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if pull(middle) > 0 else (low, middle)
    return (low + high) / 2


class HarmTest:
    """Evidence against a canary, batch by batch. `p_value` is valid at every moment."""

    def __init__(self, harm: float, *, tolerated: float = 0.0, limit: float | None = None) -> None:
        """`harm` is the smallest rise of the bad rate worth detecting; a rise of `tolerated` is allowed.

        `limit`: the rate allowed when there is no baseline to compare with (at a share of 100 %).
        """
        if not 0 <= tolerated < harm < 1:
            raise SetupError(f"need 0 <= tolerated < harm < 1, not tolerated {tolerated} and harm {harm}")
        if limit is not None and not 0 < limit < 1 - harm:
            raise SetupError(f"limit ({limit}) must lie between 0 and 1 - harm ({1 - harm})")
        self._harm, self._tolerated, self._limit = harm, tolerated, limit
        self.canary, self.baseline = Trials(), Trials()
        self.log_e = 0.0
        self._highest = 0.0

    @property
    def p_value(self) -> float:
        """Return an upper bound on the probability that a harmless canary would ever have looked this bad."""
        return math.exp(-self._highest)

    def state(self) -> dict[str, Any]:
        """Return all that was weighed so far, in JSON's types."""
        rates = {"canary": self.canary, "baseline": self.baseline}
        counts = {name: [trials.bad, trials.n] for name, trials in rates.items()}
        return {"log_e": self.log_e, "highest": self._highest, **counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self.canary, self.baseline = Trials(*state["canary"]), Trials(*state["baseline"])
        self.log_e, self._highest = float(state["log_e"]), float(state["highest"])

    def update(self, canary: Trials, baseline: Trials) -> float:
        """Weigh one batch and return the p-value."""
        guess = (self.baseline.bad + 0.5) / (self.baseline.n + 10)  # 5 % before anything is known
        if baseline.n or self._limit is None:
            self.log_e += log_evidence(canary, baseline, guess, self._harm, self._tolerated)
        else:
            self.log_e += log_evidence_above(canary, self._limit, self._harm)
        self._highest = max(self._highest, self.log_e)
        self.canary, self.baseline = self.canary + canary, self.baseline + baseline
        return self.p_value
