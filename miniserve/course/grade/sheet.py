"""The result of grading: one sheet per learner and chapter, and what it earns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from miniserve.course.check.question import Question
from miniserve.course.check.verdict import Problem, Status, Verdict
from miniserve.course.grade.submission import Submission

MOST_CHARACTERS = 2_000  # of one text in a verdict


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


def verdict_from(told: Mapping[str, Any], questions: Mapping[str, Question]) -> Verdict:
    """Return a verdict from its JSON form. Raises: ValueError if its question can't get such a verdict."""
    try:
        question, problem = questions[told["question_id"]], told["problem"]
        found = None if problem is None else Problem(**{name: _text(problem[name]) for name in _PROBLEM})
        status, credit, seed = Status(told["status"]), float(told["credit"]), int(told["seed"])
        verdict = Verdict(question.id, status, found, credit, seed, _text(told["note"]), _text(told["right_for"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"no verdict: {type(error).__name__}: {error}") from None
    if status in _NOT_BY_JUDGES or not _earned(verdict, question):
        raise ValueError(f"{question.id} can't be {status.value} with a credit of {credit:g}")
    return verdict


_PROBLEM = ("id", "what", "why", "next", "where")
_NOT_BY_JUDGES = (Status.UNREADABLE, Status.NOT_GRADED)


def _earned(verdict: Verdict, question: Question) -> bool:
    """Return whether the credit fits the state, and the state the question: nobody but a person marks a text."""
    if verdict.status is Status.CORRECT:
        return verdict.credit == 1 and not question.graded_by_hand
    if verdict.status is Status.PARTIAL:
        return 0 < verdict.credit < 1 and not question.graded_by_hand
    return verdict.credit == 0 and (verdict.status is not Status.NOTED or question.graded_by_hand)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
        raise ValueError("no verdict: a text in it is none, or too long")
    return value


def not_graded(handed: Submission, questions: Iterable[str], why: str) -> Sheet:
    """Return the sheet of a submission that we failed to grade."""
    verdicts = {id_: Verdict(id_, Status.NOT_GRADED, note=why) for id_ in questions}
    return Sheet(handed, handed.chapter, verdicts, notes=handed.notes, broken=why)
