"""Replica processes: start them, restart any that dies or is absent, drain and stop them; leave none behind.

    start ──> starting ── ready line, first probe ──> up ── retire ──> draining ──> gone
                 ^                                     |
                 └────────── backoff <── it ended ─────┘

**Who ends unasked is started anew**, whatever its exit code: a replica that somebody sent SIGTERM finishes what runs,
exits with 0, and comes back. Only `retire` is for good.

**Absent is not dead.** A process that was stopped, or whose event loop is stuck, never exits, so waiting for its end
would halve the fleet for good. Its probes tell (`replace_absent`): who has been up and answers none for `absent_s` is
killed, in whatever state it is, and started anew like one that died. A process that still loads its model has not been
up, and has `start_timeout_s`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from miniserve.errors import SetupError
from miniserve.processes.child import (
    Child,
    ChildSpec,
    kill,
    read_port,
    read_stderr,
    send_signal,
    spawn,
    terminate,
)
from miniserve.processes.http_server import LOOPBACK
from miniserve.types import Clock, FleetView, ReplicaState

log = logging.getLogger(__name__)

START_TIMEOUT_S = 180.0  # importing torch and reading weights on a slow disk, with both cores busy
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.5, 10.0  # doubling: a replica that dies at once must not burn a core by restarting
ABSENT_S = 30.0  # without an answer to any probe: far longer than a machine that swaps, or a step that drags on
STABLE_S = 30.0  # after living this long, a replica restarts with the first backoff


class Listener(Protocol):
    """Is told when a replica comes up or goes down; in `stack` that passes it on to the fleet."""

    async def up(self, replica_id: str, url: str) -> None: ...
    def down(self, replica_id: str) -> None: ...


class Supervisor:
    """`async with Supervisor(...)`: the replicas run inside the block, and none is left after it.

    It begins with `replica_ids`, all of which run `command`; `start` adds others, each with a command line of its own.
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
        first = [Child(ChildSpec(replica_id, tuple(command))) for replica_id in replica_ids]
        self._children = {child.replica_id: child for child in first}
        self._listener = listener
        self._clock = clock
        self._start_timeout_s = start_timeout_s
        self._drain_timeout_s = drain_timeout_s
        self._absent_s = absent_s
        self._tasks: set[asyncio.Task[None]] = set()  # watchers, and readers of stderr

    @property
    def children(self) -> tuple[Child, ...]:
        return tuple(self._children.values())

    async def __aenter__(self) -> Supervisor:
        try:
            await self._start_all(self.children)
        except BaseException:
            await self._stop_all(grace_s=0.0)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop_all(self._drain_timeout_s if error is None else 0.0)

    # --- membership ------------------------------------------------------------------------------------------------

    async def start(self, specs: Sequence[ChildSpec]) -> None:
        """Start more processes and return when all of them are up. Cancelling gives up.

        Raises: SetupError when one fails, with its last words, or has an id that is in use; then none of them is left.
        """
        taken = [spec.replica_id for spec in specs if spec.replica_id in self._children]
        if taken:
            raise SetupError(f"there is a replica {taken[0]} already")
        children = [Child(spec) for spec in specs]
        self._children |= {child.replica_id: child for child in children}
        try:
            await self._start_all(children)
        except BaseException:
            await asyncio.gather(*(self._forget(child, grace_s=0.0) for child in children))
            raise

    async def _start_all(self, children: Sequence[Child]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for child in children:
                    group.create_task(self._start(child))
        except ExceptionGroup as errors:
            error = errors.exceptions[0]
            if isinstance(error, OSError):
                error = SetupError(f"the system cannot start another process: {error}")
            raise error from None
        for child in children:
            child.watcher = self._spawn_task(self._watch(child), f"watch {child.replica_id}")

    async def retire(self, replica_id: str) -> None:
        """Have a replica finish what it runs, for `drain_timeout_s` at most, and let it go for good.

        No effect if it has gone. Tell the fleet first (`Fleet.drain`), or requests go on being sent there.
        """
        if child := self._children.get(replica_id):
            await self._forget(child, self._drain_timeout_s)

    async def _forget(self, child: Child, grace_s: float) -> None:
        child.up_since_s = None
        if child.watcher is not None:
            child.watcher.cancel()  # if it is starting another process, that one is killed with it
            await asyncio.gather(child.watcher, return_exceptions=True)
        await terminate(child.process, grace_s)
        if self._children.get(child.replica_id) is child:
            del self._children[child.replica_id]

    def kill_now(self) -> None:
        """Kill every process without waiting for anything; for a second Ctrl-C."""
        for child in self.children:
            send_signal(child.process, signal.SIGKILL)

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
                send_signal(child.process, signal.SIGKILL)

    # --- one child's life ------------------------------------------------------------------------------------------

    async def _start(self, child: Child) -> None:
        """Start a process and wait until it is ready. Raises: SetupError with its last lines if it fails."""
        ordered_s = self._clock()
        child.process = process = await spawn(child.spec)
        child.last_lines.clear()
        reader = self._spawn_task(read_stderr(child, process), f"stderr of {child.replica_id}")
        try:
            async with asyncio.timeout(self._start_timeout_s):
                port = await read_port(process)
        except TimeoutError:
            await kill(process)
            raise SetupError(_start_failure(child, f"was not ready after {self._start_timeout_s:g} s")) from None
        except BaseException:
            await kill(process)
            raise
        if port is None:
            await process.wait()
            await asyncio.wait({reader}, timeout=1.0)  # its last lines may still be in the pipe
            raise SetupError(_start_failure(child, f"exited with code {process.returncode} before it was ready"))
        await self._listener.up(child.replica_id, f"http://{LOOPBACK}:{port}")
        child.up_since_s = self._clock()
        child.start_s = child.up_since_s - ordered_s

    async def _watch(self, child: Child) -> None:
        """Wait for the process to end and start another, forever."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            assert child.process is not None
            up_since_s = self._clock()
            code = child.exit_code = await child.process.wait()
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
            await asyncio.gather(*(terminate(child.process, grace_s) for child in self.children))
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


def _start_failure(child: Child, what: str) -> str:
    said = " | ".join(child.last_lines) or "nothing"
    return f"replica {child.replica_id} {what}; it said: {said}"
