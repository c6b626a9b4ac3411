"""The load's process: told the factor, heard, started anew, and gone when the block is left."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

import psutil
import pytest

from miniserve.operations.load import LoadDial
from miniserve.processes import load_process
from miniserve.processes.load_process import running_load

pytestmark = pytest.mark.anyio
Until = Callable[[Callable[[], object]], Awaitable[None]]

# Says how often it was told a factor, as "sent", and the last one as the rate; ends with its input, after another line.
SCRIPT = """
import json, os, sys
sent, rate = 0, 0.0
def say(graded):
    counts = dict(sent=sent, answered=os.getpid(), failed=0, graded=graded, good=0, rate_per_s=rate)
    print(json.dumps(counts), flush=True)
for line in sys.stdin:
    sent, rate = sent + 1, json.loads(line)["factor"]
    if rate == 3:
        sys.exit("three is too much")
    say(0)
say(1)
"""
COMMAND = [sys.executable, "-c", SCRIPT]


async def test_it_is_told_the_factor_and_ends_with_its_last_line_read(until: Until) -> None:
    dial = LoadDial()
    dial.turn(0.5)
    async with running_load(COMMAND, dial):
        await until(lambda: dial.as_json()["rate_per_s"] == 0.5)
        pid = int(str(dial.as_json()["answered"]))
        dial.turn(2.0)
        await until(lambda: dial.as_json()["rate_per_s"] == 2.0)
        assert os.getsid(pid) == pid, "a terminal's Ctrl-C must not reach it"
    assert not psutil.pid_exists(pid)
    assert (dial.as_json()["sent"], dial.as_json()["graded"]) == (2, 1)


async def test_one_that_ends_unasked_is_named_and_started_anew_with_the_factor_of_now(
    until: Until, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_process, "AGAIN_S", 0.01)
    dial = LoadDial()
    async with running_load(COMMAND, dial):
        await until(lambda: dial.as_json()["sent"] == 1)
        dial.turn(3.0)
        await until(lambda: "three is too much" in caplog.text)
        dial.turn(1.0)
        await until(lambda: dial.as_json()["sent"] == 2)
    assert "the demo's load ended with code 1; it said: three is too much" in caplog.text


async def test_leaving_by_an_exception_ends_it_at_once(until: Until) -> None:
    dial = LoadDial()
    deaf = [sys.executable, "-c", SCRIPT + "\nimport time\ntime.sleep(1000)"]
    pids: list[int] = []

    async def run() -> None:
        async with running_load(deaf, dial):
            await until(lambda: dial.as_json()["sent"] == 1)
            pids.append(int(str(dial.as_json()["answered"])))
            await asyncio.Event().wait()

    running = asyncio.create_task(run())
    await until(lambda: pids)
    running.cancel()
    await asyncio.wait({running})
    assert not psutil.pid_exists(pids[0])


async def test_one_that_does_not_finish_is_killed(until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_process, "GRACE_S", 0.01)
    dial = LoadDial()
    async with running_load([sys.executable, "-c", SCRIPT + "\nimport time\ntime.sleep(1000)"], dial):
        await until(lambda: dial.as_json()["sent"] == 1)
        pid = int(str(dial.as_json()["answered"]))
    assert not psutil.pid_exists(pid)


async def test_a_command_that_is_not_there_is_a_line_in_the_log(until: Until, caplog: pytest.LogCaptureFixture) -> None:
    async with running_load(["/no/such/program"], LoadDial()):
        await until(lambda: "the demo's load cannot be started" in caplog.text)
