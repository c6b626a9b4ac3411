"""Grades a folder of submissions and writes the reports, for both the command and the pytest plugin."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from miniserve.course.grade import sandbox
from miniserve.course.grade.clean import remove
from miniserve.course.grade.marks import WEIGHTS_FILE, read_marks, read_weights
from miniserve.course.grade.pages import learner_page, page_name, report_page
from miniserve.course.grade.sheet import Sheet, not_graded
from miniserve.course.grade.spelling import alike
from miniserve.course.grade.store import Store, replace_text
from miniserve.course.grade.submission import Submission, read_submissions
from miniserve.course.grade.supervise import Grader, Settings
from miniserve.course.grade.tables import Graded, free_text_csv, grades_csv, junit_xml, results_json
from miniserve.course.grade.trusted import CHAPTERS, ROOT, Limits, read_course
from miniserve.errors import SetupError

WRITE_EVERY_S = 5.0
NOT_YET = "the grading ended before its turn; the same command goes on from there"
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
    fresh: bool = False  # take over nothing from an earlier grading in the same place
    course_folder: Path = ROOT / "chapters"
    package: str = CHAPTERS
    told: Callable[[Sheet], None] = field(default=lambda sheet: None)  # called as soon as a sheet is ready


class Grading:
    """One grading in progress: reads everything first, so that a wrong order fails at once."""

    def __init__(self, order: Order, out: Path) -> None:
        """Read everything. Raises: SetupError if there is nothing to grade, or an instructor's file is wrong."""
        everything = read_course(order.course_folder, order.chapters, order.package)
        self.order, self.out = order, out
        self.submissions = _with_lookalikes(read_submissions(order.folder, everything))
        handed = {one.chapter for one in self.submissions} - {0}
        self.course = {n: chapter for n, chapter in everything.items() if n in handed or order.chapters}
        self.weights = read_weights(order.weights, self.course)
        self.marks = read_marks(order.marks)
        self.sandbox = sandbox.choose(order.sandbox)
        settings = Settings(self.sandbox, order.seed, order.limits)
        with _writing_to(out):
            (out / "learners").mkdir(parents=True, exist_ok=True)
            self._store = Store(out / "sheets", settings, order.fresh)
        self._folder = Path(tempfile.mkdtemp(prefix="ms-"))
        self._grader = Grader(self._folder, settings, self.course.values())
        self.taken_over = 0  # sheets of an earlier grading

    def one(self, handed: Submission) -> Sheet:
        """Grade one submission, or take over its sheet."""
        if handed.chapter == 0:
            sheet = Sheet(handed, 0, {}, notes=(handed.problem, *handed.notes))
        elif (kept := self._store.get(handed, chapter := self.course[handed.chapter])) is not None:
            sheet = kept
            self.taken_over += 1
        else:
            sheet = self._grader.grade(handed, chapter)
            if sheet.graded and not self._grader.stopped:
                with suppress(OSError):  # then only a later grading does without it
                    self._store.put(sheet, chapter)
        self.order.told(sheet)
        return sheet

    def all(self) -> Graded:
        """Grade every submission, `jobs` at a time, and write the reports while the sheets come."""
        sheets: dict[int, Sheet] = {}
        pool = ThreadPoolExecutor(self.order.jobs)
        writes_s = 0.0
        try:
            coming = {pool.submit(self.one, handed): place for place, handed in enumerate(self.submissions)}
            for ready in as_completed(coming):
                sheets[coming[ready]] = ready.result()
                if time.monotonic() > writes_s:
                    started_s = time.monotonic()
                    write(self.so_far(sheets), self.out)
                    writes_s = started_s + max(WRITE_EVERY_S, 20 * (time.monotonic() - started_s))
        finally:  # even after Ctrl-C: nothing may go on running, and nothing that is ready may get lost
            self._grader.stop()
            pool.shutdown(cancel_futures=True)
            write(self.so_far(sheets), self.out)
        return self.so_far(sheets)

    def so_far(self, sheets: Mapping[int, Sheet]) -> Graded:
        """Return the results by the places of the submissions; those that are not ready say so."""
        whole = [
            sheets.get(place) or not_graded(handed, self._questions(handed), NOT_YET)
            for place, handed in enumerate(self.submissions)
        ]
        return Graded(whole, self.course, self.weights, self.marks, self.sandbox, self.order.seed)

    def _questions(self, handed: Submission) -> Sequence[str]:
        return list(self.course[handed.chapter].questions) if handed.chapter else []

    def close(self) -> None:
        """Remove temporary files."""
        remove(self._folder)


def _with_lookalikes(submissions: Sequence[Submission]) -> list[Submission]:
    """Add a note to the submissions of learners whose names look alike, for instance by a space without width."""
    others = alike(one.learner for one in submissions)

    def note(learner: str) -> str:
        names = ", ".join(ascii(other) for other in others[learner])
        return f"The name of the learner, {learner!a}, looks like {names}: are they two?"

    return [
        replace(one, notes=(*one.notes, note(one.learner))) if one.learner in others else one for one in submissions
    ]


def grade(order: Order, out: Path) -> tuple[Graded, int]:
    """Grade a folder, write the reports, and return the exit code. Raises: SetupError."""
    grading = Grading(order, out)
    try:
        graded = grading.all()
    finally:
        grading.close()
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
    with _writing_to(out):
        (out / "learners").mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            replace_text(out / name, text)


@contextmanager
def _writing_to(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SetupError(f"{out} cannot be written to: {error.strerror}") from None
