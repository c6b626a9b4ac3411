"""What a check says: correct, wrong and why, or not tried.

A `Problem` explains a wrong answer: what the check saw, where, why it is wrong, and what to do next, in at most eight
lines. In a notebook it arrives as the exception `NotCorrect`, whose traceback is those lines and nothing else: the
reader sees a sentence, nbval and CI see a failed cell. Knows no question.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from enum import StrEnum

WIDTH = 100
MAX_LINES = 8


class Status(StrEnum):
    """The states of an answer; the ones below the line occur only in grading."""

    CORRECT = "correct"
    WRONG = "wrong"
    NOT_TRIED = "not tried"
    NOTED = "noted"  # free text: a person reads it
    # ---
    PARTIAL = "partial"  # code that passes some of its layers
    ERROR = "error"  # the answer cell raised
    TIMEOUT = "timeout"
    CRASHED = "crashed"  # the kernel died
    MISSING = "missing"  # no such cell, or no such name after it ran
    FORBIDDEN = "forbidden import"  # it uses what it should build
    TAMPERED = "tampered"  # the answer cell failed and hid it
    UNREADABLE = "unreadable"  # the file is not a notebook of this course
    NOT_GRADED = "not graded"  # our machine failed, not the answer


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an answer is wrong. `id` names the misconception or the broken invariant; tests and graders count by it."""

    id: str
    what: str  # what the check saw
    why: str  # the misconception, or the rule that it breaks
    next: str = ""  # what to look at now
    where: str = ""  # operation, row, argument

    def lines(self) -> list[str]:
        """Return at most `MAX_LINES` lines of text; an ellipsis marks a cut."""
        parts = [("Seen", self.what), ("Where", self.where), ("Why", self.why), ("Next", self.next)]
        told = [(label, text) for label, text in parts if text]
        wrapped = [_wrap(label, text) for label, text in told]
        while sum(map(len, wrapped)) > MAX_LINES - 1:  # one line is the headline's
            longest = max(range(len(wrapped)), key=lambda i: len(wrapped[i]))
            wrapped[longest] = [*wrapped[longest][:-2], wrapped[longest][-2][: WIDTH - 2] + " …"]
        return [line for lines in wrapped for line in lines]


def _wrap(label: str, text: str) -> list[str]:
    return textwrap.wrap(_printable(text), WIDTH, initial_indent=f"  {label + ':':<7}", subsequent_indent=" " * 9) or [
        f"  {label}:"
    ]


def _printable(text: str) -> str:
    """Return `text` on one line; terminal codes and broken characters of an answer appear as their escapes."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of one answer. `credit` is the part of the question's weight that it earns, 0 to 1."""

    question_id: str
    status: Status
    problem: Problem | None = None
    credit: float = 0.0
    seed: int = 0
    note: str = ""  # one sentence beside the state: layers passed, a margin
    right_for: str = ""  # in grading: the other learner id whose drawn numbers a wrong answer fits

    def lines(self) -> list[str]:
        """Return what a learner reads: a headline and, if wrong, the problem."""
        head = f"{self.question_id}  {self.status.value.upper()}" + (f"  {self.note}" if self.note else "")
        return [head, *(self.problem.lines() if self.problem is not None else [])]


class NotCorrect(Exception):
    """A wrong answer, as an exception: IPython shows the verdict's lines in place of a traceback."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__("\n".join(verdict.lines()))
        self.verdict = verdict

    def _render_traceback_(self) -> list[str]:
        return self.verdict.lines()
