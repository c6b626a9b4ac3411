"""Runs a submission's notebook in a watched worker, and reruns it without what hung or crashed, until all is judged.

So an endless loop or a crash costs one question. Every run has its own folder, its own kernel and its own copy of the
package; when it is over, everything that it started is killed. Knows nothing of marks.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniserve.course.check.numbers import Number
from miniserve.course.check.verdict import Status, Verdict
from miniserve.course.grade.cgroup import leave
from miniserve.course.grade.clean import remove
from miniserve.course.grade.judge import failed as failed_verdict
from miniserve.course.grade.judge import lends
from miniserve.course.grade.normalise import HandedCell, Normalised, normalise
from miniserve.course.grade.sandbox import Room, furnish, kernel_command, kernel_environment, kernel_user, prepare
from miniserve.course.grade.sheet import Sheet, not_graded
from miniserve.course.grade.stubs import SIGN, stubbed, write_package
from miniserve.course.grade.submission import Submission
from miniserve.course.grade.trusted import Limits, TrustedChapter
from miniserve.course.grade.watch import NotebookRun, watch
from miniserve.course.notebook.notebooks import dumps

MOST_RUNS_LONG = 3  # all runs of one notebook together, as a multiple of one run's limit


@dataclass(frozen=True, slots=True)
class Settings:
    """How to grade. The limits, if given, replace the chapters' own."""

    sandbox: str = "none"
    seed: int = 1
    limits: Limits | None = None

    def limits_of(self, chapter: TrustedChapter) -> Limits:
        """Return the limits of one chapter."""
        return self.limits or chapter.limits


class Grader:
    """Grades submissions of some chapters. Each run gets folders of its own below `folder`, made from what we hold."""

    def __init__(self, folder: Path, settings: Settings, course: Iterable[TrustedChapter]) -> None:
        self._folder, self._settings = folder, settings
        self._stopped = threading.Event()
        self._packages = {chapter.number: stubbed(chapter.questions.values()) for chapter in course}

    def stop(self) -> None:
        """End the running notebooks soon: their sheets then mean nothing."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def grade(self, handed: Submission, chapter: TrustedChapter, known: Mapping[str, Verdict] | None = None) -> Sheet:
        """Return the sheet of one submission; `known` is not asked again.

        It stands alone: whatever it holds or fails at, this never raises.
        """
        try:
            return self._graded(handed, chapter, known or {})
        except Exception as error:  # RecursionError and MemoryError too
            why = " ".join(f"the grader failed at it: {type(error).__name__}: {error}".split())[:300]
            return not_graded(handed, chapter.questions, why)

    def _graded(self, handed: Submission, chapter: TrustedChapter, known: Mapping[str, Verdict]) -> Sheet:
        if handed.problem:
            verdicts = {id_: Verdict(id_, Status.UNREADABLE) for id_ in chapter.questions}
            return Sheet(handed, chapter.number, verdicts, notes=(handed.problem, *handed.notes))
        judging = Judging(chapter, normalise(handed, chapter))
        judging.verdicts |= known
        until_s = time.monotonic() + MOST_RUNS_LONG * self._settings.limits_of(chapter).notebook_s
        while judging.open and judging.runs <= 2 * len(chapter.questions) + 2 and time.monotonic() < until_s:
            judging.take(self._run(handed, chapter, judging))
            if judging.broken or self._stopped.is_set():
                break
        return judging.sheet(handed)

    def _run(self, handed: Submission, chapter: TrustedChapter, judging: Judging) -> NotebookRun:
        folder = Path(tempfile.mkdtemp(prefix="ms-", dir=self._folder))
        room = Room(folder / "r")
        try:
            write_package(self._packages[chapter.number], room.package)
            prepare(room, self._settings.sandbox)
            job = self._job(folder, room, handed, chapter, judging)
            limits = self._settings.limits_of(chapter)
            return watch(job, folder, room, limits, chapter.questions, self._stopped)
        finally:
            leave(room.name)
            remove(folder)

    def _job(
        self, folder: Path, room: Room, handed: Submission, chapter: TrustedChapter, judging: Judging
    ) -> dict[str, Any]:
        cells, kind = judging.cells(), self._settings.sandbox
        limits = self._settings.limits_of(chapter)
        (folder / "notebook.ipynb").write_text(dumps(_notebook(cells)), encoding="utf-8")
        learner = handed.drawn_for or handed.learner
        (room.given / "learner_id.txt").write_text(learner, encoding="utf-8")
        given = {id_: q.given(learner) for id_, q in chapter.questions.items() if isinstance(q, Number)}
        (room.package / "given.json").write_text(json.dumps(given), encoding="utf-8")
        furnish(room, kind)
        return {
            "cell_ids": [cell.id for cell in cells],
            "questions": chapter.module,
            "ask_after": {cell.id: [id_ for id_ in cell.asks if id_ in judging.next] for cell in cells},
            "again_if_late": sorted(judging.given) if judging.runs == 0 else [],
            "others": handed.others,
            "answer_cells": {id_: cell.id for id_, cell in chapter.answer_cells.items()},
            "learner": learner,
            "seed": self._settings.seed,
            "command": kernel_command(room, kind, cpu_s=limits.notebook_s),
            "environment": kernel_environment(room),
            "user": kernel_user(room, kind),
            "connection": str(room.connection),
            "cwd": str(room.home if kind == "none" else room.folder),
            "cell_s": limits.cell_s,
        }


def _notebook(cells: Iterable[HandedCell]) -> dict[str, Any]:
    made: list[dict[str, Any]] = [
        {"cell_type": "code", "id": c.id, "metadata": {}, "source": c.text, "execution_count": None, "outputs": []}
        for c in cells
    ]
    return {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


class Judging:
    """What is decided about one submission, and what must not run again."""

    def __init__(self, chapter: TrustedChapter, normal: Normalised) -> None:
        self.chapter, self.normal = chapter, normal
        self.verdicts = {verdict.question_id: verdict for verdict in normal.verdicts}
        self.texts: dict[str, str] = {}
        self.left_out: set[str] = set()
        self.given = {cell.id for cell in normal.cells if not cell.own and not cell.question}
        self.failed: dict[str, str] = {}
        self.left_out_notes: list[str] = []
        self.runs = 0
        self.broken = ""  # our own failure, as a sentence

    @property
    def open(self) -> set[str]:
        return self.chapter.questions.keys() - self.verdicts.keys()

    @property
    def next(self) -> set[str]:
        """The questions that the next run asks. What some of them lend answers others, so those get a run before."""
        first = {id_ for id_ in self.open if not lends(self.chapter.questions[id_])}
        return first or self.open

    def cells(self) -> tuple[HandedCell, ...]:
        return self.normal.without(self.chapter, self.left_out)

    def take(self, run: NotebookRun) -> None:
        """Keep what a run reported; leave out what ended it."""
        self.runs += 1
        asked = self.next
        if run.again and self.runs == 1:
            self._keep_right(run)  # our own cell was late, so the machine is too busy; the next run asks the rest
            return
        self.verdicts |= {id_: verdict for id_, verdict in run.verdicts.items() if id_ in self.open}
        self.texts |= run.texts
        self.failed |= run.failed
        if not run.ready:
            self.broken = f"no kernel could be started: {run.log[-300:]}"
        elif run.blame:
            self._leave_out(run)
            if run.lent:  # such a run is the last: the kernel has seen what answers others
                self.verdicts |= {id_: failed_verdict(id_, run.status, "no-end", run.why) for id_ in self.open}
        elif lacking := self.open & asked:
            self.broken = f"the worker ended without a verdict on {', '.join(sorted(lacking))}: {run.log[-300:]}"

    def _keep_right(self, run: NotebookRun) -> None:
        """Keep what can't get better: a kernel that is asked the same again might know the cases."""
        final = {id_: one for id_, one in run.verdicts.items() if one.status in (Status.CORRECT, Status.NOTED)}
        self.verdicts |= {id_: verdict for id_, verdict in final.items() if id_ in self.open}
        self.texts |= run.texts

    def _leave_out(self, run: NotebookRun) -> None:
        """Leave out the learner's first late cell, which may have spoilt the kernel; or else the cell to blame."""
        late = [id_ for id_ in run.late if id_ not in self.given | self.left_out]
        blame, why, status = (
            (late[0], run.failed[late[0]], Status.TIMEOUT) if late else (run.blame, run.why, run.status)
        )
        questions = {cell.id: id_ for id_, cell in self.chapter.answer_cells.items()}
        blame = self._guilty(blame) if status is Status.CRASHED else blame
        question = questions.get(blame) or blame.removeprefix("q")
        cell = self.chapter.answer_cells[question].id if question in self.chapter.questions else blame
        if question in self.open:
            self.verdicts[question] = failed_verdict(question, status, "no-end", why)
        elif cell in self.left_out:
            for id_ in self.open:  # the cell isn't to blame: another run would end the same way
                self.verdicts[id_] = failed_verdict(id_, Status.CRASHED, "crashed", why)
        elif cell == blame:
            self.left_out_notes.append(f"Cell {blame} was left out: {why}.")
        self.left_out.add(cell)

    def _guilty(self, blame: str) -> str:
        """Return the cell to blame: a given one ends no kernel, so what the learner ran last before it has done so."""
        ids = [cell.id for cell in self.cells()]
        if blame not in self.given or blame not in ids:
            return blame
        before = [cell.id for cell in self.cells()[: ids.index(blame)] if cell.own]
        return before[-1] if before else blame

    def sheet(self, handed: Submission) -> Sheet:
        for id_ in sorted(self.open):
            if self.broken:
                self.verdicts[id_] = Verdict(id_, Status.NOT_GRADED, note=self.broken)
            else:
                self.verdicts[id_] = failed_verdict(
                    id_, Status.TIMEOUT, "no-end", "the time for the whole notebook was up"
                )
        verdicts = {id_: self.verdicts[id_] for id_ in self.chapter.questions}
        notes = (*self.normal.notes, *self.left_out_notes, *self._failures(verdicts))
        return Sheet(handed, self.chapter.number, verdicts, self.texts, notes, self.broken, self.normal.answers)

    def _failures(self, verdicts: Mapping[str, Verdict]) -> list[str]:
        """Return how cells of the learner's own failed, if that may explain a lost question.

        The chapter's cells are no news: some need what only a full run has, such as the reference or a measurement.
        """
        if all(verdict.status in (Status.CORRECT, Status.NOTED, Status.NOT_TRIED) for verdict in verdicts.values()):
            return []
        own = {cell.id for cell in self.normal.cells if cell.own and not cell.question}
        failed = {id_: error for id_, error in self.failed.items() if id_ in own and SIGN not in error}
        return [f"Cell {id_} ended with {error.rstrip('.')}." for id_, error in failed.items()]
