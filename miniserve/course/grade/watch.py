"""Follows one worker from outside, and ends it if it is silent, takes too long or takes too much.

When it is over, everything that it started is killed.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miniserve.course.check.question import Question
from miniserve.course.check.verdict import Status, Verdict
from miniserve.course.grade import processes
from miniserve.course.grade.sandbox import Room
from miniserve.course.grade.sheet import verdict_from
from miniserve.course.grade.trusted import Limits

START_S = 300.0  # until the kernel's first answer: 5 s of work, on a machine that may be very busy
LOOK_EVERY_S = 0.2
MOST_PROCESSES = 64
MOST_MEMORY_BYTES = 3 * 2**30
MOST_OPEN_FILES = 2_000  # of all processes together: every pipe and socket holds memory that belongs to no process
MOST_MADE_FILES = 20_000  # on the disk in memory: the system's kernel holds a kilobyte for each
MOST_LINE_BYTES = 1_000_000  # one event
PATIENCE_S = 15.0  # beyond a cell's limit, before we end a silent worker: it should have ended the cell


@dataclass(slots=True)
class NotebookRun:
    """What one worker reported, and how it ended."""

    ready: bool = False
    done: bool = False
    again: bool = False  # one of the chapter's own cells was late: it asked nothing more, and is run again
    lent: bool = False  # the kernel has seen what answers another question
    at: str = ""  # what was running last
    blame: str = ""  # a cell or question that must not run again
    why: str = ""
    status: Status = Status.CRASHED
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # cells that failed
    late: list[str] = field(default_factory=list)  # those that ran out of time, in order
    log: str = ""


def watch(
    job: dict[str, Any],
    folder: Path,
    room: Room,
    limits: Limits,
    questions: Mapping[str, Question],
    stopped: threading.Event,
) -> NotebookRun:
    """Start a worker, follow its reports, and end it if it is silent, takes too long or takes too much."""
    reading, writing = os.pipe()
    # The job is a file without a name, which the worker reads and closes: a submission can't look up the pipe in it.
    with open(folder / "log", "wb") as log, tempfile.TemporaryFile(dir=folder) as told:
        told.write(json.dumps({**job, "pipe": writing}).encode())
        told.seek(0)
        worker = subprocess.Popen(
            _command(folder, limits, told.fileno()), cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            pass_fds=(writing, told.fileno()), start_new_session=True, env=_environment(),
        )  # fmt: skip
        os.close(writing)
        follower = _Follower(NotebookRun(), worker.pid, room, limits, questions)
        try:
            follower.follow(reading, stopped)
        finally:
            processes.end(worker.pid, str(room.folder))
            worker.wait()
            os.close(reading)
    run = follower.run
    run.log = (folder / "log").read_bytes()[-4000:].decode("utf-8", "replace")
    return run


def _command(folder: Path, limits: Limits, job: int) -> list[str]:
    options = [
        f"--nbval-cell-timeout={limits.cell_s}",
        "--nbval-lax",
        "-p",
        "miniserve.course.grade.worker",
        f"--grade-job={job}",
    ]
    alone = [
        "-p",
        "nbval.plugin",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
        "-p",
        "no:cacheprovider",
        "-q",
        "--color=no",
    ]
    return [sys.executable, "-m", "pytest", *alone, *options, str(folder / "notebook.ipynb")]


def _environment() -> dict[str, str]:
    without = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_CURRENT_TEST")
    kept = {name: value for name, value in os.environ.items() if name not in without}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@dataclass(slots=True)
class _Follower:
    """Reads one worker's reports into `run`."""

    run: NotebookRun
    worker: int
    room: Room
    limits: Limits
    questions: Mapping[str, Question]

    def follow(self, reading: int, stopped: threading.Event) -> None:
        """Read events until the worker ends or must be ended."""
        run = self.run
        started_s = heard_s = looked_s = time.monotonic()
        waiting = b""
        while not stopped.is_set():
            ready = select.select([reading], [], [], LOOK_EVERY_S)[0]
            now_s = time.monotonic()
            if ready:
                if not (chunk := os.read(reading, 1 << 16)):
                    return None if run.done or run.blame or run.again else self._blame("the judging process died")
                heard_s = now_s
                *lines, waiting = (waiting + chunk).split(b"\n")
                if not all(map(self._hear, lines)) or len(waiting) > MOST_LINE_BYTES:
                    return self._blame("the judging process reported what it can't know")
                started_s = started_s if run.at else now_s  # the time runs from the first cell
            if now_s - looked_s < LOOK_EVERY_S:
                continue
            looked_s = now_s
            if not run.ready:
                if now_s - started_s > START_S:
                    return None
            elif why := self._takes_too_much():
                return self._blame(why)
            elif now_s - heard_s > self.limits.cell_s + PATIENCE_S:
                return self._blame(f"it was still running after {self.limits.cell_s:g} s", Status.TIMEOUT)
            elif now_s - started_s > self.limits.notebook_s:
                return self._blame(f"the notebook took more than {self.limits.notebook_s:g} s", Status.TIMEOUT)
        return None

    def _takes_too_much(self) -> str:
        took = processes.use(self.worker, str(self.room.folder), MOST_PROCESSES, self.room.home)
        if took.processes > MOST_PROCESSES:
            return f"it started more than {MOST_PROCESSES} processes"
        if took.memory_bytes > MOST_MEMORY_BYTES:
            return f"it took more than {MOST_MEMORY_BYTES / 2**30:.0f} GiB of memory"
        if took.open_files > MOST_OPEN_FILES:
            return f"it opened more than {MOST_OPEN_FILES:,} files"
        if took.made_files > MOST_MADE_FILES:
            return f"it made more than {MOST_MADE_FILES:,} files"
        return ""

    def _blame(self, why: str, status: Status = Status.CRASHED) -> None:
        self.run.blame, self.run.why, self.run.status = self.run.at, why, status

    def _hear(self, line: bytes) -> bool:
        """Take one event; return whether it can be one."""
        try:
            self._take(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False
        return True

    def _take(self, event: dict[str, Any]) -> None:
        run, kind, at = self.run, event["event"], str(event.get("at", ""))
        if kind in ("ready", "done", "again", "lent"):
            setattr(run, kind, True)
        elif kind == "failed":
            run.failed[at] = str(event["error"])
            run.late += [at] if event["timeout"] else []
        elif kind == "begin":
            run.at = at
        elif kind == "gone":
            self._blame(str(event["why"]), Status.TIMEOUT if event["timeout"] else Status.CRASHED)
        elif kind == "verdict":
            verdict = verdict_from(event["verdict"], self.questions)
            run.verdicts[verdict.question_id] = verdict
            if event["text"] is not None:
                run.texts[verdict.question_id] = str(event["text"])
