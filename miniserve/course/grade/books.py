"""What an instructor orders, and the files that go with it: weights, marks, a roster, a rule for late work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from miniserve.course.grade.graded import Graded
from miniserve.course.grade.handed_in import FileFate
from miniserve.course.grade.late import read_late_rule
from miniserve.course.grade.marks import WEIGHTS_FILE, fitting, meant, read_marks, read_weights
from miniserve.course.grade.roster import read_roster
from miniserve.course.grade.sheet import Sheet
from miniserve.course.grade.trusted import CHAPTERS, ROOT, Limits, TrustedChapter, read_course

OnSheet = Callable[[Sheet, int, int], None]  # a sheet, how many are done, and how many there are


def _silent(sheet: Sheet, done: int, of: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to grade, and how."""

    folder: Path
    chapters: Sequence[int] = ()
    sandbox: str = "auto"
    seed: int = 1
    jobs: int = 1
    weights: Path = WEIGHTS_FILE
    marks: Sequence[Path] = ()
    roster: Path | None = None
    late: Path | None = None
    regrade: Sequence[str] = ()  # learners or questions; the rest comes from the earlier results
    no_run: bool = False  # everything comes from the earlier results
    fresh: bool = False  # take over nothing from an earlier grading in the same place
    limits: Limits | None = None
    course_folder: Path = ROOT / "chapters"
    package: str = CHAPTERS
    told: OnSheet = field(default=_silent)  # called as soon as a sheet is ready


class Books:
    """What an instructor wrote down: weights, marks, the roster, the rule for late work."""

    def __init__(self, order: Order) -> None:
        """Read everything. Raises: SetupError if a file is wrong."""
        self.order = order
        self.everything = read_course(order.course_folder, order.chapters, order.package)
        read_weights(order.weights, self.everything)
        self.marks = read_marks(*order.marks)
        self.roster = read_roster(order.roster)
        self.late = read_late_rule(order.late)

    def chapters(self, handed: Sequence[int]) -> dict[int, TrustedChapter]:
        """Return the chapters that count: those that were ordered, or else those that were handed in."""
        return {n: chapter for n, chapter in self.everything.items() if n in handed or self.order.chapters}

    def graded(
        self,
        sheets: Sequence[Sheet],
        course: dict[int, TrustedChapter],
        sandbox_used: str,
        seed: int,
        files: Sequence[FileFate] = (),
        learners: Sequence[str] = (),
        notes: Sequence[str] = (),
        made_by: tuple[tuple[str, str], ...] = (),
    ) -> Graded:
        """Return the whole grading; what is wrong in the instructor's own files is told as a note."""
        roster = [person.id for person in self.roster.people]
        everyone = tuple(sorted({*learners, *(sheet.learner for sheet in sheets), *roster}))
        marks, lost = fitting(self.marks, everyone, course)
        named = self.late.named if self.late is not None else set()
        strangers = [name for name in everyone if roster and name not in roster]
        told = [f"{name} is not on the roster{meant(name, roster)}" for name in strangers]
        unknown = sorted(named - {*everyone})
        told += [f"The late rule names {name!r}, who is no learner{meant(name, everyone)}" for name in unknown]
        return Graded(
            sheets,
            course,
            read_weights(self.order.weights, course),
            marks,
            sandbox_used,
            seed,
            tuple(files),
            everyone,
            (*notes, *told),
            tuple(lost),
            self.late,
            self.roster,
            made_by,
        )
