"""The process that sends the demo's load: started behind the gateway, told the factor, started anew if it ends.

    us -> it     {"factor": 2.0}           one JSON line on its standard input; the input's end asks it to finish
    it -> us     {"sent": 120, ...}        one JSON line on its standard output each second

It ends by itself once its input is closed and its last answers are in, so nothing of it outlives us.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from miniserve.operations.load import LoadDial
from miniserve.processes.child import Child, ChildSpec, kill, read_stderr, spawn

log = logging.getLogger(__name__)

AGAIN_S = 5.0  # before a load that ended unasked is started anew
GRACE_S = 35.0  # for its last answers; its clients wait 30 s for one
NICE = 5  # serving comes first


@asynccontextmanager
async def running_load(command: Sequence[str], dial: LoadDial) -> AsyncGenerator[None, None]:
    """Run `command` inside the block, with `dial` for what passes between us; afterwards its last answers are in.

    Leaving the block by an exception ends it at once.
    """
    load = _Load(command, dial)
    keeping = asyncio.create_task(load.keep(), name="keep the load")
    dial.on_factor = load.tell
    try:
        yield
        await load.finish()
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


class _Load:
    def __init__(self, command: Sequence[str], dial: LoadDial) -> None:
        self._child = Child(ChildSpec("load", tuple(command), NICE))
        self._dial = dial
        self._finishing = asyncio.Event()

    async def keep(self) -> None:
        """Start the process, and start it anew whenever it ends unasked. Cancelling kills it."""
        while not self._finishing.is_set():
            try:
                process = await spawn(self._child.spec)
            except OSError as error:
                log.warning("the demo's load cannot be started: %s", error)
            else:
                await self._attend(process)
                if not self._finishing.is_set():
                    why = self._child.last_lines[-1] if self._child.last_lines else "nothing"
                    log.warning("the demo's load ended with code %s; it said: %s", process.returncode, why)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S):
                    await self._finishing.wait()

    async def _attend(self, process: Process) -> None:
        """Listen to a process until it has ended."""
        self._child.process = process
        self.tell(self._dial.factor)
        reading = asyncio.create_task(read_stderr(self._child, process))
        try:
            await self._listen(process)
            await process.wait()
        finally:
            await kill(process)
            reading.cancel()
            self._dial.ended()

    async def _listen(self, process: Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            try:
                self._dial.told(json.loads(line))
            except (ValueError, LookupError, TypeError):
                log.warning("the demo's load said what is no count: %r", line[:100])

    def tell(self, factor: float) -> None:
        """Pass a factor on. A process that is not there is told when it starts."""
        process = self._child.process
        if process is not None and process.returncode is None and process.stdin is not None:
            with contextlib.suppress(OSError, RuntimeError):  # it is about to end
                process.stdin.write(json.dumps({"factor": factor}).encode() + b"\n")

    async def finish(self) -> None:
        """Let it send no more, and wait for its last answers."""
        self._finishing.set()
        process = self._child.process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(GRACE_S):
                await process.wait()
        except TimeoutError:
            log.warning("the demo's load did not finish within %g s", GRACE_S)
