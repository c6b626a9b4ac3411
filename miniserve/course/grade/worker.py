"""The process that runs one notebook and judges it: `pytest --nbval-lax -p miniserve.course.grade.worker`.

nbval executes the cells in an untrusted kernel. After the last cell comes one item per question, which asks the kernel
for JSON and judges here. This process reports each event to the supervisor as it happens, as a line of JSON through a
pipe; so the supervisor knows what was running if this process is killed. pytest's own count of failures means nothing.
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
from miniserve.course.check.code import Code
from miniserve.course.check.question import Question
from miniserve.course.grade import processes
from miniserve.course.grade.judge import End, judge
from miniserve.course.grade.kernel import GradedKernel

OUTPUT_S = 20.0  # outputs must follow a reply within this time; nbval's own 5 s is too short on a busy machine
_collect = IPyNbFile.collect  # an internal of nbval 0.11.0; a test pins that version


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the job: an open file with JSON from the supervisor."""
    parser.addoption("--grade-job", type=int, required=True, metavar="FD")


def pytest_configure(config: pytest.Config) -> None:
    """Add the questions after the cells, and put our kernel in place of nbval's."""
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
        asked = [question for question in questions if question.id in job["judge"]]
        self.questions = sorted(asked, key=lends)  # what they lend answers others, which have their verdict by then
        self.judged = False
        self._pipe: int = job["pipe"]

    def tell(self, **event: Any) -> None:
        """Send one event."""
        os.write(self._pipe, (json.dumps(event) + "\n").encode())

    def given_up(self) -> bool:
        """Return whether this run will be done again, since one of the chapter's own cells was the first to be late.

        Then it must not ask: what a kernel was asked in one run, it could keep for the next.
        """
        late = next((id_ for id_, end in self.ends.items() if end.timeout), "")
        return not self.judged and late in self.job["again_if_late"]


def lends(question: Question) -> bool:
    """Return whether a question brings the text of another one's answer into the kernel."""
    return isinstance(question, Code) and bool(question.lends)


def _start_kernel(self: Any) -> None:
    job = GradingJob.current.job
    self.kernel = GradedKernel(job)
    self.setup_sanitize_files()
    GradingJob.current.tell(event="ready")


def _collect_with_questions(self: Any) -> Iterator[pytest.Item]:
    for cell in _collect(self):
        cell.output_timeout = OUTPUT_S
        yield cell
    for question in GradingJob.current.questions:
        yield Asked.from_parent(self, name=f"q{question.id}", question=question)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Report what begins and how it ended; stop at once when the kernel has gone."""
    run, at = GradingJob.current, _name(item)
    if isinstance(item, Asked) and run.given_up():
        run.tell(event="again")
        item.session.shouldstop = "this run is done again"
        return (yield)
    run.tell(event="begin", at=at)
    try:
        return (yield)
    finally:
        kernel: GradedKernel = item.parent.kernel  # type: ignore[union-attr]
        if isinstance(item, IPyNbCell) and (end := _end(kernel)) is not None:
            run.ends[at] = end
            run.tell(event="failed", at=at, error=end.error, timeout=end.timeout)
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
    return End(f"{name}: {message}"[:300], hidden=not kernel.shown_error and name != "UsageError")


class Asked(pytest.Item):
    """One question, asked of the kernel that the cells leave behind."""

    def __init__(self, *, question: Question, **rest: Any) -> None:
        super().__init__(**rest)
        self.question = question
        self.obj = None

    def runtest(self) -> None:
        """Judge, and report the verdict."""
        run = GradingJob.current
        if run.given_up():
            return
        run.judged = True
        if lends(self.question):
            run.tell(event="lent")
        id_, learner = self.question.id, run.job["learner"]
        seed = seeds.bucket("grade", run.job["seed"], id_, learner, buckets=10_000)
        end = run.ends.get(run.job["answer_cells"][id_], End())
        kernel: GradedKernel = self.parent.kernel  # type: ignore[union-attr]
        verdict, text = judge(self.question, kernel, end, seed, learner)
        run.tell(event="verdict", verdict=asdict(verdict), text=text)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.name}::{self.name}"
