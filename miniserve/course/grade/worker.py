"""The process that runs one notebook and judges it: `pytest --nbval-lax -p miniserve.course.grade.worker`.

nbval executes the cells in an untrusted kernel. Where a question's check stands comes an item that asks the kernel for
JSON and judges here: what the learner saw counts, whatever later cells do to the name. This process reports each event
to the supervisor as it happens, as a line of JSON through a pipe; so the supervisor knows what was running if this
process is killed. pytest's own count of failures means nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile  # type: ignore[import-untyped]

from miniserve import seeds
from miniserve.course.check.question import Question
from miniserve.course.check.verdict import Status, Verdict
from miniserve.course.grade import processes
from miniserve.course.grade.judge import End, judge, lends
from miniserve.course.grade.kernel import GradedKernel

OUTPUT_S = 20.0  # outputs must follow a reply within this time; nbval's own 5 s is too short on a busy machine
_collect = IPyNbFile.collect  # an internal of nbval 0.11.0; a test pins that version


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the job: an open file with JSON from the supervisor."""
    parser.addoption("--grade-job", type=int, required=True, metavar="FD")


def pytest_configure(config: pytest.Config) -> None:
    """Add the questions where their checks stand, and put our kernel in place of nbval's."""
    processes.seclude()
    with open(config.getoption("--grade-job"), encoding="utf-8") as job:
        GradingJob.current = GradingJob(json.load(job))
    IPyNbFile.collect = _collect_with_questions
    IPyNbFile.setup = _start_kernel


class GradingJob:
    """What this process has to do, and the pipe for its reports."""

    current: GradingJob

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.cell_ids: list[str] = job["cell_ids"]
        self.ends: dict[str, End] = {}  # cells that failed
        questions: tuple[Question, ...] = import_module(job["questions"]).QUESTIONS
        self.questions = {question.id: question for question in questions}
        self.ask_after: dict[str, list[str]] = job["ask_after"]  # by cell: a question is asked where its check stands
        self.best: dict[str, Verdict] = {}
        self.lent = False
        self._pipe: int = job["pipe"]

    def tell(self, **event: Any) -> None:
        """Send one event."""
        os.write(self._pipe, (json.dumps(event) + "\n").encode())

    def given_up(self) -> bool:
        """Return whether this run will be done again, since one of the chapter's own cells was the first to be late.

        Then it must not ask any more: what a kernel was asked in one run, it could keep for the next. What it has been
        lent is never followed by another run.
        """
        late = next((id_ for id_, end in self.ends.items() if end.timeout), "")
        return not self.lent and late in self.job["again_if_late"]


def _start_kernel(self: Any) -> None:
    job = GradingJob.current.job
    self.kernel = GradedKernel(job)
    self.setup_sanitize_files()
    GradingJob.current.tell(event="ready")


def _collect_with_questions(self: Any) -> Iterator[pytest.Item]:
    run = GradingJob.current
    for cell in _collect(self):
        cell.output_timeout = OUTPUT_S
        yield cell
        for id_ in run.ask_after.get(run.cell_ids[cell.cell_num], ()):
            yield Asked.from_parent(self, name=f"q{id_}", question=run.questions[id_])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Report what begins and how it ended; stop at once when the kernel has gone."""
    run, at = GradingJob.current, _name(item)
    kernel: GradedKernel = item.parent.kernel  # type: ignore[union-attr]
    if isinstance(item, Asked) and run.given_up():
        run.tell(event="again")
        item.session.shouldstop = "this run is done again"
        return (yield)
    if kernel.is_alive():  # if not, what came before has ended it, and keeps the blame
        run.tell(event="begin", at=at)
    try:
        return (yield)
    finally:
        if isinstance(item, IPyNbCell) and (end := _end(kernel)) is not None:
            run.ends[at] = end
            run.tell(event="failed", at=at, error=end.error, timeout=end.timeout)
        kernel.end_if_leaving()
        if not kernel.is_alive():
            timeout = run.ends.get(at, End()).timeout
            run.tell(event="gone", at=at, why=kernel.gone or "the kernel died", timeout=timeout)
            item.session.shouldstop = "the kernel has gone"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Report that all is asked; without this line the supervisor knows that something ended us."""
    if not session.shouldstop:
        GradingJob.current.tell(event="done")


def _name(item: pytest.Item) -> str:
    return GradingJob.current.cell_ids[item.cell_num] if isinstance(item, IPyNbCell) else item.name


def _end(kernel: GradedKernel) -> End | None:
    """Return how a cell failed, by its reply: an error that the cell did not show is one that it hid."""
    if not kernel.reply:
        return End(kernel.gone or f"it was still running after {kernel.limit_s:g} s", timeout=not kernel.died)
    if kernel.reply.get("status") == "ok":
        return None
    name = str(kernel.reply.get("ename", "error"))[:60]
    message = " ".join(str(kernel.reply.get("evalue", "")).split())
    if name == "StdinNotImplementedError":
        message = "input() gets no answer while a notebook is graded"
    return End(f"{name}: {message}"[:300], hidden=not kernel.shown_error and name != "UsageError")


def _worth(verdict: Verdict) -> tuple[float, bool]:
    """Return what orders two verdicts on one question; at equal credit an answer is better than none."""
    credit = 1.0 if verdict.status is Status.NOTED else verdict.credit
    return credit, verdict.status not in (Status.NOT_TRIED, Status.MISSING)


class Asked(pytest.Item):
    """One question, asked of the kernel that the cells before it leave behind.

    It may come up again after a later cell that gives the answer's name another value; the better verdict counts.
    """

    def __init__(self, *, question: Question, **rest: Any) -> None:
        super().__init__(**rest)
        self.question = question
        self.obj = None

    def runtest(self) -> None:
        """Judge, and report the verdict if it is better than an earlier one."""
        run = GradingJob.current
        if run.given_up():
            return
        id_, learner = self.question.id, run.job["learner"]
        before = run.best.get(id_)
        if before is not None and before.status in (Status.CORRECT, Status.NOTED):
            return
        if lends(self.question):
            run.lent = True
            run.tell(event="lent")
        seed = seeds.bucket("grade", run.job["seed"], id_, learner, buckets=10_000)
        end = run.ends.get(run.job["answer_cells"][id_], End())
        kernel: GradedKernel = self.parent.kernel  # type: ignore[union-attr]
        verdict, text = judge(self.question, kernel, end, seed, learner, run.job["others"])
        if before is None or _worth(verdict) > _worth(before):
            run.best[id_] = verdict
            run.tell(event="verdict", verdict=asdict(verdict), text=text)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.name}::{self.name}"
