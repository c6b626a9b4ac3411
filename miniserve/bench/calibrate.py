"""Does the simulator predict the real thing? Fit on one live run, predict another, compare what clients saw.

    first run  ──> steps of the engine ──> step-time model     } frozen
               ──> what clients saw beyond them ──> overhead   }
    second run ──> what clients saw  <── compared with ──>  the same requests, simulated with both

One replica, in its own process, gets requests over HTTP from the open-loop load generator. The second run differs from
the first in seed, arrivals and lengths, and nothing is fitted on it. The arithmetic for both is in `prediction`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from miniserve.bench.prediction import compare_predictions, fit_overhead, fit_steps
from miniserve.clients.load import LoadRun, first_model
from miniserve.clock import monotonic
from miniserve.errors import SetupError
from miniserve.observe.outcomes import Outcomes
from miniserve.observe.percentiles import percentile
from miniserve.replica.step_log import LoggedStep, read_steps
from miniserve.types import Request
from miniserve.workload import Arrivals, Constant, Poisson, Quantiles, Workload, conversation
from miniserve.workload.lengths import CONVERSATION_OUTPUT, CONVERSATION_PROMPT

CONCURRENCY = 1.5  # requests in progress on average, if none slowed another down: busy, but far from overload
WARM_UP = 12  # requests, one after another; the second half shows how long one takes alone
_RUN_BITS = 50  # more chats than a run has
FIRST_SHARE = 3  # the first run has a third of the second's requests
# Lengths that a CPU can serve: the first run's are widely spread, so that the fit sees many shapes of steps; the
# second's are those of a published chat service, shortened
FIRST_PROMPT = Quantiles(((0.0, 4), (0.5, 32), (1.0, 300)))
FIRST_OUTPUT = Quantiles(((0.0, 2), (0.5, 16), (1.0, 80)))
SECOND_PROMPT = replace(CONVERSATION_PROMPT, scale=0.05)
SECOND_OUTPUT = replace(CONVERSATION_OUTPUT, scale=0.1)


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One run of the load generator, and what the engine did during it."""

    outcomes: Outcomes
    steps: list[LoggedStep]
    generator_cpu_fraction: float  # of one core
    server_cpu_fraction: float
    lag_p99_s: float


def bench_calibrate(
    folder: Path, quant: str, threads: int, requests: int, seed: int, console: Console, scale: float = 1.0
) -> dict[str, Any]:
    """Return fit, prediction and comparison. `scale` multiplies all lengths, for a model with a small context.

    Raises: SetupError if the replica does not come up, or a request fails.
    """
    with tempfile.TemporaryDirectory() as temporary, Progress(console=console) as progress:
        log = Path(temporary) / "steps.jsonl"
        with _replica(folder, quant, threads, log) as (url, server):
            bench = _Bench(url, server, log, progress, scale)
            rate = CONCURRENCY / bench.alone_s()
            first = bench.live("first run, to fit", Poisson(rate), seed + 1, max(requests // FIRST_SHARE, 2))
            second = bench.live("second run, to compare", conversation(rate), seed + 2, requests)
    model = fit_steps(first.steps, {"model": folder.name, "quant": quant, "threads": threads})
    overhead = fit_overhead(first.outcomes, model)
    return {
        "model": folder.name,
        "quant": quant,
        "threads": threads,
        "rate_per_s": round(rate, 3),
        "fit": asdict(model),
        "overhead": asdict(overhead),
        "first_run": _about(first) | {"comparison": compare_predictions(first.outcomes, model, overhead)},
        "second_run": _about(second) | {"comparison": compare_predictions(second.outcomes, model, overhead)},
    }


def _about(run: LiveRun) -> dict[str, Any]:
    outcomes = run.outcomes
    return {
        "requests": len(outcomes),
        "duration_s": round(outcomes.duration_s, 1),
        "prompt_tokens_mean": round(float(outcomes.prompt_tokens.mean()), 1),
        "output_tokens_mean": round(float(outcomes.output_tokens.mean()), 1),
        "cached_tokens": int(outcomes.cached_tokens.sum()),
        "steps": len(run.steps),
        "engine_busy_fraction": round(sum(step.seconds for step in run.steps) / outcomes.duration_s, 3),
        "generator_cpu_fraction": round(run.generator_cpu_fraction, 3),
        "server_cpu_fraction": round(run.server_cpu_fraction, 3),
        "sent_late_p99_ms": round(run.lag_p99_s * 1000, 2),
    }


# --- live ----------------------------------------------------------------------------------------------------------


@contextmanager
def _replica(folder: Path, quant: str, threads: int, log: Path) -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-m", "miniserve", "replica", "--port", "0", "--offline", "--log-level", "error"]
    command += ["--model", str(folder), "--quant", quant, "--threads", str(threads), "--step-log", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise SetupError(f"the replica ended with exit code {process.wait()}")
            yield f"http://127.0.0.1:{json.loads(line)['port']}", psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


class _Bench:
    """A running replica, and ways to send it requests."""

    def __init__(self, url: str, server: psutil.Process, log: Path, progress: Progress, scale: float) -> None:
        self._url, self._server, self._log, self._progress, self._scale = url, server, log, progress, scale
        self._model = asyncio.run(first_model(url))

    def alone_s(self) -> float:
        """Return how long a request of mean lengths takes by itself; this also warms the replica up."""
        prompt, output = self._lengths(SECOND_PROMPT, SECOND_OUTPUT)
        mean = Workload(Poisson(1.0), Constant(max(1, round(prompt.mean))), Constant(max(1, round(output.mean))))
        alone = [replace(request, arrived_s=0.0) for request in mean.requests(0, count=WARM_UP)]
        times = [self._ask([request], "warm-up").e2e_s[0] for request in alone]
        return float(np.mean(times[WARM_UP // 2 :]))

    def live(self, name: str, arrivals: Arrivals, seed: int, count: int) -> LiveRun:
        first = isinstance(arrivals, Poisson)
        lengths = (FIRST_PROMPT, FIRST_OUTPUT) if first else (SECOND_PROMPT, SECOND_OUTPUT)
        drawn = Workload(arrivals, *self._lengths(*lengths)).requests(seed, count=count)
        requests = [_renumbered(request, 1 if first else 2) for request in drawn]
        skip = len(read_steps(self._log))
        began_s, own_s, server_s = time.perf_counter(), time.process_time(), _cpu_s(self._server)
        outcomes = self._ask(requests, name)
        wall_s = time.perf_counter() - began_s
        own, server = (time.process_time() - own_s) / wall_s, (_cpu_s(self._server) - server_s) / wall_s
        return LiveRun(outcomes, read_steps(self._log, skip), own, server, percentile(self._lag_s, 99))

    def _lengths(self, prompt: Quantiles, output: Quantiles) -> tuple[Quantiles, Quantiles]:
        return replace(prompt, scale=prompt.scale * self._scale), replace(output, scale=output.scale * self._scale)

    def _ask(self, requests: Sequence[Request], name: str) -> Outcomes:
        task = self._progress.add_task(name, total=len(requests), visible=len(requests) > 1)

        async def run() -> Outcomes:
            load = LoadRun(self._url, self._model, monotonic, on_progress=lambda sent, done: self._show(task, done))
            result = await load.run(requests)
            self._lag_s = result.lag_s
            if result.reasons:
                raise SetupError(f"not every request was served: {dict(result.reasons)}")
            return result.outcomes

        return asyncio.run(run())

    def _show(self, task: TaskID, done: int) -> None:
        self._progress.update(task, completed=done)


def _renumbered(request: Request, run: int) -> Request:
    """Give each run its own prompts: the replica's cache knows those of earlier runs."""
    assert isinstance(request.prompt_ids, range)
    base = request.prompt_ids.start + (run << _RUN_BITS)
    return replace(request, prompt_ids=range(base, base + len(request.prompt_ids)))


def _cpu_s(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def calibrate_table(result: dict[str, Any]) -> Table:
    second = result["second_run"]
    title = f"{second['requests']:,} live requests of {result['model']} {result['quant']}, predicted from another run"
    table = Table(title=title, caption=f"load generator: {second['generator_cpu_fraction']:.1%} of a core")
    for heading in ("latency", "percentile", "live (ms)", "simulated (ms)", "error", "allowed"):
        table.add_column(heading, justify="left" if heading == "latency" else "right")
    for latency, rows in second["comparison"].items():
        for name, row in rows.items():
            measured = f"{row['live_s'] * 1000:,.1f}"
            if row.get("interval_95_s"):
                low, high = row["interval_95_s"]
                measured += f" ({low * 1000:,.1f} to {high * 1000:,.1f})"
            error = row["simulated_s"] / row["live_s"] - 1
            allowed = f"{row['allowed']:.0%} {'met' if row['met'] else 'MISSED'}" if "allowed" in row else "not gated"
            table.add_row(latency, name, measured, f"{row['simulated_s'] * 1000:,.1f}", f"{error:+.1%}", allowed)
    return table
