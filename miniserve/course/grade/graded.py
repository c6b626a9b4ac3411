"""All of one grading, and what it adds up to: verdicts, a person's marks, lateness, points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from miniserve.course.check.verdict import Status, Verdict
from miniserve.course.grade.handed_in import FileFate
from miniserve.course.grade.late import Lateness, LateRule
from miniserve.course.grade.marks import Marks
from miniserve.course.grade.roster import NOBODY, Roster
from miniserve.course.grade.sheet import Sheet
from miniserve.course.grade.trusted import TrustedChapter


@dataclass(frozen=True)
class Graded:
    """All of one grading: the sheets, in order, and what decides their marks."""

    sheets: Sequence[Sheet]
    course: dict[int, TrustedChapter]
    weights: dict[str, float]
    marks: Marks
    sandbox: str
    seed: int
    files: tuple[FileFate, ...] = ()  # that were handed in and are graded nowhere
    known: tuple[str, ...] = ()  # learners who have a folder or are on the roster, with or without a notebook
    notes: tuple[str, ...] = ()  # for the instructor, about the whole
    lost_marks: tuple[str, ...] = ()  # a person's marks that are for nobody or nothing here, as sentences
    late: LateRule | None = None
    roster: Roster = NOBODY
    made_by: tuple[tuple[str, str], ...] = ()  # the versions that ran the notebooks, if it wasn't these

    @cached_property
    def learners(self) -> list[str]:
        return sorted({*self._by_learner, *self.known})

    @cached_property
    def questions(self) -> list[str]:
        return [id_ for chapter in self.course.values() for id_ in chapter.questions]

    @cached_property
    def _by_learner(self) -> dict[str, list[Sheet]]:
        found: dict[str, list[Sheet]] = {}
        for sheet in self.sheets:
            found.setdefault(sheet.learner, []).append(sheet)
        return found

    @cached_property
    def _verdicts(self) -> dict[tuple[str, str], Verdict]:
        return {(sheet.learner, id_): verdict for sheet in self.sheets for id_, verdict in sheet.verdicts.items()}

    def of(self, learner: str) -> list[Sheet]:
        return self._by_learner.get(learner, [])

    def verdict(self, learner: str, question: str) -> Verdict:
        """Return the verdict; MISSING for a chapter that was not handed in."""
        found = self._verdicts.get((learner, question))
        return found if found is not None else Verdict(question, Status.MISSING, note="not handed in")

    def credit(self, learner: str, question: str) -> float | None:
        """Return 0 to 1, a person's mark before a check's; None for what waits for a mark, or was not graded."""
        mark, verdict = self.marks.get((learner, question)), self.verdict(learner, question)
        if mark is not None and mark.credit is not None:
            return mark.credit
        return None if verdict.status in (Status.NOTED, Status.NOT_GRADED) else verdict.credit

    def bonus(self, learner: str) -> float:
        """Return the points that a person has added."""
        return sum(mark.bonus for (who, _), mark in self.marks.items() if who == learner)

    def lateness(self, learner: str, chapter: int) -> Lateness | None:
        """Return how late a learner's notebook came; None if it is in time, or there is no rule."""
        found = [sheet for sheet in self.of(learner) if sheet.chapter == chapter]
        if self.late is None or not found:
            return None
        return self.late.lateness(learner, chapter, found[0].handed.handed_in_s)

    def lost_by_lateness(self, learner: str) -> float:
        """Return the points that a learner loses by the rule for late work."""
        late = [(self.lateness(learner, number), number) for number in self.course]
        return sum(one.share * self.earned(learner, number) for one, number in late if one is not None)

    def earned(self, learner: str, chapter: int) -> float:
        """Return the points of one chapter, before bonus and lateness."""
        ids = self.course[chapter].questions
        return sum((self.credit(learner, id_) or 0.0) * self.weights[id_] for id_ in ids)

    def points_of(self, learner: str, chapter: int) -> float:
        """Return the points of one chapter, after bonus and lateness."""
        late, ids = self.lateness(learner, chapter), self.course[chapter].questions
        bonus = sum(mark.bonus for (who, id_), mark in self.marks.items() if who == learner and id_ in ids)
        return self.earned(learner, chapter) * (1.0 - (late.share if late is not None else 0.0)) + bonus

    def points(self, learner: str) -> float:
        return sum(self.points_of(learner, number) for number in self.course)

    @property
    def most(self) -> float:
        return sum(self.weights[id_] for id_ in self.questions)

    def pending(self, learner: str) -> list[str]:
        """Return the questions whose texts wait for a person."""
        waiting = [id_ for id_ in self.questions if self.credit(learner, id_) is None]
        return [id_ for id_ in waiting if self.verdict(learner, id_).status is Status.NOTED]

    def state(self, learner: str, question: str) -> str:
        """Return the state of an answer in words; a chapter that isn't there is `not handed in`."""
        found = self._verdicts.get((learner, question))
        return found.status.value if found is not None else "not handed in"
