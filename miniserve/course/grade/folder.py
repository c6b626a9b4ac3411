"""Grades a folder of submissions and writes the reports, for both the command and the pytest plugin."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from miniserve.course.grade import sandbox
from miniserve.course.grade.books import Books, Order
from miniserve.course.grade.clean import remove
from miniserve.course.grade.earlier import Again, Earlier, again, merged, read_earlier, since_then
from miniserve.course.grade.graded import Graded
from miniserve.course.grade.handed_in import HandedIn, read_folder
from miniserve.course.grade.pages import learner_page, page_name, report_page
from miniserve.course.grade.platforms import canvas_csv, moodle_csv
from miniserve.course.grade.sheet import Sheet, not_graded
from miniserve.course.grade.store import Store, replace_text
from miniserve.course.grade.submission import Submission
from miniserve.course.grade.supervise import Grader, Settings
from miniserve.course.grade.tables import free_text_csv, grades_csv, junit_xml, results_json
from miniserve.course.grade.trusted import TrustedChapter
from miniserve.errors import SetupError

WRITE_EVERY_S = 5.0
NOT_YET = "the grading ended before its turn; the same command goes on from there"
ALL_GRADED, SOME_NOT, NO_GRADING = 0, 2, 3  # exit codes; marks never change them


class Grading:
    """One grading in progress: reads everything first, so that a wrong order fails at once."""

    def __init__(self, order: Order, out: Path, earlier: Earlier | None = None) -> None:
        """Read everything. Raises: SetupError if there is nothing to grade, or an instructor's file is wrong."""
        self.books = Books(order)
        self.order, self.out, self.earlier = order, out, earlier
        self.handed: HandedIn = read_folder(order.folder, self.books.everything, self.books.roster)
        self.submissions = self.handed.submissions
        before = earlier.chapters if earlier is not None else {}
        self.course = self.books.chapters([*(one.chapter for one in self.submissions), *before])
        self.sandbox = sandbox.choose(order.sandbox)
        self.again = self._again()
        old = [_renamed(sheet, self.books) for sheet in earlier.sheets] if earlier is not None else []
        self._old = {(sheet.learner, sheet.chapter): sheet for sheet in old}
        self._done, self._lock = 0, threading.Lock()
        settings = Settings(self.sandbox, order.seed, order.limits)
        with _writing_to(out):
            (out / "learners").mkdir(parents=True, exist_ok=True)
            self._store = Store(out / "sheets", settings, order.fresh)
        self._folder = Path(tempfile.mkdtemp(prefix="ms-"))
        self._grader = Grader(self._folder, settings, self.course.values())
        self.taken_over = 0  # sheets of an earlier grading

    def _again(self) -> Again | None:
        if self.earlier is None:
            return None
        learners = {*self.handed.learners, *self.earlier.learners}
        return again(self.order.regrade, learners, [id_ for c in self.course.values() for id_ in c.questions])

    def one(self, handed: Submission) -> Sheet:
        """Grade one submission, or take over its sheet."""
        if handed.chapter == 0:
            sheet = Sheet(handed, 0, {}, notes=(handed.problem, *handed.notes))
        else:
            sheet = self._kept_or_asked(handed, self.course[handed.chapter])
        with self._lock:
            self._done += 1
            self.order.told(sheet, self._done, len(self.submissions))
        return sheet

    def _kept_or_asked(self, handed: Submission, chapter: TrustedChapter) -> Sheet:
        kept = self._store.get(handed, chapter) if self.earlier is None else None
        if kept is not None:
            self.taken_over += 1
            return kept
        sheet = self._asked(handed, chapter)
        if sheet.graded and not self._grader.stopped:
            with suppress(OSError):  # then only a later grading does without it
                self._store.put(sheet, chapter)
        return sheet

    def _asked(self, handed: Submission, chapter: TrustedChapter) -> Sheet:
        """Return the sheet, of which only what is graded again was asked."""
        old = self._old.get((handed.learner, handed.chapter))
        asked = self._asks(handed)
        if old is not None and not asked:
            return old
        if old is None or old.handed.problem:
            return self._grader.grade(handed, chapter)
        known = {id_: verdict for id_, verdict in old.verdicts.items() if id_ not in asked}
        return merged(old, self._grader.grade(handed, chapter, known), asked)

    def _asks(self, handed: Submission) -> set[str]:
        """Return which questions of a notebook are asked in this grading."""
        questions = self.course[handed.chapter].questions
        return set(questions) if self.again is None else self.again.open(handed.learner, questions)

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
        handed, notes = self.handed, list(self.handed.notes)
        if self.earlier is not None and self.again is not None:
            kept = [one for one in self.submissions if one.chapter and not self._asks(one)]
            notes += since_then(self.earlier, [one for one in kept if (one.learner, one.chapter) in self._old])
        whole = [sheets.get(place) or self._not_yet(one) for place, one in enumerate(self.submissions)]
        used = (self.sandbox, self.order.seed)
        return self.books.graded(whole, self.course, *used, handed.files, handed.learners, notes)

    def _not_yet(self, handed: Submission) -> Sheet:
        questions = list(self.course[handed.chapter].questions) if handed.chapter else []
        return self._old.get((handed.learner, handed.chapter)) or not_graded(handed, questions, NOT_YET)

    def close(self) -> None:
        """Remove temporary files."""
        remove(self._folder)


def grade(order: Order, out: Path) -> tuple[Graded, int]:
    """Grade a folder, write the reports, and return the exit code. Raises: SetupError."""
    if (order.marks or order.no_run) and not order.regrade:
        graded = _reread(order, out)
        write(graded, out)
        return graded, exit_code(graded)
    grading = Grading(order, out, _earlier(order, out))
    try:
        graded = grading.all()
    finally:
        grading.close()
    return graded, exit_code(graded)


def _earlier(order: Order, out: Path) -> Earlier | None:
    """Return the earlier results if only a part is to be graded again. Raises: SetupError."""
    if not order.regrade:
        return None
    earlier = read_earlier(out)
    if earlier.seed != order.seed:
        raise SetupError(f"{out} was graded with --seed {earlier.seed}; say the same to grade a part of it again")
    return earlier


def _reread(order: Order, out: Path) -> Graded:
    """Return an earlier grading with today's marks, weights, roster and rule for late work; nothing runs."""
    books, earlier = Books(order), read_earlier(out)
    if gone := [number for number in earlier.chapters if number not in books.everything]:
        raise SetupError(f"{out} holds chapter {gone[0]}, which this course has not got")
    course = books.chapters(list(earlier.chapters))
    sheets = [_renamed(sheet, books) for sheet in earlier.sheets if sheet.chapter in course or not sheet.chapter]
    notes = [
        f"Chapter {n} has changed since this was graded." for n, sha in earlier.chapters.items()
        if n in course and course[n].sha256 != sha
    ]  # fmt: skip
    try:
        notes += since_then(earlier, read_folder(order.folder, books.everything, books.roster).submissions)
    except SetupError as error:
        notes.append(f"The submissions could not be compared: {error}.")
    learners = [books.roster.id_of(name) for name in earlier.learners]
    return books.graded(sheets, course, earlier.sandbox, earlier.seed, earlier.files, learners, notes, earlier.made_by)


def _renamed(sheet: Sheet, books: Books) -> Sheet:
    """Return a sheet under the learner's id on a roster that was not there before."""
    id_ = books.roster.id_of(sheet.learner)
    return sheet if id_ == sheet.learner else replace(sheet, handed=replace(sheet.handed, learner=id_))


def exit_code(graded: Graded) -> int:
    """Return 0 if everything was graded, 2 if at least one submission or mark could not be used, 3 if we failed."""
    if any(sheet.broken for sheet in graded.sheets):
        return NO_GRADING
    lost = any(file.look for file in graded.files) or graded.lost_marks
    return ALL_GRADED if all(sheet.graded for sheet in graded.sheets) and not lost else SOME_NOT


def reports(graded: Graded, graded_at: str) -> Mapping[str, str]:
    """Return the text of every report by its file's name."""
    platforms = {"canvas.csv": canvas_csv(graded), "moodle.csv": moodle_csv(graded)} if graded.roster.people else {}
    return {
        "results.json": results_json(graded, graded_at),
        "grades.csv": grades_csv(graded),
        "free_text.csv": free_text_csv(graded),
        **platforms,
        "junit.xml": junit_xml(graded),
        "report.html": report_page(graded),
        **{f"learners/{page_name(learner)}": learner_page(graded, learner) for learner in graded.learners},
    }


def write(graded: Graded, out: Path) -> None:
    """Write the reports. Raises: SetupError if it can't write to `out`."""
    files = reports(graded, datetime.now(UTC).isoformat(timespec="seconds"))
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
