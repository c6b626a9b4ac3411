"""Where a new version must not be worse than the old one: errors, speed, answer quality.

Since the rollout began, each guardrail counts the bad answers of both versions over the same time, and tests for harm
after every tick (`abtest.harm` stays valid however often you look). The alphas of all guardrails add up to the
probability that a harmless version is ever rolled back. Latency becomes a count as well: an answer is slow if it took
longer than the old version's recent p95. 5 % of the old version's answers do, and more if the new version's p95 is
higher.

At a share of 100 % there is nothing to compare with, and only a guardrail with a `limit` of its own still watches.
Knows counts, but not what is done about a breach.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from miniserve.abtest.harm import HarmTest, Trials
from miniserve.errors import SetupError

GuardedMetric = Literal["errors", "slow", "bad"]
_RECENT = 2000  # old version's answers that its p95 is taken from: accurate to a point of rank


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeBatch:
    """How the answers of one version turned out since the last tick."""

    answers: int = 0
    errors: int = 0
    latencies_s: Sequence[float] = ()  # of the answers that were measured; an array is fine
    judged: int = 0  # answers whose quality was judged, ...
    bad: int = 0  # ... and how many of them were bad

    def __post_init__(self) -> None:
        """Raises: SetupError for impossible counts."""
        if not 0 <= self.errors <= self.answers:
            raise SetupError(f"errors ({self.errors}) must lie between 0 and answers ({self.answers})")
        if not 0 <= self.bad <= self.judged <= self.answers:
            raise SetupError(f"need 0 <= bad <= judged <= answers, not {self.bad}, {self.judged}, {self.answers}")


@dataclass(frozen=True, slots=True)
class Guardrail:
    """One thing to watch. `harm`: the smallest rise of the bad share worth detecting; a rise of `tolerated` is allowed.

    `alpha`: how often it may stop a harmless version. `limit`: the bad share allowed when there is no old version to
    compare with.
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


# Together 5 %. Quality gets half, because it takes longest to detect.
GUARDRAILS = (
    Guardrail("errors", harm=0.02, alpha=0.01),
    Guardrail("slow", harm=0.025, alpha=0.015),
    Guardrail("bad", harm=0.03, alpha=0.025),
)


@dataclass(frozen=True, slots=True)
class Breach:
    """Which guardrail was broken, and the evidence."""

    metric: str
    p_value: float
    alpha: float
    new: Trials
    old: Trials

    def __str__(self) -> str:
        """Return one readable line."""
        old = f"{self.old.rate:.2%} of {self.old.n}" if self.old.n else "nothing"
        return (
            f"{self.metric}: {self.new.rate:.2%} of {self.new.n} answers against {old}, "
            f"p = {self.p_value:.2g} < {self.alpha:g}"
        )


class Guards:
    """All guardrails of one rollout."""

    def __init__(self, guardrails: Sequence[Guardrail] = GUARDRAILS, *, min_answers: int = 50) -> None:
        """Give no verdict before the new version has given `min_answers`: the first few meet cold caches."""
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

    @property
    def rails(self) -> tuple[Guardrail, ...]:
        """Return what is watched."""
        return tuple(rail for rail, _ in self._tests)

    def update(self, new: OutcomeBatch, old: OutcomeBatch) -> Breach | None:
        """Weigh what both versions did since the last call; return the worst breach, if any."""
        slow_s = self._p95_s()
        self._remember(old)
        self._answers += new.answers
        for rail, test in self._tests:
            test.update(_trials(new, rail.metric, slow_s), _trials(old, rail.metric, slow_s))
        return self._breach() if self._answers >= self._min_answers else None

    def p_values(self) -> dict[str, float]:
        """Return the evidence so far, by metric."""
        return {rail.metric: test.p_value for rail, test in self._tests}

    def counts(self) -> dict[str, tuple[Trials, Trials]]:
        """Return what was counted so far of the new version and of the old one, by metric."""
        return {rail.metric: (test.canary, test.baseline) for rail, test in self._tests}

    def state(self) -> dict[str, Any]:
        """Return all that was learnt so far, in JSON's types. The latencies are packed: there may be thousands."""
        recent = [b64encode(part.tobytes()).decode() for part in self._recent]
        tests = {rail.metric: test.state() for rail, test in self._tests}
        return {"answers": self._answers, "recent": recent, "tests": tests}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the `state` of guards with the same settings."""
        for rail, test in self._tests:
            test.restore(state["tests"][rail.metric])
        self._answers = int(state["answers"])
        self._recent = deque(np.frombuffer(b64decode(part), dtype=np.float64) for part in state["recent"])

    def _breach(self) -> Breach | None:
        broken = [
            Breach(rail.metric, test.p_value, rail.alpha, test.canary, test.baseline)
            for rail, test in self._tests
            if test.p_value <= rail.alpha
        ]
        return min(broken, key=lambda breach: breach.p_value / breach.alpha, default=None)

    def _p95_s(self) -> float | None:
        """Return the old version's p95 as known *before* this batch: a threshold must not depend on what it judges."""
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
        return Trials()  # the first batch only defines what slow means
    return Trials(int((np.asarray(batch.latencies_s) > slow_s).sum()), len(batch.latencies_s))
