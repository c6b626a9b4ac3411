"""Supervisor, with small Python scripts in place of replicas: starting, failing, restarting, stopping."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from miniserve.clock import monotonic
from miniserve.errors import SetupError
from miniserve.processes.child import ChildSpec
from miniserve.processes.supervisor import Supervisor
from miniserve.types import FleetView, ReplicaState, ReplicaView

pytestmark = pytest.mark.anyio

READY = "import json, os, sys, time; print(json.dumps({'port': os.getpid()}), flush=True)\n"  # the pid serves as a port
STAY = "sys.stdin.read()\n"  # until the parent closes the pipe, or SIGTERM
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


@dataclass
class Heard:
    """A listener that writes down what it is told."""

    up_ports: list[int] = field(default_factory=list)
    downs: list[str] = field(default_factory=list)

    async def up(self, replica_id: str, url: str) -> None:
        self.up_ports.append(int(url.rsplit(":", 1)[1]))

    def down(self, replica_id: str) -> None:
        self.downs.append(replica_id)


def supervisor(script: str, heard: Heard, *, replicas: int = 1, **options: Any) -> Supervisor:
    names = [f"r{i}" for i in range(replicas)]
    return Supervisor([sys.executable, "-c", script], names, heard, monotonic, **options)


async def test_processes_run_inside_the_block_and_none_after_it() -> None:
    heard = Heard()
    async with supervisor(READY + STAY, heard, replicas=3) as running:
        pids = [child.pid for child in running.children]
        assert sorted(heard.up_ports) == sorted(pids)  # type: ignore[type-var]
        assert all(os.getsid(pid) == pid for pid in pids if pid), (
            "a session of its own: a terminal's Ctrl-C is not for it"
        )
    assert not any(psutil.pid_exists(pid) for pid in pids if pid)
    assert heard.downs == [], "they were stopped, they did not fail"


async def test_a_process_that_ignores_sigterm_is_killed_after_the_timeout() -> None:
    async with supervisor(STUBBORN + READY + STAY, Heard(), drain_timeout_s=0.1) as running:
        process = running.children[0].process
        assert process is not None
    assert process.returncode == -signal.SIGKILL


async def test_leaving_by_an_exception_does_not_wait() -> None:
    running = supervisor(STUBBORN + READY + STAY, Heard(), drain_timeout_s=1000.0)
    with pytest.raises(RuntimeError, match="ours"):
        async with running:
            raise RuntimeError("ours")
    process = running.children[0].process
    assert process is not None
    assert process.returncode == -signal.SIGKILL


async def test_a_start_that_fails_says_the_last_words_of_the_process() -> None:
    script = "import sys; sys.exit('no such model: llama-900b')"
    with pytest.raises(SetupError, match=r"r0 exited with code 1 before it was ready; it said: no such model"):
        async with supervisor(script, Heard()):
            pass


async def test_a_start_that_takes_too_long_is_given_up() -> None:
    script = "import sys; print('still loading', file=sys.stderr, flush=True); sys.stdin.read()"
    running = supervisor(script, Heard(), start_timeout_s=0.5)
    with pytest.raises(SetupError, match=r"was not ready after 0\.5 s"):
        async with running:
            pass
    assert running.children[0].pid is None


async def test_when_one_of_several_cannot_start_none_is_left(tmp_path: Path) -> None:
    """The first process to arrive takes the token and fails; the others had started well."""
    token = tmp_path / "token"
    token.touch()
    script = (
        f"import os, sys, time\ntry: os.unlink({str(token)!r})\nexcept OSError: pass\nelse: sys.exit(3)\n{READY}{STAY}"
    )
    running = supervisor(script, Heard(), replicas=3)
    with pytest.raises(SetupError, match="exited with code 3"):
        async with running:
            pass
    processes = [child.process for child in running.children]
    assert all(process is not None and process.returncode is not None for process in processes)


async def test_cancelling_a_start_leaves_nothing(until: Any) -> None:
    running = supervisor("import sys; sys.stdin.read()", Heard())
    task = asyncio.create_task(running.__aenter__())
    await until(lambda: running.children[0].pid)
    pid = running.children[0].pid
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_a_process_that_dies_is_reported_and_replaced(until: Any) -> None:
    heard = Heard()
    async with supervisor(READY + STAY, heard) as running:
        first = running.children[0].pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(heard.up_ports) == 2)
        assert heard.downs == ["r0"]
        assert running.children[0].pid != first
        assert running.children[0].restarts == 1
    assert not psutil.pid_exists(heard.up_ports[1])


def down(as_of_s: float, state: ReplicaState = ReplicaState.DOWN) -> FleetView:
    return FleetView((ReplicaView("r0", state, as_of_s=as_of_s),))


async def test_a_stopped_process_is_replaced_once_it_has_answered_no_probe_for_long(until: Any) -> None:
    """SIGSTOP: it never exits, and SIGTERM would not reach it."""
    heard = Heard()
    async with supervisor(READY + STAY, heard, absent_s=30.0) as running:
        first = running.children[0].pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        now_s = monotonic()
        running.replace_absent(now_s + 29.0, down(now_s - 100.0))
        assert running.children[0].process is not None
        assert running.children[0].process.returncode is None, "it has been up for 29 s"
        running.replace_absent(now_s + 31.0, down(now_s))
        await until(lambda: len(heard.up_ports) == 2)
        assert heard.downs == ["r0"]
        assert running.children[0].pid != first
    assert not psutil.pid_exists(first)


async def test_only_who_was_up_and_is_down_can_be_absent(until: Any) -> None:
    heard = Heard()
    async with supervisor(READY + STAY, heard, absent_s=30.0) as running:
        (child,), pid = running.children, running.children[0].pid
        later_s = monotonic() + 1000.0
        running.replace_absent(later_s, down(later_s - 1.0))  # it answered a second ago that its engine is broken
        running.replace_absent(later_s, down(0.0, ReplicaState.READY))  # this machine has slept; no probe was missed
        running.replace_absent(later_s, FleetView())
        child.up_since_s = None  # a new process that loads its model, while the old one's report is in the view
        running.replace_absent(later_s, down(0.0))
        assert child.pid == pid
    assert heard.downs == []


async def test_a_replacement_that_fails_too_is_tried_again(tmp_path: Path, until: Any) -> None:
    """The second process of three cannot start."""
    log = tmp_path / "starts"
    count = f"""
import sys
with open({str(log)!r}, "a+") as file:
    file.write("x")
    file.seek(0)
    if len(file.read()) == 2:
        sys.exit(1)
"""
    heard = Heard()
    async with supervisor(count + READY + STAY, heard) as running:
        os.kill(heard.up_ports[0], signal.SIGKILL)
        await until(lambda: len(heard.up_ports) == 2)
        assert running.children[0].restarts == 2
    assert log.read_text() == "xxx"


async def test_a_talkative_process_is_not_blocked_and_its_last_lines_are_kept() -> None:
    """A megabyte of stderr is more than a pipe holds."""
    talk = "import sys\nfor i in range(20000): print('line', i, 'x' * 50, file=sys.stderr)\nsys.stderr.flush()\n"
    async with supervisor(talk + READY + STAY, Heard()) as running:
        assert running.children[0].pid is not None


async def test_a_dead_parents_child_sees_the_end_of_its_stdin(until: Any) -> None:
    """The parent is killed without a chance to clean up; its children notice by themselves."""
    program = f"""
import asyncio, sys
from miniserve.clock import monotonic
from miniserve.processes.supervisor import Supervisor
class Heard:
    async def up(self, replica_id, url): print(url.rsplit(":", 1)[1], flush=True)
    def down(self, replica_id): pass
async def main():
    async with Supervisor([sys.executable, "-c", {READY + STAY!r}], ["a", "b"], Heard(), monotonic):
        await asyncio.sleep(1000)
asyncio.run(main())
"""
    pipe = asyncio.subprocess.PIPE
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=pipe)
    assert parent.stdout is not None
    pids = [int(await parent.stdout.readline()) for _ in range(2)]
    assert all(psutil.pid_exists(pid) for pid in pids)
    parent.kill()
    await parent.wait()
    await until(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)  # nobody may be left to reap an orphan here
    except psutil.NoSuchProcess:
        return False


# --- added and retired while others run ----------------------------------------------------------------------------


def spec(replica_id: str, script: str, nice: int = 0) -> ChildSpec:
    return ChildSpec(replica_id, (sys.executable, "-c", script), nice)


async def test_processes_with_command_lines_of_their_own_come_and_go(until: Any) -> None:
    heard = Heard()
    async with supervisor(READY + STAY, heard) as running:
        first = running.children[0].pid
        await running.start([spec("a", READY + STAY), spec("b", READY + STAY, nice=3)])
        pids = {child.replica_id: child.pid for child in running.children}
        assert sorted(pids) == ["a", "b", "r0"]
        assert sorted(heard.up_ports) == sorted(pids.values())  # type: ignore[type-var]
        assert pids["b"] is not None
        assert os.getpriority(os.PRIO_PROCESS, pids["b"]) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 3)
        assert all(child.start_s is not None and child.start_s > 0 for child in running.children)

        await running.retire("a")
        assert [child.replica_id for child in running.children] == ["r0", "b"]
        assert pids["a"] is not None
        assert not psutil.pid_exists(pids["a"])
        await running.retire("a")  # it has gone
        assert running.children[0].pid == first
        assert heard.downs == [], "nobody failed"

        os.kill(pids["b"], signal.SIGKILL)
        await until(lambda: running.children[1].restarts == 1 and running.children[1].up_since_s)
    assert not any(psutil.pid_exists(pid) for pid in pids.values() if pid)


async def test_a_start_that_fails_leaves_those_that_run_alone() -> None:
    async with supervisor(READY + STAY, Heard()) as running:
        with pytest.raises(SetupError, match=r"replica bad exited with code 1 .* it said: no such version"):
            await running.start([spec("good", READY + STAY), spec("bad", "import sys; sys.exit('no such version')")])
        with pytest.raises(SetupError, match="there is a replica r0 already"):
            await running.start([spec("r0", READY + STAY)])
        with pytest.raises(SetupError, match="the system cannot start another process"):
            await running.start([ChildSpec("none", ("/no/such/program",))])
        (child,) = running.children
        assert child.pid is not None


async def test_one_that_is_told_to_end_by_somebody_else_comes_back_and_one_that_is_starting_can_be_given_up(
    until: Any,
) -> None:
    async with supervisor(READY + STAY, Heard()) as running:
        first = running.children[0].pid
        assert first is not None
        os.kill(first, signal.SIGTERM)
        await until(lambda: running.children[0].restarts == 1 and running.children[0].up_since_s)

        start = asyncio.create_task(running.start([spec("slow", f"import sys; {STAY}")]))
        await until(lambda: len(running.children) == 2 and running.children[1].pid)
        pid = running.children[1].pid
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert pid is not None
        assert not psutil.pid_exists(pid)
        assert [child.replica_id for child in running.children] == ["r0"]
