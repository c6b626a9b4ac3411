"""Replica processes: start them, restart any that dies or is absent, drain and stop them; leave none behind.

Each process gets its own session, so that a terminal's Ctrl-C reaches only us, and the replicas outlive it for as long
as draining takes. Each holds the read end of a pipe that we never write to: if we die without warning, the pipe closes
and the replica exits. A replica prints one JSON line on stdout when it is ready; its stderr is logged, and its last
lines are kept for the error message if a start fails.

**Absent is not dead.** A process that was stopped, or whose event loop is stuck, never exits, so waiting for its end
would halve the fleet for good. Its probes tell (`replace_absent`): who has been up and answers none for `absent_s` is
killed, in whatever state it is, and started anew like one that died. A process that still loads its model has not been
up, and has `start_timeout_s`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from miniserve.errors import SetupError
from miniserve.processes.http_server import LOOPBACK
from miniserve.types import Clock, FleetView, ReplicaState

log = logging.getLogger(__name__)

START_TIMEOUT_S = 180.0  # importing torch and reading weights on a slow disk, with both cores busy
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.5, 10.0  # doubling: a replica that dies at once must not burn a core by restarting
ABSENT_S = 30.0  # without an answer to any probe: far longer than a machine that swaps, or a step that drags on
STABLE_S = 30.0  # after living this long, a replica restarts with the first backoff
LINE_LIMIT = 1 << 20  # bytes; nothing we start writes a longer line
STDERR_LINES = 8  # shown when a start fails: the end of a traceback


class Listener(Protocol):
    """Is told when a replica comes up or goes down; in `stack` that passes it on to the fleet."""

    async def up(self, replica_id: str, url: str) -> None: ...
    def down(self, replica_id: str) -> None: ...


@dataclass
class Child:
    """One replica, across all the processes that run it in turn."""

    replica_id: str
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    up_since_s: float | None = None  # None: it is starting, has ended, or is being killed
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=STDERR_LINES))

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.returncode is None else None


class Supervisor:
    """`async with Supervisor(...)`: the replicas run inside the block, and none is left after it.

    `command` is the command line of a replica; the process must behave like `commands/replica.py`.
    """

    def __init__(
        self,
        command: Sequence[str],
        replica_ids: Sequence[str],
        listener: Listener,
        clock: Clock,
        *,
        start_timeout_s: float = START_TIMEOUT_S,
        drain_timeout_s: float = 30.0,
        absent_s: float = ABSENT_S,
    ) -> None:
        self.children = tuple(Child(replica_id) for replica_id in replica_ids)
        self._command = tuple(command)
        self._listener = listener
        self._clock = clock
        self._start_timeout_s = start_timeout_s
        self._drain_timeout_s = drain_timeout_s
        self._absent_s = absent_s
        self._tasks: set[asyncio.Task[None]] = set()  # watchers, and readers of stderr

    async def __aenter__(self) -> Supervisor:
        try:
            async with asyncio.TaskGroup() as group:
                for child in self.children:
                    group.create_task(self._start(child))
        except BaseException as error:
            await self._stop_all(grace_s=0.0)
            if isinstance(error, ExceptionGroup):
                raise error.exceptions[0] from None
            raise
        for child in self.children:
            self._spawn_task(self._watch(child), f"watch {child.replica_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop_all(self._drain_timeout_s if error is None else 0.0)

    def kill_now(self) -> None:
        """Kill every process without waiting for anything; for a second Ctrl-C."""
        for child in self.children:
            _signal(child.process, signal.SIGKILL)

    def replace_absent(self, now_s: float, view: FleetView) -> None:
        """Kill each process that answers no probe any more; its watcher starts another. A control loop of the fleet.

        `view` must call the replica down as well: after a night's sleep of this machine every report is old.
        """
        down_since_s = {one.replica_id: one.as_of_s for one in view.replicas if one.state is ReplicaState.DOWN}
        for child in self.children:
            if child.up_since_s is None or child.replica_id not in down_since_s:
                continue
            silent_s = now_s - max(child.up_since_s, down_since_s[child.replica_id])
            if silent_s >= self._absent_s:
                log.warning("replica %s has answered no probe for %.0f s; killing it", child.replica_id, silent_s)
                child.up_since_s = None
                _signal(child.process, signal.SIGKILL)

    # --- one child's life ------------------------------------------------------------------------------------------

    async def _start(self, child: Child) -> None:
        """Start a process and wait until it is ready. Raises: SetupError with its last lines if it fails."""
        child.process = process = await _spawn(self._command)
        child.last_lines.clear()
        reader = self._spawn_task(_read_stderr(child, process), f"stderr of {child.replica_id}")
        try:
            async with asyncio.timeout(self._start_timeout_s):
                port = await _ready_port(process)
        except TimeoutError:
            await _kill(process)
            raise SetupError(self._start_failure(child, f"was not ready after {self._start_timeout_s:g} s")) from None
        except BaseException:
            await _kill(process)
            raise
        if port is None:
            await process.wait()
            await asyncio.wait({reader}, timeout=1.0)  # its last lines may still be in the pipe
            raise SetupError(self._start_failure(child, f"exited with code {process.returncode} before it was ready"))
        await self._listener.up(child.replica_id, f"http://{LOOPBACK}:{port}")
        child.up_since_s = self._clock()

    def _start_failure(self, child: Child, what: str) -> str:
        said = " | ".join(child.last_lines) or "nothing"
        return f"replica {child.replica_id} {what}; it said: {said}"

    async def _watch(self, child: Child) -> None:
        """Wait for the process to die and start another, forever."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            assert child.process is not None
            up_since_s = self._clock()
            code = await child.process.wait()
            child.up_since_s = None
            self._listener.down(child.replica_id)
            if self._clock() - up_since_s >= STABLE_S:
                backoff_s = FIRST_BACKOFF_S
            log.warning("replica %s exited with code %s; restarting in %g s", child.replica_id, code, backoff_s)
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, LAST_BACKOFF_S)
            child.restarts += 1
            try:
                await self._start(child)
            except (SetupError, OSError) as error:  # OSError: the system cannot start another process now
                log.warning("%s", error)

    # --- stopping --------------------------------------------------------------------------------------------------

    async def _stop_all(self, grace_s: float) -> None:
        """SIGTERM, wait up to `grace_s` for draining, SIGKILL what is left, even if we are cancelled."""
        try:
            await self._cancel_tasks("watch")
            await asyncio.gather(*(_terminate(child.process, grace_s) for child in self.children))
        finally:
            self.kill_now()
        await self._cancel_tasks("")

    async def _cancel_tasks(self, prefix: str) -> None:
        tasks = [task for task in self._tasks if task.get_name().startswith(prefix)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn_task(self, coroutine: object, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(coroutine, name=name)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _spawn(command: Sequence[str]) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        limit=LINE_LIMIT,
        start_new_session=sys.platform != "win32",
    )


async def _ready_port(process: asyncio.subprocess.Process) -> int | None:
    """Return the port from the ready line; None if stdout ends without one."""
    assert process.stdout is not None
    async for line in process.stdout:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return int(json.loads(line)["port"])
    return None


async def _read_stderr(child: Child, process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    async for line in process.stderr:
        text = line.decode(errors="replace").rstrip()
        if text:
            child.last_lines.append(text)
            log.info("[%s] %s", child.replica_id, text)


async def _terminate(process: asyncio.subprocess.Process | None, grace_s: float) -> None:
    if process is None:
        return
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            await process.wait()
            return
    await _kill(process)


async def _kill(process: asyncio.subprocess.Process) -> None:
    _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: asyncio.subprocess.Process | None, number: signal.Signals) -> None:
    if process is not None and process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
