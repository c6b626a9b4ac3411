"""Grades a folder of submissions and writes the reports, for both the command and the pytest plugin."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from miniserve.course.grade import sandbox
from miniserve.course.grade.marks import WEIGHTS_FILE, read_marks, read_weights
from miniserve.course.grade.pages import learner_page, page_name, report_page
from miniserve.course.grade.sheet import Sheet
from miniserve.course.grade.submission import Submission, read_submissions
from miniserve.course.grade.supervise import Grader, Settings
from miniserve.course.grade.tables import Graded, free_text_csv, grades_csv, junit_xml, results_json
from miniserve.course.grade.trusted import CHAPTERS, ROOT, Limits, read_course
from miniserve.errors import SetupError

ALL_GRADED, SOME_NOT, NO_GRADING = 0, 2, 3  # exit codes; marks never change them


@dataclass(frozen=True, slots=True)
class Order:
    """What to grade, and how."""

    folder: Path
    chapters: Sequence[int] = ()
    sandbox: str = "auto"
    seed: int = 1
    jobs: int = 1
    weights: Path = WEIGHTS_FILE
    marks: Path | None = None
    limits: Limits | None = None
    course_folder: Path = ROOT / "chapters"
    package: str = CHAPTERS
    told: Callable[[Sheet], None] = field(default=lambda sheet: None)  # called as soon as a sheet is ready


class Grading:
    """One grading in progress: reads everything first, so that a wrong order fails at once."""

    def __init__(self, order: Order) -> None:
        """Read everything. Raises: SetupError if there is nothing to grade, or an instructor's file is wrong."""
        everything = read_course(order.course_folder, order.chapters, order.package)
        self.order = order
        self.submissions = read_submissions(order.folder, everything)
        handed = {one.chapter for one in self.submissions} - {0}
        self.course = {n: chapter for n, chapter in everything.items() if n in handed or order.chapters}
        self.weights = read_weights(order.weights, self.course)
        self.marks = read_marks(order.marks)
        self.sandbox = sandbox.choose(order.sandbox)
        self._folder = tempfile.TemporaryDirectory(prefix="ms-")
        settings = Settings(self.sandbox, order.seed, order.limits)
        self._grader = Grader(Path(self._folder.name), settings, self.course.values())

    def one(self, handed: Submission) -> Sheet:
        """Grade one submission."""
        if handed.chapter == 0:
            sheet = Sheet(handed, 0, {}, notes=(handed.problem, *handed.notes))
        else:
            sheet = self._grader.grade(handed, self.course[handed.chapter])
        self.order.told(sheet)
        return sheet

    def all(self) -> Graded:
        """Grade every submission, `jobs` at a time."""
        pool = ThreadPoolExecutor(self.order.jobs)
        try:
            return self.graded(list(pool.map(self.one, self.submissions)))
        finally:  # even after Ctrl-C: nothing may go on running
            self._grader.stop()
            pool.shutdown(cancel_futures=True)

    def graded(self, sheets: Sequence[Sheet]) -> Graded:
        return Graded(sheets, self.course, self.weights, self.marks, self.sandbox, self.order.seed)

    def close(self) -> None:
        """Remove temporary files."""
        self._folder.cleanup()


def grade(order: Order, out: Path) -> tuple[Graded, int]:
    """Grade a folder, write the reports, and return the exit code. Raises: SetupError."""
    grading = Grading(order)
    try:
        graded = grading.all()
    finally:
        grading.close()
    write(graded, out)
    return graded, exit_code(graded)


def exit_code(graded: Graded) -> int:
    """Return 0 if everything was graded, 2 if at least one submission could not be, 3 if we failed."""
    if any(sheet.broken for sheet in graded.sheets):
        return NO_GRADING
    return ALL_GRADED if all(sheet.graded for sheet in graded.sheets) else SOME_NOT


def write(graded: Graded, out: Path) -> None:
    """Write the reports. Raises: SetupError if it can't write to `out`."""
    files = {
        "results.json": results_json(graded, datetime.now(UTC).isoformat(timespec="seconds")),
        "grades.csv": grades_csv(graded),
        "free_text.csv": free_text_csv(graded),
        "junit.xml": junit_xml(graded),
        "report.html": report_page(graded),
        **{f"learners/{page_name(learner)}": learner_page(graded, learner) for learner in graded.learners},
    }
    try:
        (out / "learners").mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (out / name).write_text(text, encoding="utf-8", newline="\n", errors="replace")
    except OSError as error:
        raise SetupError(f"{out} cannot be written to: {error.strerror}") from None
