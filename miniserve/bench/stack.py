"""The running stack: how soon it answers, how fast a replica starts, and whether memory stays flat.

Everything is measured from outside, on real processes started with the command line a user would type.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from miniserve.processes.http_server import bind

QUESTION = "What is the capital of France?"
MIB = 1 << 20


def bench_start(folder: Path, repeats: int) -> dict[str, Any]:
    """Time `miniserve --once` from the start of the process to the first piece of the answer, and the parts of that.

    The cache is warm: weights converted, kernels compiled, files in the page cache (the first run does not count).
    """
    first_token_s = [_time_once(folder) for _ in range(repeats + 1)][1:]
    replicas = [_time_replica(folder) for _ in range(repeats + 1)][1:]
    return {
        "start_to_first_token_s": _summary(first_token_s),
        "replica_ready_s": _summary([ready_s for ready_s, _ in replicas]),
        "replica_load_s": _summary([load_s for _, load_s in replicas]),
    }


def _time_once(folder: Path) -> float:
    start_s = time.perf_counter()
    command = [sys.executable, "-m", "miniserve", "--model", str(folder), "--once", QUESTION, "--max-tokens", "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        if not process.stdout.read(1).strip():
            raise RuntimeError("the stack answered nothing")
        seconds = time.perf_counter() - start_s
        process.stdout.read()
    return seconds


def _time_replica(folder: Path) -> tuple[float, float]:
    """Return (seconds from the start of a replica process until it reports ready, seconds of that spent loading)."""
    start_s = time.perf_counter()
    command = [sys.executable, "-m", "miniserve", "replica", "--port", "0", "--model", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        seconds = time.perf_counter() - start_s
        process.terminate()
        process.wait()
    return seconds, float(ready["load_s"])


def _summary(values: Sequence[float]) -> dict[str, Any]:
    return {"median": round(statistics.median(values), 2), "all": [round(value, 2) for value in values]}


@dataclass(frozen=True, slots=True)
class Sample:
    """Resident memory after `requests` requests, in MiB."""

    requests: int
    gateway_mib: float
    replica_mib: float


async def bench_memory(folder: Path, requests: int, streams: int, console: Console) -> dict[str, Any]:
    """Send `requests` requests, `streams` at a time, through a gateway with one replica; sample both processes."""
    samples: list[Sample] = []
    async with (
        _stack(folder) as (url, gateway),
        httpx.AsyncClient(base_url=url, timeout=300, trust_env=False) as client,
    ):
        model = (await client.get("/v1/models")).json()["data"][0]["id"]
        replica = max(gateway.children(recursive=True), key=lambda child: child.memory_info().rss)
        pending = iter(range(requests))
        every = max(1, requests // 10)
        with Progress(console=console) as progress:
            task = progress.add_task(f"memory over {requests} requests", total=requests)

            async def stream() -> None:
                for number in pending:
                    if number % every == 0:
                        samples.append(_sample(number, gateway, replica))
                    await _request(client, model, number)
                    progress.advance(task)

            async with asyncio.TaskGroup() as group:
                for _ in range(streams):
                    group.create_task(stream())
        samples.append(_sample(requests, gateway, replica))
    half, last = samples[len(samples) // 2], samples[-1]
    return {
        "requests": requests,
        "streams": streams,
        "samples": [[s.requests, s.gateway_mib, s.replica_mib] for s in samples],
        "gateway_mib": last.gateway_mib,
        "replica_mib": last.replica_mib,
        "growth_in_second_half_mib": {
            "gateway": round(last.gateway_mib - half.gateway_mib, 1),
            "replica": round(last.replica_mib - half.replica_mib, 1),
        },
    }


async def _request(client: httpx.AsyncClient, model: str, number: int) -> None:
    """Send one request. Half of them stream; prompts differ, so the KV pool and the prefix cache fill up."""
    prompt = f"{number}: " + "all the small boats on the old river " * (1 + number % 12)
    body = {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0, "stream": number % 2 == 0}
    response = await client.post("/v1/completions", json=body)
    response.raise_for_status()


def _sample(requests: int, gateway: psutil.Process, replica: psutil.Process) -> Sample:
    return Sample(requests, *(round(p.memory_info().rss / MIB, 1) for p in (gateway, replica)))


@asynccontextmanager
async def _stack(folder: Path) -> AsyncGenerator[tuple[str, psutil.Process], None]:
    """Run `miniserve` as a user would, with one replica; yield its URL and the gateway's process."""
    with bind(0) as sock:
        port = sock.getsockname()[1]
    command = [sys.executable, "-m", "miniserve", "--model", str(folder), "--replicas", "1", "--port", str(port)]
    process = await asyncio.create_subprocess_exec(
        *command, "--no-table", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode()
        if not line.startswith("ready"):
            raise RuntimeError(f"the stack did not start: {line!r}")
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


def stack_table(result: dict[str, Any]) -> Table:
    table = Table(title="the running stack")
    for heading in ("what", "measured"):
        table.add_column(heading)
    if "start_to_first_token_s" in result:
        table.add_row("start to first streamed token", f"{result['start_to_first_token_s']['median']:.1f} s")
        table.add_row("replica process ready", f"{result['replica_ready_s']['median']:.1f} s")
        table.add_row("of which loading and packing the weights", f"{result['replica_load_s']['median']:.2f} s")
    if "gateway_mib" in result:
        growth = result["growth_in_second_half_mib"]
        after = f"after {result['requests']} requests"
        table.add_row(
            f"gateway, resident {after}", f"{result['gateway_mib']:.0f} MiB ({growth['gateway']:+.1f} in 2nd half)"
        )
        table.add_row(
            f"replica, resident {after}", f"{result['replica_mib']:.0f} MiB ({growth['replica']:+.1f} in 2nd half)"
        )
    return table
