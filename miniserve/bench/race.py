"""The race: one workload over HTTP against our engine, `transformers`, and vLLM if it is installed.

All servers are up at the same time and take turns, so drift on the machine affects all equally. A server that is not
being asked must be idle; its CPU time during the others' turns is recorded as `foreign_cores`. One HTTP client is used
for all: `/v1/completions`, streaming, greedy, 64 words in and exactly 64 tokens out. Prompts are never repeated, so a
prefix cache finds only what the case shares on purpose.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from miniserve.bench.engine import WORDS
from miniserve.errors import SetupError

NEW_TOKENS = 64
PROMPT_WORDS = 64
PREFIX_WORDS = 300
READY_TIMEOUT_S = 300.0  # vLLM's CPU build takes 75-90 s
IDLE_TIMEOUT_S = 10.0
SHARED = "8 streams, shared prefix"
CASES = {"1 stream": 1, "4 streams": 4, "16 streams": 16, SHARED: 8}
PEER = "vLLM fp32"


@dataclass(frozen=True, slots=True)
class Server:
    """A running competitor."""

    name: str
    url: str
    model: str
    process: psutil.Process

    def cpu_s(self) -> float:
        """Return the CPU seconds used by it and its children."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(sum(member.cpu_times()[:2]) for member in family)

    def resident_mib(self) -> float:
        family = [self.process, *self.process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family) / (1 << 20)


@dataclass(frozen=True, slots=True)
class Lap:
    """One case, run once on one server."""

    tokens_per_s: float
    ttft_s: tuple[float, ...]  # one per stream
    foreign_cores: float  # cores used by the waiting servers


def competitors(folder: Path, vllm_bin: str | None) -> dict[str, list[str]]:
    """Return the command of each server, with `{port}` and `{threads}` to be filled in."""
    ours = [sys.executable, "-m", "miniserve", "replica", "--offline", "--log-level", "error", "--model", str(folder)]
    ours += ["--served-name", "race", "--port", "{port}", "--threads", "{threads}", "--quant"]
    commands = {f"miniserve {quant}": [*ours, quant] for quant in ("fp16", "fp32", "int8")}
    peer = [sys.executable, "-m", "miniserve.bench.transformers_server", str(folder), "{port}", "{threads}"]
    commands["transformers fp32"] = peer
    if vllm_bin:
        commands[PEER] = [vllm_bin, "serve", str(folder), "--served-model-name", "race", "--port", "{port}"]
        commands[PEER] += ["--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "32"]
    return commands


def run_race(
    folder: Path, vllm_bin: str | None, threads: int, repeats: int, seed: int, console: Console
) -> dict[str, Any]:
    """Start every competitor, run every case `repeats` times in turns, and return medians and ratios.

    Raises: SetupError when a server does not come up.
    """
    if vllm_bin and not Path(vllm_bin).is_file():
        raise SetupError(f"VLLM_BIN={vllm_bin} is not a file; give the `vllm` program of an environment that has it")
    with ExitStack() as stack, Progress(console=console) as progress:
        servers = [
            stack.enter_context(_running(name, command, threads))
            for name, command in progress.track(
                competitors(folder, vllm_bin).items(), description="starting the servers (vLLM takes over a minute)"
            )
        ]
        task = progress.add_task("racing", total=len(CASES) * len(servers) * (repeats + 1))
        laps: dict[tuple[str, str], list[Lap]] = {}
        for case in CASES:
            for turn in range(repeats + 1):
                for server in servers:
                    lap = asyncio.run(_lap(server, servers, case, Random(f"{seed}/{case}/{turn}/{server.name}")))
                    if turn > 0:  # the first is a warm-up
                        laps.setdefault((case, server.name), []).append(lap)
                    progress.advance(task)
        memory = {server.name: round(server.resident_mib()) for server in servers}
    rows = [_row(case, {server.name: laps[case, server.name] for server in servers}) for case in CASES]
    workload = {"prompt_words": PROMPT_WORDS, "new_tokens": NEW_TOKENS, "prefix_words": PREFIX_WORDS}
    settings = {"model": folder.name, "threads": threads, "repeats": repeats, "seed": seed}
    return settings | {"workload": workload, "rows": rows, "resident_mib": memory, "versions": _peer_version(vllm_bin)}


# --- servers -----------------------------------------------------------------------------------------------------


@contextmanager
def _running(name: str, command: Sequence[str], threads: int) -> Iterator[Server]:
    port = _free_port()
    filled = [part.format(port=port, threads=threads) for part in command]
    with subprocess.Popen(
        filled, env=_environment(threads), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(name, url, process)
            yield Server(name, url, "race", psutil.Process(process.pid))
        finally:
            _stop(process)


def _environment(threads: int) -> dict[str, str]:
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONWARNINGS": "ignore"}
    vllm = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return {**os.environ, **quiet, **vllm, "OMP_NUM_THREADS": str(threads)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(name: str, url: str, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise SetupError(f"{name} exited with code {process.returncode} before it was ready")
        try:
            if httpx.get(f"{url}/v1/models", timeout=5, trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise SetupError(f"{name} was not ready within {READY_TIMEOUT_S:g} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
    for child in family:  # vLLM's engine is a separate process
        if child.is_running():
            child.kill()


# --- a lap -------------------------------------------------------------------------------------------------------


def prompts(case: str, rng: Random) -> list[str]:
    """Return one prompt per stream. They begin differently, unless the case shares a prefix."""
    own = [_words(rng, PROMPT_WORDS) for _ in range(CASES[case])]
    return [f"{prefix} {text}" for prefix in [_words(rng, PREFIX_WORDS)] for text in own] if case == SHARED else own


def _words(rng: Random, count: int) -> str:
    return " ".join([str(rng.randrange(10**6)), *(rng.choice(WORDS) for _ in range(count - 1))])


async def _lap(server: Server, servers: Sequence[Server], case: str, rng: Random) -> Lap:
    others = [other for other in servers if other is not server]
    await _until_idle(others)
    busy_s, start_s = sum(other.cpu_s() for other in others), time.perf_counter()
    async with httpx.AsyncClient(base_url=server.url, timeout=600, trust_env=False) as client:
        ttft_s = await asyncio.gather(*(_stream(client, server.model, prompt) for prompt in prompts(case, rng)))
    seconds = time.perf_counter() - start_s
    foreign = (sum(other.cpu_s() for other in others) - busy_s) / seconds
    return Lap(CASES[case] * NEW_TOKENS / seconds, tuple(ttft_s), foreign)


async def _until_idle(servers: Sequence[Server]) -> None:
    """Wait for servers that have just answered: some keep computing or spinning for seconds. The rest is recorded."""
    deadline_s = time.monotonic() + IDLE_TIMEOUT_S
    busy_s = math.inf
    while busy_s > 0.02 and time.monotonic() < deadline_s:
        before_s = sum(server.cpu_s() for server in servers)
        await asyncio.sleep(0.5)
        busy_s = sum(server.cpu_s() for server in servers) - before_s


async def _stream(client: httpx.AsyncClient, model: str, prompt: str) -> float:
    """Stream one completion to its end; return seconds to the first token."""
    body = {"model": model, "prompt": prompt, "max_tokens": NEW_TOKENS, "temperature": 0, "stream": True}
    more = {"ignore_eos": True, "stream_options": {"include_usage": True}}
    start_s, first_s, usage = time.perf_counter(), None, None
    async with client.stream("POST", "/v1/completions", json=body | more) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            usage = event.get("usage") or usage
            if first_s is None and event["choices"]:
                first_s = time.perf_counter() - start_s
    if usage is None or usage["completion_tokens"] != NEW_TOKENS or first_s is None:
        raise RuntimeError(f"{client.base_url} did not answer with {NEW_TOKENS} tokens: {usage}")
    return first_s


# --- results -----------------------------------------------------------------------------------------------------


def _row(case: str, laps: dict[str, list[Lap]]) -> dict[str, Any]:
    rates = {name: statistics.median(lap.tokens_per_s for lap in mine) for name, mine in laps.items()}
    ttft_s = {name: statistics.median(t for lap in mine for t in lap.ttft_s) for name, mine in laps.items()}
    row: dict[str, Any] = {
        "case": case,
        "tokens_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "all_tokens_per_s": {name: [round(lap.tokens_per_s, 1) for lap in mine] for name, mine in laps.items()},
        "ttft_p50_s": {name: round(seconds, 3) for name, seconds in ttft_s.items()},
        "foreign_cores": {name: round(max(lap.foreign_cores for lap in mine), 3) for name, mine in laps.items()},
    }
    for peer in (PEER, "transformers fp32"):
        if peer in rates:
            others = [name for name in rates if name != peer]
            row[f"speed_against {peer}"] = {name: round(rates[name] / rates[peer], 2) for name in others}
            row[f"ttft_against {peer}"] = {name: round(ttft_s[name] / ttft_s[peer], 2) for name in others}
    return row


def _peer_version(vllm_bin: str | None) -> dict[str, str]:
    if not vllm_bin:
        return {}
    python = Path(vllm_bin).with_name("python")
    code = "from importlib.metadata import version; print(version('vllm'), version('torch'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    vllm, torch = [*done.stdout.split(), "?", "?"][:2]
    return {"vllm": vllm, "its torch": torch}


def race_table(result: dict[str, Any]) -> Table:
    """Return one row per case and one column per server: tokens per second, with the median TTFT below."""
    names = list(result["rows"][0]["tokens_per_s"])
    table = Table(
        title=f"{result['model']} over HTTP, {result['threads']} threads: tokens/s and TTFT p50 "
        f"(median of {result['repeats']}; x = against {PEER if PEER in names else 'transformers'})"
    )
    table.add_column("case")
    for name in names:
        table.add_column(name, justify="right")
    peer = PEER if PEER in names else "transformers fp32"
    for row in result["rows"]:
        cells = [_cell(row, name, peer) for name in names]
        table.add_row(row["case"], *cells)
    return table


def _cell(row: dict[str, Any], name: str, peer: str) -> str:
    speed, ttft = row[f"speed_against {peer}"].get(name), row[f"ttft_against {peer}"].get(name)
    first = f"{row['tokens_per_s'][name]:.1f} tok/s" + (f" ({speed:.2f}x)" if speed is not None else "")
    second = f"{row['ttft_p50_s'][name]:.2f} s" + (f" ({ttft:.2f}x)" if ttft is not None else "")
    return f"{first}\n{second}"
