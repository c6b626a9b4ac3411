"""What the gateway adds to the time to first token, at its default settings, beside a direct call to the same replica.

One small replica, paced so fast that it is not the limit, and a gateway in front; the client asks one and the other in
turns of a few seconds, so that a machine that slows down slows both. Replica and gateway speak the same API, so the
difference is the gateway's own: its dispatch, a second HTTP exchange, a second turn of an event loop.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from miniserve.clients.load import LoadRun
from miniserve.clock import monotonic
from miniserve.observe.outcomes import Floats, Outcomes
from miniserve.observe.percentiles import percentile, percentiles
from miniserve.processes.http_server import bind
from miniserve.types import Request, SamplingParams

RATE_PER_S = 20.0
TURN_S = 5.0
PACE = "base_s=0.002,per_decode_row_s=0.0001"  # far below what a request of TOKENS needs at this rate
MODEL = "small"
PROMPT_TOKENS, TOKENS = 32, 8
AIM_S, GOAL_S = 0.005, 0.002
_PS = (50, 90, 95, 99)


async def bench_overhead(folder: Path, turns: int, console: Console) -> dict[str, Any]:
    """Ask `turns` times each way; the first turn of each warms up and does not count."""
    ways: dict[str, list[Outcomes]] = {"direct": [], "gateway": []}
    async with _replica(folder) as direct, _gateway(folder, direct) as gateway:
        for turn in range(turns + 1):
            for way, url in (("direct", direct), ("gateway", gateway)):
                outcomes = await _turn(url, turn)
                if turn:
                    ways[way].append(outcomes)
            console.print(f"turn {turn} of {turns}", highlight=False)
    return overhead_of(ways["direct"], ways["gateway"])


def overhead_of(direct: list[Outcomes], gateway: list[Outcomes]) -> dict[str, Any]:
    """Return both ways' times to first token, and what the gateway added: over all turns, and in each."""
    before, after = (np.concatenate([_ttft_s(one) for one in way]) for way in (direct, gateway))
    plain_s, fronted_s = (percentile(values, 50) for values in (before, after))
    turns = zip(direct, gateway, strict=True)
    per_turn = [percentile(_ttft_s(other), 50) - percentile(_ttft_s(one), 50) for one, other in turns]
    return {
        "rate_per_s": RATE_PER_S,
        "pace": PACE,
        "requests": {"direct": _counted(direct), "gateway": _counted(gateway)},
        "direct_ttft_ms": _figures(before),
        "gateway_ttft_ms": _figures(after),
        "added_p50_ms": round(1000 * (fronted_s - plain_s), 3),
        "added_p50_ms_per_turn": [round(1000 * added, 3) for added in per_turn],
        "ratio_p50": round(fronted_s / plain_s, 3),
        "aim_ms": 1000 * AIM_S,
        "goal_ms": 1000 * GOAL_S,
    }


def _counted(way: list[Outcomes]) -> dict[str, int]:
    return {"sent": sum(map(len, way)), "served": sum(int(one.served.sum()) for one in way)}


def _ttft_s(outcomes: Outcomes) -> Floats:
    """Return the times of served requests; a short answer of which no character is complete has none."""
    served = outcomes.ttft_s[outcomes.served]
    return served[~np.isnan(served)]


def _figures(ttft_s: Floats) -> dict[str, float]:
    return {f"p{p}": round(1000 * float(value), 3) for p, value in zip(_PS, percentiles(ttft_s, _PS), strict=True)}


async def _turn(url: str, turn: int) -> Outcomes:
    count = round(RATE_PER_S * TURN_S)
    requests = (
        Request(
            f"t{turn}-{i}",
            MODEL,
            range(base := (turn * count + i) << 20, base + PROMPT_TOKENS),
            SamplingParams(max_tokens=TOKENS),
            arrived_s=i / RATE_PER_S,
        )
        for i in range(count)
    )
    return (await LoadRun(url, MODEL, monotonic).run(requests)).outcomes


@asynccontextmanager
async def _replica(folder: Path) -> AsyncGenerator[str, None]:
    options = ["replica", "--port", "0", "--model", str(folder), "--served-name", MODEL, "--pace", PACE]
    async with _process(*options, "--log-level", "warning") as said:
        yield f"http://127.0.0.1:{json.loads(said)['port']}"


@asynccontextmanager
async def _gateway(folder: Path, replica: str) -> AsyncGenerator[str, None]:
    """Run `miniserve serve` as a user would, at its defaults; it says on stderr that it is ready."""
    with bind(0) as sock:
        port = sock.getsockname()[1]
    options = ["serve", "--port", str(port), "--model", str(folder), "--served-name", MODEL, "--replica", replica]
    async with _process(*options, "--log-level", "warning", heard_on_stderr="ready") as _:
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def _process(*options: str, heard_on_stderr: str | None = None) -> AsyncGenerator[str, None]:
    """Run a command of ours inside the block; yield its first line, or the first on stderr that begins as said."""
    pipe = asyncio.subprocess.PIPE
    other = asyncio.subprocess.DEVNULL if heard_on_stderr is None else pipe
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "miniserve", *options, stdout=pipe, stderr=other
    )
    stream = process.stdout if heard_on_stderr is None else process.stderr
    assert stream is not None
    try:
        line = (await stream.readline()).decode()
        while line and not line.startswith(heard_on_stderr or "{"):
            line = (await stream.readline()).decode()
        if not line:
            raise RuntimeError(f"miniserve {options[0]} did not start")
        yield line
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def overhead_table(result: dict[str, Any]) -> Table:
    """Return the table for the terminal."""
    title = f"time to first token at {result['rate_per_s']:g} req/s (ms); the replica is paced"
    table = Table(title=title)
    table.add_column("way")
    for p in _PS:
        table.add_column(f"p{p}", justify="right")
    for way in ("direct", "gateway"):
        table.add_row(way, *(f"{value:.2f}" for value in result[f"{way}_ttft_ms"].values()))
    added, ratio = result["added_p50_ms"], result["ratio_p50"]
    verdict = f"the gateway adds {added:.2f} ms at the median, {ratio:.2f} times the direct call"
    table.caption = f"{verdict}; aim below {result['aim_ms']:g} ms, goal {result['goal_ms']:g} ms"
    return table
