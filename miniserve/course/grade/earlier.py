"""Reads the results of an earlier grading, so that marks, a rule for late work or one learner can change alone.

Only `results.json` is read; no notebook runs for what it holds.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from miniserve.course.check.verdict import Problem, Status, Verdict
from miniserve.course.grade.handed_in import FileFate
from miniserve.course.grade.marks import meant
from miniserve.course.grade.sheet import Sheet
from miniserve.course.grade.submission import Submission
from miniserve.course.grade.tables import SCHEMA
from miniserve.errors import SetupError

_PROBLEM = ("id", "what", "why", "next", "where")


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier grading found, without the marks that were given since."""

    sheets: tuple[Sheet, ...]
    chapters: Mapping[int, str]  # number: hash
    sandbox: str
    seed: int
    files: tuple[FileFate, ...]
    learners: tuple[str, ...]
    made_by: tuple[tuple[str, str], ...]


def read_earlier(out: Path) -> Earlier:
    """Read the results in a folder of reports. Raises: SetupError."""
    path = out / "results.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["schema"] != SCHEMA:
            raise SetupError(f"{path} is from another version of the grader: grade once more, without --marks")
        return Earlier(
            tuple(_sheet(one) for one in told["submissions"]),
            {int(number): chapter["sha256"] for number, chapter in told["chapters"].items()},
            str(told["sandbox"]),
            int(told["seed"]),
            tuple(FileFate(**file) for file in told["files"]),
            tuple(told["learners"]),
            tuple((str(name), str(version)) for name, version in told["made_by"].items()),
        )
    except FileNotFoundError:
        raise SetupError(f"{path} does not exist: grade once without --marks, --no-run and --regrade") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SetupError(f"{path} cannot be read: {type(error).__name__}: {str(error)[:100]}") from None


def _sheet(told: Mapping[str, Any]) -> Sheet:
    handed = Submission(
        told["learner"],
        told["chapter"],
        told["file"],
        sha256=told["sha256"],
        problem=told["unreadable"],
        drawn_for=told["drawn_for"],
        handed_in_s=told["handed_in_s"],
    )
    verdicts = {one["question_id"]: _verdict(one) for one in told["questions"]}
    texts = {one["question_id"]: one["text"] for one in told["questions"] if one["text"] is not None}
    answers = {one["question_id"]: one["answer"] for one in told["questions"] if one["answer"]}
    return Sheet(handed, told["chapter"], verdicts, texts, tuple(told["notes"]), told["broken"], answers)


def _verdict(told: Mapping[str, Any]) -> Verdict:
    problem = None if told["problem"] is None else Problem(*(str(told["problem"][name]) for name in _PROBLEM))
    found = (Status(told["status"]), problem, float(told["credit"]), int(told["seed"]))
    return Verdict(str(told["question_id"]), *found, str(told["note"]), str(told["right_for"]))


@dataclass(frozen=True, slots=True)
class Again:
    """What to grade again: of some learners, or all, some questions, or all."""

    learners: frozenset[str] = frozenset()
    questions: frozenset[str] = frozenset()
    pairs: frozenset[tuple[str, str]] = frozenset()

    def open(self, learner: str, questions: Collection[str]) -> set[str]:
        """Return which of a notebook's questions are asked again."""
        if learner in self.learners:
            return set(questions)
        return {id_ for id_ in questions if id_ in self.questions or (learner, id_) in self.pairs}


def again(names: Sequence[str], learners: Collection[str], questions: Collection[str]) -> Again:
    """Read what to grade again: `ann`, `6.3` or `ann/6.3`. Raises: SetupError for a name of nobody and nothing."""
    whole, some, pairs = set(), set(), set()
    for name in names:
        learner, _, question = name.rpartition("/")
        if name in learners:
            whole.add(name)
        elif name in questions:
            some.add(name)
        elif learner in learners and question in questions:
            pairs.add((learner, question))
        else:
            hint = meant(learner or name, [*learners, *questions])
            raise SetupError(f"--regrade {name}: it is no learner, no question, and not ann/6.3{hint}")
    return Again(frozenset(whole), frozenset(some), frozenset(pairs))


def merged(old: Sheet, new: Sheet, asked: Collection[str]) -> Sheet:
    """Return the sheet of a new run that asked only some questions, with the earlier texts of the others."""
    if new.handed.problem or set(asked) >= set(new.verdicts):
        return new
    texts = {id_: text for id_, text in old.texts.items() if id_ not in asked}
    return replace(new, texts={**texts, **new.texts}, notes=tuple(dict.fromkeys((*old.notes, *new.notes))))


def since_then(earlier: Earlier, submissions: Sequence[Submission]) -> list[str]:
    """Return what has been handed in since the earlier grading, as sentences."""
    before = {(sheet.learner, sheet.chapter): sheet.handed for sheet in earlier.sheets}
    told = []
    for one in submissions:
        known = before.get((one.learner, one.chapter))
        if known is None:
            told.append(f"{one.file} has come since this was graded: --regrade {one.learner}.")
        elif known.sha256 != one.sha256:
            told.append(f"{one.file} has changed since it was graded: --regrade {one.learner}.")
    return told
