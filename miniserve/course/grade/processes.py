"""Watches an untrusted process and everything that it starts from outside, and ends them all together."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import psutil

MARK = "MINISERVE_GRADED_IN"


def descendants(root: int) -> list[psutil.Process]:
    """Return `root` and all its descendants."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    return []


def family(root: int, mark: str) -> list[psutil.Process]:
    """Return the descendants, and every other process with our mark in its environment: a daemon has no parent."""
    found = {one.pid: one for one in descendants(root)}
    for one in _marked(mark):
        found.setdefault(one.pid, one)
    return list(found.values())


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                yield process


def use(root: int, mark: str, enough: int) -> tuple[int, int]:
    """Return how many processes the family has, and the bytes that they hold; beyond `enough` only count, fast."""
    own = descendants(root)
    if len(own) > enough:
        return len(own), 0
    count, held = 0, 0
    for one in family(root, mark):
        with contextlib.suppress(psutil.Error):
            count, held = count + 1, held + int(one.memory_info().rss)
    return count, held


def end(root: int, mark: str, patience_s: float = 20.0) -> bool:
    """Kill the family of our child `root`, stopping all first so that they start no more. Return whether all ended."""
    until_s = time.monotonic() + patience_s
    _kill_first(root)
    while alive := [one for one in family(root, mark) if _alive(one)]:
        for sign in (signal.SIGSTOP, signal.SIGKILL):
            for one in alive:
                with contextlib.suppress(psutil.Error, OSError):
                    os.kill(one.pid, sign)
        if time.monotonic() > until_s:
            return False
        psutil.wait_procs([one for one in alive if one.pid != root], timeout=0.2)  # the caller waits for the root
    return True


def _kill_first(root: int) -> None:
    """Kill the root and its children before looking for more: a sandbox's first process takes the others with it."""
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(root)
        process.suspend()  # so that it starts nothing while we look
        for one in [*process.children(), process]:
            os.kill(one.pid, signal.SIGKILL)


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
