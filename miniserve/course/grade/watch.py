"""Follows one worker from outside, and ends it if it is silent, takes too long or takes too much.

When it is over, everything that it started is killed.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miniserve.course.check.verdict import Status, Verdict
from miniserve.course.grade import processes
from miniserve.course.grade.sandbox import Room
from miniserve.course.grade.sheet import verdict_from
from miniserve.course.grade.trusted import Limits

START_S = 300.0  # until the kernel's first answer: 5 s of work, on a machine that may be very busy
LOOK_EVERY_S = 0.2
MOST_PROCESSES = 64
MOST_MEMORY_BYTES = 3 * 2**30
PATIENCE_S = 15.0  # beyond a cell's limit, before we end a silent worker: it should have ended the cell


@dataclass(slots=True)
class NotebookRun:
    """What one worker reported, and how it ended."""

    ready: bool = False
    done: bool = False
    at: str = ""  # what was running last
    blame: str = ""  # a cell or question that must not run again
    why: str = ""
    status: Status = Status.CRASHED
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # cells that failed
    late: list[str] = field(default_factory=list)  # those that ran out of time, in order
    log: str = ""


def watch(job: dict[str, Any], folder: Path, room: Room, limits: Limits, stopped: threading.Event) -> NotebookRun:
    """Start a worker, follow its reports, and end it if it is silent, takes too long or takes too much."""
    reading, writing = os.pipe()
    (folder / "job.json").write_text(json.dumps({**job, "pipe": writing}), encoding="utf-8")
    with open(folder / "log", "wb") as log:
        worker = subprocess.Popen(
            _command(folder, limits), cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            pass_fds=(writing,), start_new_session=True, env=_environment(),
        )  # fmt: skip
        os.close(writing)
        run = NotebookRun()
        try:
            _follow(run, reading, worker.pid, str(room.folder), limits, stopped)
        finally:
            processes.end(worker.pid, str(room.folder))
            worker.wait()
            os.close(reading)
    run.log = (folder / "log").read_bytes()[-4000:].decode("utf-8", "replace")
    return run


def _command(folder: Path, limits: Limits) -> list[str]:
    options = [
        f"--nbval-cell-timeout={limits.cell_s}",
        "--nbval-lax",
        "-p",
        "miniserve.course.grade.worker",
        "--grade-job",
        str(folder / "job.json"),
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


def _follow(run: NotebookRun, reading: int, worker: int, mark: str, limits: Limits, stopped: threading.Event) -> None:
    """Read events until the worker ends or must be ended."""
    started_s = heard_s = looked_s = time.monotonic()
    waiting = b""
    while not stopped.is_set():
        ready = select.select([reading], [], [], LOOK_EVERY_S)[0]
        now_s = time.monotonic()
        if ready:
            if not (chunk := os.read(reading, 1 << 16)):
                return None if run.done or run.blame else _blame(run, "the judging process died")
            heard_s = now_s
            *lines, waiting = (waiting + chunk).split(b"\n")
            for line in lines:
                _hear(run, json.loads(line))
                started_s = started_s if run.at else now_s  # the time runs from the first cell
        if now_s - looked_s < LOOK_EVERY_S:
            continue
        looked_s = now_s
        count, held = processes.use(worker, mark, MOST_PROCESSES)
        if not run.ready:
            if now_s - started_s > START_S:
                return None
        elif count > MOST_PROCESSES:
            return _blame(run, f"it started more than {MOST_PROCESSES} processes")
        elif held > MOST_MEMORY_BYTES:
            return _blame(run, f"it took more than {MOST_MEMORY_BYTES / 2**30:.0f} GiB of memory")
        elif now_s - heard_s > limits.cell_s + PATIENCE_S:
            return _blame(run, f"it was still running after {limits.cell_s:g} s", Status.TIMEOUT)
        elif now_s - started_s > limits.notebook_s:
            return _blame(run, f"the notebook took more than {limits.notebook_s:g} s", Status.TIMEOUT)


def _blame(run: NotebookRun, why: str, status: Status = Status.CRASHED) -> None:
    run.blame, run.why, run.status = run.at, why, status


def _hear(run: NotebookRun, event: dict[str, Any]) -> None:
    kind, at = event["event"], event.get("at", "")
    if kind == "ready":
        run.ready = True
    elif kind == "done":
        run.done = True
    elif kind == "failed":
        run.failed[at] = event["error"]
        run.late += [at] if event["timeout"] else []
    elif kind == "begin":
        run.at = at
    elif kind == "gone":
        _blame(run, event["why"], Status.TIMEOUT if event["timeout"] else Status.CRASHED)
    elif kind == "verdict":
        verdict = verdict_from(event["verdict"])
        run.verdicts[verdict.question_id] = verdict
        if event["text"] is not None:
            run.texts[verdict.question_id] = event["text"]
