"""Grades submitted notebooks: the verdicts come from outside the learner's kernel, one watched process per notebook.

    python -m miniserve grade DIR --out OUT
    pytest --nbval-lax -p miniserve.course.grade --submissions DIR --report OUT

    read ──> normalise ──> supervise ──> worker (nbval, and a judge) <──JSON──> kernel in a sandbox
                                │
                                └──> sheets ──> tables, pages

data/course/GRADING.md says what is protected and what isn't. This file has pytest's hooks for the second command: one
item per notebook and question; a run's exit code is the grading's, not pytest's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from miniserve.course.check.verdict import Status
from miniserve.errors import SetupError

if TYPE_CHECKING:
    from miniserve.course.grade.folder import Grading
    from miniserve.course.grade.sheet import Sheet
    from miniserve.course.grade.submission import Submission

_GRADING: pytest.StashKey[Grading] = pytest.StashKey()
_SHEETS: pytest.StashKey[list[Sheet]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of a grading."""
    group = parser.getgroup("grade", "grading submitted notebooks")
    group.addoption("--submissions", type=Path, metavar="DIR", help="a folder with one folder per learner")
    group.addoption("--report", type=Path, metavar="OUT", help="where the reports go")
    group.addoption("--grade-sandbox", choices=("auto", "bwrap", "none"), default="auto")
    group.addoption("--grade-seed", type=int, default=1)
    group.addoption("--grade-course", type=Path, metavar="DIR", help="the chapters of another course")
    group.addoption("--grade-questions", metavar="PACKAGE", help="its questions")


def pytest_collection(session: pytest.Session) -> None:
    """Collect the submissions and nothing else."""
    folder: Path | None = session.config.getoption("--submissions")
    if folder is None or session.config.getoption("--report") is None:
        raise pytest.UsageError("miniserve.course.grade needs --submissions DIR and --report OUT")
    if not folder.is_dir():
        raise pytest.UsageError(f"{folder} is not a folder")
    session.config.args = [str(folder)]


@pytest.hookimpl(tryfirst=True)
def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take the folder of submissions as one collector."""
    folder: Path | None = parent.config.getoption("--submissions")
    if folder is not None and path == folder.resolve():
        return Folder.from_parent(parent, path=path)
    return None


class Folder(pytest.Directory):
    """The folder of submissions."""

    def collect(self) -> Iterator[pytest.Collector]:
        """Yield the submitted notebooks."""
        from miniserve.course.grade.books import Order
        from miniserve.course.grade.folder import Grading

        option = self.config.getoption
        known = {"sandbox": option("--grade-sandbox"), "seed": option("--grade-seed")}
        course = {"course_folder": option("--grade-course"), "package": option("--grade-questions")}
        chosen = {name: value for name, value in {**known, **course}.items() if value is not None}
        try:
            grading = Grading(Order(self.path, **chosen), option("--report"))
        except SetupError as error:
            raise self.CollectError(str(error)) from None
        self.session.stash[_GRADING], self.session.stash[_SHEETS] = grading, []
        for handed in grading.submissions:
            yield NotebookFile.from_parent(self, name=f"{handed.learner}.{handed.chapter:02}", handed=handed)


class NotebookFile(pytest.Collector):
    """One submitted notebook, graded when pytest reaches its first question."""

    def __init__(self, *, handed: Submission, **rest: Any) -> None:
        super().__init__(**rest)
        self.handed = handed
        self.sheet: Sheet | None = None

    def collect(self) -> Iterator[pytest.Item]:
        """Yield its questions; for a file of no chapter, one item that says so."""
        course = self.session.stash[_GRADING].course
        names = course[self.handed.chapter].questions if self.handed.chapter else ["file"]
        for name in names:
            yield AnswerItem.from_parent(self, name=f"q{name}", question=name)

    def graded(self) -> Sheet:
        """Return the sheet; the first call makes it."""
        if self.sheet is None:
            self.sheet = self.session.stash[_GRADING].one(self.handed)
            self.session.stash[_SHEETS].append(self.sheet)
        return self.sheet


class AnswerItem(pytest.Item):
    """One question of one notebook: passed if correct, skipped if not tried or read by a person, otherwise failed."""

    def __init__(self, *, question: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.question = question

    def runtest(self) -> None:
        """Show the verdict."""
        assert isinstance(self.parent, NotebookFile)
        sheet = self.parent.graded()
        verdict = sheet.verdicts.get(self.question)
        if verdict is None or sheet.handed.problem:
            pytest.fail(sheet.handed.problem, pytrace=False)
        if verdict.status in (Status.NOT_TRIED, Status.NOTED):
            pytest.skip(verdict.status.value)
        if verdict.status is not Status.CORRECT:
            pytest.fail("\n".join(verdict.lines()), pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"{self.parent.name if self.parent else ''} {self.name}"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the reports; the exit code says what was graded, not what was right."""
    from miniserve.course.grade.folder import NO_GRADING, exit_code, write

    grading, sheets = session.stash.get(_GRADING, None), session.stash.get(_SHEETS, [])
    if grading is None or len(sheets) < len(grading.submissions):
        session.exitstatus = NO_GRADING
        return
    grading.close()
    graded = grading.so_far(dict(enumerate(sheets)))
    write(graded, session.config.getoption("--report"))
    session.exitstatus = exit_code(graded)
