"""Hands that reach the replicas' processes, for a person who wants to see what the stack makes of it."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import Process
from dataclasses import dataclass

from miniserve.errors import Conflict, NotFound
from miniserve.processes.child import send_signal
from miniserve.processes.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class _Stopped:
    process: Process
    timer: asyncio.TimerHandle  # lets it go on


class ProcessHands:
    """`async with ProcessHands(supervisor)`: what is stopped goes on at the block's end, and so can end in order."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._stopped: dict[str, _Stopped] = {}

    def kill(self, replica_id: str) -> None:
        """Send SIGKILL, which ends a stopped process too. Raises: NotFound, Conflict."""
        send_signal(self._process(replica_id), signal.SIGKILL)

    def hang(self, replica_id: str, seconds: float) -> None:
        """Send SIGSTOP now and SIGCONT later; asked again meanwhile, count anew. Raises: NotFound, Conflict."""
        process = self._process(replica_id)
        self._let_go(replica_id)
        send_signal(process, signal.SIGSTOP)
        timer = asyncio.get_running_loop().call_later(seconds, self._let_go, replica_id)
        self._stopped[replica_id] = _Stopped(process, timer)

    async def __aenter__(self) -> ProcessHands:
        return self

    async def __aexit__(self, *_: object) -> None:
        for replica_id in list(self._stopped):
            self._let_go(replica_id)

    def _let_go(self, replica_id: str) -> None:
        if (stopped := self._stopped.pop(replica_id, None)) is not None:
            stopped.timer.cancel()
            send_signal(stopped.process, signal.SIGCONT)  # to that process only: there may be another by now

    def _process(self, replica_id: str) -> Process:
        children = {child.replica_id: child for child in self._supervisor.children}
        child = children.get(replica_id)
        if child is None:
            raise NotFound(f"there is no replica process {replica_id!r}; there are {', '.join(children) or 'none'}")
        if child.process is None or child.pid is None:
            raise Conflict(f"{replica_id} has no process just now; it is being started anew")
        return child.process
