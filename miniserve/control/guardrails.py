"""What a new version must not do worse than the old one: fail, be slow, answer badly. Evidence since the rollout began.

Each guardrail counts bad answers of both versions, side by side in time, and tests for harm after every tick
(`experiment.harm`: valid however often one looks). The alphas of all guardrails add up to the probability that a
version without harm is ever rolled back. A p95 becomes a count too: an answer is slow if it took longer than the old
version's p95 of shortly before. 5 % of the old version's answers do, and more of a version whose p95 has risen.

At a share of 100 % there is nothing to compare with. Then only a guardrail with a `limit` of its own still watches.
Knows counts; not what is done about a breach.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from miniserve.abtest.harm import HarmTest, Trials
from miniserve.errors import SetupError

GuardedMetric = Literal["errors", "slow", "bad"]
_RECENT = 2000  # answers of the old version that its p95 is read off: an estimate within a point of rank


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeBatch:
    """What the answers of one version came to since the last tick."""

    answers: int = 0
    errors: int = 0
    latencies_s: Sequence[float] = ()  # of those that were measured; an array will do
    judged: int = 0  # answers whose quality somebody judged, ...
    bad: int = 0  # ... and those found bad

    def __post_init__(self) -> None:
        """Raises: SetupError for counts that cannot be."""
        if not 0 <= self.errors <= self.answers:
            raise SetupError(f"errors ({self.errors}) must lie between 0 and answers ({self.answers})")
        if not 0 <= self.bad <= self.judged <= self.answers:
            raise SetupError(f"need 0 <= bad <= judged <= answers, not {self.bad}, {self.judged}, {self.answers}")


@dataclass(frozen=True, slots=True)
class Guardrail:
    """One thing to watch. `harm`: the smallest rise of the bad share that is worth finding; `tolerated` may pass.

    `alpha`: how often it may stop a version without harm. `limit`: the bad share allowed where there is no old version
    to compare with.
    """

    metric: GuardedMetric
    harm: float
    alpha: float
    tolerated: float = 0.0
    limit: float | None = None

    def __post_init__(self) -> None:
        """Raises: SetupError for an unknown metric, or numbers outside their ranges."""
        if self.metric not in ("errors", "slow", "bad"):
            raise SetupError(f"a guardrail watches 'errors', 'slow' or 'bad', not {self.metric!r}")
        if not 0 < self.alpha < 1:
            raise SetupError(f"alpha ({self.alpha}) of guardrail {self.metric!r} must lie between 0 and 1")
        HarmTest(self.harm, tolerated=self.tolerated, limit=self.limit)  # refuses the rest


# Together 5 %. Quality gets half: it is what takes longest to see.
GUARDRAILS = (
    Guardrail("errors", harm=0.02, alpha=0.01),
    Guardrail("slow", harm=0.025, alpha=0.015),
    Guardrail("bad", harm=0.03, alpha=0.025),
)


@dataclass(frozen=True, slots=True)
class Breach:
    """Which guardrail was broken, and on what evidence."""

    metric: str
    p_value: float
    alpha: float
    new: Trials
    old: Trials

    def __str__(self) -> str:
        """Return one line for people."""
        old = f"{self.old.rate:.2%} of {self.old.n}" if self.old.n else "nothing"
        return (
            f"{self.metric}: {self.new.rate:.2%} of {self.new.n} answers against {old}, "
            f"p = {self.p_value:.2g} < {self.alpha:g}"
        )


class Guards:
    """All guardrails of one rollout."""

    def __init__(self, guardrails: Sequence[Guardrail] = GUARDRAILS, *, min_answers: int = 50) -> None:
        """`min_answers` of the new version come before any verdict: the first few meet cold caches."""
        names = [guardrail.metric for guardrail in guardrails]
        if len(set(names)) < len(names):
            raise SetupError(f"one guardrail per metric, not {names}")
        if min_answers < 0:
            raise SetupError(f"min_answers ({min_answers}) must be at least 0")
        self.alpha = sum(guardrail.alpha for guardrail in guardrails)
        if self.alpha >= 1:
            raise SetupError(f"the alphas of all guardrails add up to {self.alpha:g}; they must stay below 1")
        self._tests = [(rail, HarmTest(rail.harm, tolerated=rail.tolerated, limit=rail.limit)) for rail in guardrails]
        self._min_answers = min_answers
        self._answers = 0
        self._recent: deque[np.ndarray] = deque()

    def update(self, new: OutcomeBatch, old: OutcomeBatch) -> Breach | None:
        """Weigh what both versions did since the last time; return the worst breach, if there is one."""
        slow_s = self._p95_s()
        self._remember(old)
        self._answers += new.answers
        for rail, test in self._tests:
            test.update(_trials(new, rail.metric, slow_s), _trials(old, rail.metric, slow_s))
        return self._breach() if self._answers >= self._min_answers else None

    def p_values(self) -> dict[str, float]:
        """Return the evidence so far, by metric."""
        return {rail.metric: test.p_value for rail, test in self._tests}

    def _breach(self) -> Breach | None:
        broken = [
            Breach(rail.metric, test.p_value, rail.alpha, test.canary, test.baseline)
            for rail, test in self._tests
            if test.p_value <= rail.alpha
        ]
        return min(broken, key=lambda breach: breach.p_value / breach.alpha, default=None)

    def _p95_s(self) -> float | None:
        """Return the old version's p95 as known *before* this batch: a border must not depend on what it judges."""
        return float(np.quantile(np.concatenate(self._recent), 0.95)) if self._recent else None

    def _remember(self, old: OutcomeBatch) -> None:
        if len(old.latencies_s):
            self._recent.append(np.asarray(old.latencies_s, dtype=np.float64)[-_RECENT:])
        while len(self._recent) > 1 and sum(map(len, self._recent)) - len(self._recent[0]) >= _RECENT:
            self._recent.popleft()


def _trials(batch: OutcomeBatch, metric: GuardedMetric, slow_s: float | None) -> Trials:
    if metric == "errors":
        return Trials(batch.errors, batch.answers)
    if metric == "bad":
        return Trials(batch.bad, batch.judged)
    if slow_s is None:
        return Trials()  # the first batch only says what slow is
    return Trials(int((np.asarray(batch.latencies_s) > slow_s).sum()), len(batch.latencies_s))
