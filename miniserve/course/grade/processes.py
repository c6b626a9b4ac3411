"""Watches an untrusted process and everything that it starts from outside, and ends them all together."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from miniserve.course.grade.syscalls import NUMBERS

MARK = "MINISERVE_GRADED_IN"
_PR_SET_DUMPABLE, _JOIN_SESSION_KEYRING = 4, 1


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


@dataclass(frozen=True, slots=True)
class Use:
    """What a family takes."""

    processes: int = 0
    memory_bytes: int = 0
    open_files: int = 0
    made_files: int = 0  # and folders, in a home that lies in memory


def use(root: int, mark: str, enough: int, home: Path) -> Use:
    """Return what the family takes; if there are more than `enough` processes only count them, fast."""
    own = descendants(root)
    if len(own) > enough:
        return Use(len(own))
    members = family(root, mark)
    held = opened = made = 0
    for one in members:
        with contextlib.suppress(psutil.Error, OSError):
            held += _memory(one)
            opened += one.num_fds()
        made = made or _files_made(one, home)
    return Use(len(members), held, opened, made)


def _memory(process: psutil.Process) -> int:
    """Return the bytes in memory and those that were swapped out, which `rss` alone leaves out."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("VmRSS:", "VmSwap:")))
    return int(process.memory_info().rss)


def _files_made(process: psutil.Process, home: Path) -> int:
    """Return how many files lie on the disk in memory that this process has at `home`; 0 if it has none."""
    with contextlib.suppress(OSError):
        inside = Path(f"/proc/{process.pid}/root") / home.relative_to("/")
        if inside.is_mount():
            disk = os.statvfs(inside)
            return disk.f_files - disk.f_ffree
    return 0


def seclude() -> None:
    """Keep this process's memory, open files and keys from other processes of the same user, where Linux can."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_DUMPABLE, 0)
        if (keyctl := NUMBERS.get(platform.machine(), {}).get("keyctl")) is not None:
            libc.syscall(keyctl, _JOIN_SESSION_KEYRING, None)  # an empty one, for us and what we start


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
