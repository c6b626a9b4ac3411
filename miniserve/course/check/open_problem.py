"""S: an open problem. Any answer that keeps the rules counts, and a cheaper one counts more.

A score is a cost on instances that a seed draws, so lower is better, and grading asks with instances that no notebook
has seen. Each bar (what the naive answer scores, what the library's does, par) is a layer of its own, computed on the
same instances, so the marks come in bands: an answer earns the share of the layers that it passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from miniserve.course.check.ask import Json
from miniserve.course.check.question import Case, Question
from miniserve.course.check.verdict import Problem

RULES = "rules"  # the first layer: the answer keeps them


@dataclass(frozen=True, slots=True)
class Bar:
    """A score to reach. `next` says what to try when an answer doesn't."""

    name: str
    score: Callable[[int], float]  # seed -> score on that seed's instances
    next: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenProblem(Question):
    """S: an answer with a cost. `bars` go from the easiest to par, and an answer has to stay below them."""

    kind: ClassVar[str] = "S"
    banded: ClassVar[bool] = True
    keeps_rules: Callable[[Json], Problem | None]
    score: Callable[[Json, int], float]  # (an answer that keeps the rules, seed) -> cost
    bars: tuple[Bar, ...]
    unit: str

    def cases(self, seed: int, learner: str) -> Sequence[Case]:
        return (Case(seed, RULES), *(Case(seed, bar.name) for bar in self.bars))

    def judge(self, case: Case, told: Json, learner: str) -> Problem | None:
        if (problem := self.keeps_rules(told)) is not None or case.layer == RULES:
            return problem
        bar = next(bar for bar in self.bars if bar.name == case.layer)
        yours = self.score(told, case.asked)
        if yours < bar.score(case.asked):
            return None
        bars = ", ".join(f"{one.name} {one.score(case.asked):,.0f}" for one in self.bars)
        seen = f"{yours:,.0f} {self.unit}; {bars}"
        return Problem(f"above-{bar.name}", seen, f"It costs no less than {bar.name}.", bar.next, self.name)
