"""One replica process: start it, read its ready line, send it signals, keep its last words.

Each process gets its own session, so that a terminal's Ctrl-C reaches only us, and the replicas outlive it for as long
as draining takes. Each holds the read end of a pipe that we never write to: if we die without warning, the pipe closes
and the replica exits. A replica prints one JSON line on stdout when it is ready; its stderr is logged, and its last
lines are kept for the error message if a start fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections import deque
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

LINE_LIMIT = 1 << 20  # bytes; nothing we start writes a longer line
STDERR_LINES = 8  # shown when a start fails: the end of a traceback


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to start: the command line of a replica, which must behave like `commands/replica.py`."""

    replica_id: str
    command: tuple[str, ...]
    nice: int = 0  # added to ours: the system gives it the processor after others


@dataclass
class Child:
    """One replica, across all the processes that run it in turn."""

    spec: ChildSpec
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    exit_code: int | None = None  # of the last process that ended unasked; -9: it was killed
    up_since_s: float | None = None  # None: it is starting, is going, has ended, or is being killed
    start_s: float | None = None  # how long its latest cold start took, from the order to the first answered probe
    watcher: asyncio.Task[None] | None = None
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=STDERR_LINES))

    @property
    def replica_id(self) -> str:
        return self.spec.replica_id

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.returncode is None else None


async def spawn(spec: ChildSpec) -> asyncio.subprocess.Process:
    """Raises: OSError if the system cannot start another process now."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *spec.command,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        limit=LINE_LIMIT,
        start_new_session=sys.platform != "win32",
    )
    if spec.nice and sys.platform != "win32":
        with contextlib.suppress(OSError):  # it has gone already; its end is noticed elsewhere
            own = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, process.pid, own + spec.nice)  # its threads will inherit it
    return process


async def read_port(process: asyncio.subprocess.Process) -> int | None:
    """Return the port from the ready line; None if stdout ends without one."""
    assert process.stdout is not None
    async for line in process.stdout:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return int(json.loads(line)["port"])
    return None


async def read_stderr(child: Child, process: asyncio.subprocess.Process) -> None:
    """Log what a process says, and keep its last lines, until it closes its stderr."""
    assert process.stderr is not None
    async for line in process.stderr:
        text = line.decode(errors="replace").rstrip()
        if text:
            child.last_lines.append(text)
            log.info("[%s] %s", child.replica_id, text)


async def terminate(process: asyncio.subprocess.Process | None, grace_s: float) -> None:
    """SIGTERM, wait up to `grace_s`, SIGKILL."""
    if process is None:
        return
    send_signal(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            await process.wait()
            return
    await kill(process)


async def kill(process: asyncio.subprocess.Process) -> None:
    send_signal(process, signal.SIGKILL)
    await process.wait()


def send_signal(process: asyncio.subprocess.Process | None, number: signal.Signals) -> None:
    if process is not None and process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
