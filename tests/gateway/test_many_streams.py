"""Hundreds of people read at once, one of them hardly at all: every stream arrives, and the gateway stays small.

A real gateway process in front of two processes that only stream (`stream_replica.py`). The long counts are those of
an evening with 500 readers at 2 tokens/s each; the gate has 50, and holds nothing to a clock.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from miniserve.clock import monotonic
from miniserve.config import ApiConfig
from miniserve.engine.stats import EngineStats
from miniserve.gateway.fleet import Fleet
from miniserve.processes.http_server import bind
from miniserve.processes.stack import GatewayOptions, running_gateway
from miniserve.replica.wire import ReplicaReport
from miniserve.types import ReplicaState, Request, TokenEvent

pytestmark = pytest.mark.anyio

REPLICA = Path(__file__).with_name("stream_replica.py")
MOST_BYTES = 300 << 20
LONGEST_GAP_S = 3.0
TOKENS_PER_S = 2.0
RecordProperty = Callable[[str, object], None]


@asynccontextmanager
async def process(*command: str, ready: str, on_stderr: bool = False) -> AsyncIterator[tuple[str, int]]:
    """Run a program inside the block; yield its first line that begins with `ready`, and its process id."""
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    out, err = (null, pipe) if on_stderr else (pipe, null)
    running = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=out, stderr=err)
    stream = running.stderr if on_stderr else running.stdout
    assert stream is not None
    try:
        while not (line := (await stream.readline()).decode()).startswith(ready):
            assert line, f"{command} ended before it was ready"
        reading = asyncio.create_task(stream.read())  # so that a full pipe never stops it
        yield line, running.pid
        running.kill()
        await reading
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


@asynccontextmanager
async def gateway(folder: Path, tokens_per_s: float) -> AsyncIterator[tuple[int, int]]:
    """Yield the port and the process id of a gateway, as a user would start it, in front of two replicas."""
    replica = (str(REPLICA), folder.name, str(tokens_per_s))
    async with process(*replica, ready="{") as (one, _), process(*replica, ready="{") as (two, _):
        urls = [f"http://127.0.0.1:{json.loads(line)['port']}" for line in (one, two)]
        command = ["-m", "miniserve", "serve", "--port", "0", "--model", str(folder), "--log-level", "error"]
        command += [word for url in urls for word in ("--replica", url)]
        async with process(*command, ready="ready: ", on_stderr=True) as (line, pid):
            yield int(line.split()[1].rpartition(":")[2]), pid


@dataclass
class Reader:
    """What one client saw: when each piece of its answer came, and whether the answer was whole."""

    tokens: int
    came_s: list[float] = field(default_factory=list)
    events: int = 0
    whole: bool = False

    @property
    def longest_gap_s(self) -> float:
        return max((b - a for a, b in zip(self.came_s, self.came_s[1:], strict=False)), default=0.0)

    async def read(self, port: int, model: str) -> None:
        """Ask for a streamed answer and read it to its end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(asking(model, self.tokens))
            tail = b""
            while b"[DONE]" not in tail and (chunk := await reader.read(1 << 16)):
                self.events += (tail[-5:] + chunk).count(b"data: {")  # no event is so short that it is counted twice
                self.came_s.append(time.monotonic())
                tail = (tail + chunk)[-64:]
            self.whole = b"[DONE]" in tail
        finally:
            writer.close()


def asking(model: str, tokens: int) -> bytes:
    """Return an HTTP request for a streamed answer of `tokens` tokens."""
    body = json.dumps({"model": model, "prompt": "Once", "max_tokens": tokens, "ignore_eos": True, "stream": True})
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return f"{head}\r\n\r\n{body}".encode()


async def read_all(port: int, model: str, count: int, tokens: int) -> list[Reader]:
    """Have `count` clients read at once; they come spread over the time of one token."""
    readers = [Reader(tokens) for _ in range(count)]

    async def later(place: int, reader: Reader) -> None:
        await asyncio.sleep(place / count / TOKENS_PER_S)
        await reader.read(port, model)

    async with asyncio.TaskGroup() as group:
        for place, reader in enumerate(readers):
            group.create_task(later(place, reader))
    return readers


async def watch_memory(pid: int, seen: list[int]) -> None:
    process = psutil.Process(pid)
    while True:
        seen.append(process.memory_info().rss)
        await asyncio.sleep(0.5)


async def run_readers(folder: Path, count: int, tokens: int) -> tuple[list[Reader], int]:
    """Return what the readers saw, and the most memory that the gateway took."""
    async with gateway(folder, TOKENS_PER_S) as (port, pid):
        seen: list[int] = []
        watching = asyncio.create_task(watch_memory(pid, seen))
        readers = await read_all(port, folder.name, count, tokens)
        seen.append(psutil.Process(pid).memory_info().rss)
        watching.cancel()
        await asyncio.wait({watching})
    assert [reader.whole for reader in readers] == [True] * count
    assert {reader.events for reader in readers} >= {tokens}
    return readers, max(seen)


async def test_fifty_streams_arrive_whole(tiny_folder: Path) -> None:
    _, most = await run_readers(tiny_folder, 50, 4)
    assert most < MOST_BYTES


@pytest.mark.full
async def test_five_hundred_streams_at_two_tokens_a_second(tiny_folder: Path, record_property: RecordProperty) -> None:
    readers, most = await run_readers(tiny_folder, 500, 60)
    longest = max(reader.longest_gap_s for reader in readers)
    record_property("streams", len(readers))
    record_property("gateway_peak_mib", round(most / (1 << 20)))
    record_property("longest_gap_s", round(longest, 3))
    assert most < MOST_BYTES
    assert longest <= LONGEST_GAP_S


# --- a reader who takes almost nothing -----------------------------------------------------------------------------


@contextmanager
def idler(port: int, model: str) -> Iterator[socket.socket]:
    """Ask for far more than any buffer holds, over a connection whose own buffer is as small as can be."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        sock.sendall(asking(model, 1_000_000))
        sock.setblocking(False)
        yield sock


def connections(pid: int, port: int) -> int:
    """Return how many clients are connected to the process's port, as the system sees it."""
    found = psutil.Process(pid).net_connections("tcp")
    return sum(1 for one in found if one.laddr.port == port and one.status != psutil.CONN_LISTEN)


@dataclass
class Endless:
    """A replica whose answers have no end."""

    sent: int = 0
    open: int = 0

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        self.open += 1
        try:
            while True:
                self.sent += 1
                yield TokenEvent(request.request_id, (65,))
        finally:
            self.open -= 1

    async def report(self, timeout_s: float) -> ReplicaReport:
        return ReplicaReport(1, "tiny", ReplicaState.READY, 1.0, 1, 1 << 20, EngineStats())

    async def close(self) -> None:
        pass


async def test_who_reads_almost_nothing_is_cut_and_let_go(tiny_folder: Path, until: Any) -> None:
    """The replica stops at once, and so does the connection: what was buffered for it is dropped."""
    upstream = Endless()
    async with Fleet(monotonic) as fleet:
        await fleet.put("r0", upstream)
        options = GatewayOptions("tiny", tiny_folder, api=ApiConfig(send_timeout_s=0.5))
        async with running_gateway(options, fleet, bind(0)) as running:
            port = int(running.url.rpartition(":")[2])
            with idler(port, "tiny") as sock:
                await until(lambda: upstream.open == 1)
                assert await asyncio.get_running_loop().sock_recv(sock, 1)
                await until(lambda: upstream.open == 0)
                await until(lambda: connections(os.getpid(), port) == 0)
    assert upstream.sent < 200_000, "more would not fit into the buffers of one connection"


@pytest.mark.full
async def test_ten_readers_of_a_byte_a_second_cost_little(tiny_folder: Path, record_property: RecordProperty) -> None:
    """At the default limit of 30 s, while replicas send as fast as they can; others are served meanwhile."""
    async with gateway(tiny_folder, 0.0) as (port, pid):
        seen: list[int] = []
        watching = asyncio.create_task(watch_memory(pid, seen))
        before, start_s = psutil.Process(pid).memory_info().rss, time.monotonic()
        with ExitStack() as stack:
            slow = [stack.enter_context(idler(port, tiny_folder.name)) for _ in range(10)]
            others = await read_all(port, tiny_folder.name, 10, 50)
            async with asyncio.timeout(240.0):
                while connections(pid, port):  # the pace of reading is what is tested
                    for sock in slow:
                        with suppress(BlockingIOError):
                            sock.recv(1)
                    await asyncio.sleep(1.0)
            cut_after_s = time.monotonic() - start_s
        watching.cancel()
        await asyncio.wait({watching})
    assert all(reader.whole for reader in others)
    record_property("all_cut_after_s", round(cut_after_s, 1))
    record_property("growth_mib", round((max(seen) - before) / (1 << 20), 1))
    assert max(seen) - before < 10 * (4 << 20)
    assert max(seen) < MOST_BYTES
