"""A scenario's faults, carried out on real processes: signals for what happens to a process, hops for the network.

    crash       SIGKILL; the supervisor restarts it when it sees fit, whatever the event's duration
    hang        SIGSTOP, and SIGCONT when the time is over: connections stay open, and nothing comes
    slow        SIGSTOP and SIGCONT in turn, so that it runs one part in `factor` of the time
    partition   the hop swallows everything

Knows replicas by the ids of the running stack. Decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
from collections.abc import Callable

from miniserve.drills.hops import Hops
from miniserve.faults import ReplicaEvent, ReplicaFault
from miniserve.processes.supervisor import Supervisor

SLOW_CYCLE_S = 0.2  # short beside what a reader notices, long beside a step

OnFault = Callable[[ReplicaEvent, str], None]  # told an event, and what has just been done for it


class Injector:
    """Carries events out on one stack."""

    def __init__(
        self, supervisor: Supervisor, hops: Hops | None = None, on_fault: OnFault = lambda event, what: None
    ) -> None:
        self._supervisor = supervisor
        self._hops = hops
        self._on_fault = on_fault

    def pid(self, replica_id: str) -> int | None:
        """Return the running process of a replica."""
        return next((child.pid for child in self._supervisor.children if child.replica_id == replica_id), None)

    async def carry_out(self, event: ReplicaEvent) -> None:
        """Begin `event` now, whatever its `at_s`; return when it is over. A replica without a process is spared."""
        pid = self.pid(event.replica_id)
        if pid is None:
            self._on_fault(event, "has no process just now, and is spared")
            return
        match event.kind:
            case ReplicaFault.CRASH:
                signal_pid(pid, signal.SIGKILL)
                self._on_fault(event, f"killed (pid {pid})")
            case ReplicaFault.HANG:
                await self._hang(event, pid)
            case ReplicaFault.SLOW:
                await self._slow(event, pid)
            case ReplicaFault.PARTITION:
                await self._partition(event)

    async def _hang(self, event: ReplicaEvent, pid: int) -> None:
        signal_pid(pid, signal.SIGSTOP)
        self._on_fault(event, f"stopped (pid {pid})")
        try:
            await _for_long(event.duration_s)
        finally:
            signal_pid(pid, signal.SIGCONT)
        self._on_fault(event, "goes on" if self.pid(event.replica_id) == pid else "was replaced meanwhile")

    async def _slow(self, event: ReplicaEvent, pid: int) -> None:
        self._on_fault(event, f"slowed down to 1/{event.factor:g}")
        loop = asyncio.get_running_loop()
        until_s = loop.time() + event.duration_s
        runs_s = SLOW_CYCLE_S / max(1.0, event.factor)
        try:
            while loop.time() < until_s and self.pid(event.replica_id) == pid:
                signal_pid(pid, signal.SIGSTOP)
                await asyncio.sleep(SLOW_CYCLE_S - runs_s)
                signal_pid(pid, signal.SIGCONT)
                await asyncio.sleep(runs_s)
        finally:
            signal_pid(pid, signal.SIGCONT)
        self._on_fault(event, "runs at its own speed")

    async def _partition(self, event: ReplicaEvent) -> None:
        assert self._hops is not None, "a partition needs hops"
        hop = self._hops[event.replica_id]
        hop.swallow()
        self._on_fault(event, "cut off from the gateway")
        try:
            await _for_long(event.duration_s)
        finally:
            hop.heal()
        self._on_fault(event, "reached again")


def signal_pid(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


async def _for_long(duration_s: float) -> None:
    """Wait so long, or until cancelled."""
    if math.isinf(duration_s):
        await asyncio.Event().wait()
    await asyncio.sleep(duration_s)
