"""The result of grading: one sheet per learner and chapter, and what it earns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from miniserve.course.check.verdict import Problem, Status, Verdict
from miniserve.course.grade.submission import Submission


@dataclass(frozen=True, slots=True)
class Sheet:
    """The result of one learner's notebook for one chapter. `broken` says how our own machine failed, if it did."""

    handed: Submission
    chapter: int
    verdicts: Mapping[str, Verdict]  # in the chapter's order
    texts: Mapping[str, str] = field(default_factory=dict)  # answers that a person reads
    notes: tuple[str, ...] = ()  # for the instructor
    broken: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)  # as handed in, if they differ from the given cell

    @property
    def learner(self) -> str:
        return self.handed.learner

    @property
    def graded(self) -> bool:
        return not self.handed.problem and not self.broken


def verdict_from(told: Mapping[str, Any]) -> Verdict:
    """Return a verdict from its JSON form."""
    problem = Problem(**told["problem"]) if told["problem"] is not None else None
    return Verdict(**{**told, "status": Status(told["status"]), "problem": problem})
