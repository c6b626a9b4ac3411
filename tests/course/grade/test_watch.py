"""The supervisor believes no report that can't be true, and counts what no limit of the system counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from course.grade import toy
from course.grade.toy_course.ch90_toy.questions import QUESTIONS

from miniserve.course.check.verdict import Status
from miniserve.course.grade import processes, watch
from miniserve.course.grade.judge import End
from miniserve.course.grade.processes import Use
from miniserve.course.grade.sandbox import Room
from miniserve.course.grade.sheet import MOST_CHARACTERS
from miniserve.course.grade.trusted import Limits
from miniserve.course.grade.watch import NotebookRun
from miniserve.course.grade.worker import GradingJob

BY_ID = {question.id: question for question in QUESTIONS}


def event(question: str, status: str, credit: float = 0.0, text: Any = None, **rest: Any) -> bytes:
    verdict = {
        "question_id": question,
        "status": status,
        "problem": None,
        "credit": credit,
        "seed": 1,
        "note": "",
        "right_for": "",
    } | rest
    return json.dumps({"event": "verdict", "verdict": verdict, "text": text}).encode()


def followed(*lines: bytes) -> NotebookRun:
    """Return what a run is worth after these lines from its worker."""
    follower = watch._Follower(NotebookRun(), os.getpid(), Room(Path("/nowhere/r")), Limits(), BY_ID)
    with tempfile.TemporaryFile() as told:  # a file holds more than a pipe
        told.write(b"".join(line + b"\n" for line in (b'{"event": "begin", "at": "q90.1"}', *lines)))
        told.seek(0)
        follower.follow(told.fileno(), threading.Event())
    return follower.run


DONE = b'{"event": "done"}'


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (event("90.1", "correct", 1.0), Status.CORRECT),
        (event("90.5", "partial", 0.5), Status.PARTIAL),
        (event("90.4", "noted", text="a text"), Status.NOTED),
        (event("90.4", "wrong"), Status.WRONG),
        (event("90.1", "not tried"), Status.NOT_TRIED),
        (
            event("90.1", "crashed", problem={"id": "a", "what": "b", "why": "c", "next": "", "where": ""}),
            Status.CRASHED,
        ),
    ],
)
def test_a_verdict_that_can_be_is_taken(line: bytes, status: Status) -> None:
    run = followed(line, DONE)

    assert [verdict.status for verdict in run.verdicts.values()] == [status]
    assert (run.done, run.blame) == (True, "")


@pytest.mark.parametrize(
    "line",
    [
        event("90.4", "correct", 1.0),  # a free text: only a person says so
        event("90.4", "partial", 0.9),
        event("90.1", "noted"),
        event("90.1", "correct", 0.0),
        event("90.1", "correct", 7.0),
        event("90.1", "correct", float("nan")),
        event("90.1", "wrong", 1.0),
        event("90.1", "timeout", 0.5),
        event("90.5", "partial", 1.0),
        event("90.5", "partial", 0.0),
        event("90.1", "unreadable"),
        event("90.1", "not graded"),
        event("90.1", "excellent", 1.0),
        event("91.1", "correct", 1.0),
        event("90.1", "correct", 1.0, note="x" * (MOST_CHARACTERS + 1)),
        event("90.1", "wrong", problem={"id": "a", "what": ["b"], "why": "c", "next": "", "where": ""}),
        event("90.1", "wrong", problem={"id": "a"}),
        event("90.1", "wrong", problem="a"),
        event("90.1", "correct", 1.0, seed=None),
        b'{"event": "verdict", "verdict": [], "text": null}',
        b'{"event": "verdict"}',
        b'{"no": "event"}',
        b"[]",
        b"7",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"event": "failed", "at": "x"}',
    ],
)
def test_a_report_that_cannot_be_true_ends_the_run_and_gains_nothing(line: bytes) -> None:
    run = followed(line, event("90.2", "correct", 1.0), DONE)

    assert run.verdicts.keys() <= {"90.2"}
    assert run.why == "the judging process reported what it can't know"
    assert run.blame == "q90.1"


def test_a_line_without_end_is_not_kept() -> None:
    program = "import os, sys\nwhile True: os.write(int(sys.argv[1]), b'x' * 60_000)"
    reading, writing = os.pipe()
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(writing)], pass_fds=[writing], stderr=subprocess.DEVNULL
    )
    os.close(writing)
    follower = watch._Follower(NotebookRun(ready=True), writer.pid, Room(Path("/nowhere/r")), Limits(), BY_ID)
    follower.follow(reading, threading.Event())
    os.close(reading)
    writer.wait(30)

    assert follower.run.why == "the judging process reported what it can't know"


@pytest.mark.parametrize(
    ("use", "why"),
    [
        (Use(processes=65), "more than 64 processes"),
        (Use(memory_bytes=3 * 2**30 + 1), "more than 3 GiB of memory"),
        (Use(open_files=2_001), "more than 2,000 files"),
        (Use(made_files=20_001), "made more than 20,000 files"),
    ],
)
def test_each_kind_of_excess_ends_a_run(use: Use, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "use", lambda *given: use)
    reading, writing = os.pipe()
    follower = watch._Follower(NotebookRun(ready=True, at="own-1"), os.getpid(), Room(Path("/n/r")), Limits(), BY_ID)
    follower.follow(reading, threading.Event())
    os.close(reading)
    os.close(writing)

    assert (follower.run.blame, follower.run.status) == ("own-1", Status.CRASHED)
    assert why in follower.run.why


def test_memory_and_open_files_of_a_whole_family_are_counted() -> None:
    program = """import os, time
kept = [os.pipe() for _ in range(100)]
held = bytearray(100_000_000)
os.fork()
print("ready", flush=True)
time.sleep(60)"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    try:
        parent.stdout.readline()
        time.sleep(0.5)
        took = processes.use(parent.pid, "no mark", 64, Path("/nowhere"))
    finally:
        assert processes.end(parent.pid, "no mark")
        parent.wait()
        parent.stdout.close()

    assert took.processes == 2
    assert took.open_files > 400
    assert took.memory_bytes > 100_000_000
    assert took.made_files == 0


def test_beyond_the_limit_processes_are_only_counted() -> None:
    assert processes.use(os.getpid(), "no mark", 0, Path("/nowhere")).memory_bytes == 0


def test_a_secluded_process_cannot_be_looked_into() -> None:
    """What a submission without a sandbox would do: open the worker's pipe, as the same user."""
    if os.getuid() == 0:
        pytest.skip("root may look into every process")
    program = "from miniserve.course.grade import processes as p\np.seclude()\nprint(flush=True)\ninput()"
    secluded = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": toy.PATH},
    )  # fmt: skip
    assert secluded.stdout is not None
    assert secluded.stdin is not None
    try:
        secluded.stdout.readline()
        with pytest.raises(psutil.AccessDenied):
            psutil.Process(secluded.pid).num_fds()
        with pytest.raises(PermissionError):
            os.open(f"/proc/{secluded.pid}/mem", os.O_RDONLY)
    finally:
        secluded.stdin.close()
        secluded.wait()
        secluded.stdout.close()


# --- what a run that may be done again must not ask -------------------------------------------------------------------


@pytest.fixture
def job() -> GradingJob:
    reading, writing = os.pipe()
    os.close(reading)
    told = {"cell_ids": [], "questions": f"{toy.PACKAGE}.ch90_toy.questions", "ask_after": {}, "pipe": writing}
    job = GradingJob({**told, "again_if_late": ["given", "setup"]})
    os.close(writing)
    return job


@pytest.mark.parametrize(
    ("ends", "again"),
    [
        ({}, False),
        ({"given": End("late", timeout=True)}, True),
        ({"given": End("NameError: x")}, False),
        ({"own-1": End("late", timeout=True), "given": End("late", timeout=True)}, False),
        ({"given": End("late", timeout=True), "own-1": End("late", timeout=True)}, True),
        ({"own-1": End("ValueError: x"), "setup": End("late", timeout=True)}, True),
    ],
)
def test_a_run_whose_first_late_cell_is_a_given_one_asks_nothing(
    ends: dict[str, End], again: bool, job: GradingJob
) -> None:
    job.ends = ends
    assert job.given_up() is again


def test_a_run_that_has_seen_a_lent_body_is_not_done_again(job: GradingJob) -> None:
    job.ends, job.lent = {"given": End("late", timeout=True)}, True

    assert not job.given_up()
