"""Does the simulator predict the real thing? Fit on one live run, predict another, compare what clients saw.

    first run  ──> steps of the engine ──> step-time model     } frozen
               ──> what clients saw beyond them ──> overhead   }
    second run ──> what clients saw  <── compared with ──>  the same requests, simulated with both

One replica, a process of its own, is asked over HTTP by the open-loop load generator. The second run differs from the
first in seed, arrivals and lengths, and nothing is fitted on it. What the live path adds to the engine's steps is part
of the model: the pauses between steps are counted as the steps', and the way in and out as seconds per request and per
token. The simulated engine is the real scheduler and block manager; the prompts' lengths are those the server counted.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import simpy
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from miniserve.clock import monotonic
from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel, fit
from miniserve.live.load import Load, served_model
from miniserve.live.step_log import LoggedStep, read_steps
from miniserve.observe.intervals import percentile_interval
from miniserve.observe.outcomes import Floats, OutcomeLog, Outcomes
from miniserve.observe.percentiles import percentile
from miniserve.sim.replica import SimAttempt, SimReplica
from miniserve.types import Request, SamplingParams
from miniserve.workload import Arrivals, Constant, Poisson, Quantiles, Workload, conversation
from miniserve.workload.lengths import CONVERSATION_OUTPUT, CONVERSATION_PROMPT

TARGETS = {50: 0.10, 95: 0.20}  # allowed relative error of each percentile; the p99 is shown with its interval
CONCURRENCY = 1.5  # requests in progress on average, if none slowed another down: busy, and far from overload
WARM_UP = 12  # requests, one after another; the second half says how long one takes alone
_RUN_BITS = 50  # more chats than a run has
FIRST_SHARE = 3  # the first run has a third of the second's requests
# Lengths that a CPU serves: the first run's have a wide spread, so that the fit sees many shapes of steps; the second's
# are those of a published chat service, made shorter
FIRST_PROMPT = Quantiles(((0.0, 4), (0.5, 32), (1.0, 300)))
FIRST_OUTPUT = Quantiles(((0.0, 2), (0.5, 16), (1.0, 80)))
SECOND_PROMPT = replace(CONVERSATION_PROMPT, scale=0.05)
SECOND_OUTPUT = replace(CONVERSATION_OUTPUT, scale=0.1)


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a client waits for beyond the engine's steps: HTTP, tokenizer, event loop, threads waking up."""

    request_s: float = 0.0
    token_s: float = 0.0  # of each token after the first


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One run of the load generator, and what the engine did meanwhile."""

    outcomes: Outcomes
    steps: list[LoggedStep]
    generator_cpu_fraction: float  # of one core
    server_cpu_fraction: float
    lag_p99_s: float


def bench_calibrate(
    folder: Path, quant: str, threads: int, requests: int, seed: int, console: Console, scale: float = 1.0
) -> dict[str, Any]:
    """Return fit, prediction and comparison. `scale` multiplies all lengths, for a model with a small context.

    Raises: RuntimeError if the replica does not come up, or a request fails.
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
        "first_run": _about(first) | {"comparison": compare(first.outcomes, model, overhead)},
        "second_run": _about(second) | {"comparison": compare(second.outcomes, model, overhead)},
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
                raise RuntimeError(f"the replica ended with exit code {process.wait()}")
            yield f"http://127.0.0.1:{json.loads(line)['port']}", psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


class _Bench:
    """A running replica, and how to ask it."""

    def __init__(self, url: str, server: psutil.Process, log: Path, progress: Progress, scale: float) -> None:
        self._url, self._server, self._log, self._progress, self._scale = url, server, log, progress, scale
        self._model = asyncio.run(served_model(url))

    def alone_s(self) -> float:
        """Return how long a request of mean lengths takes that meets no other; warms up on the way."""
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
            load = Load(self._url, self._model, monotonic, on_progress=lambda sent, done: self._show(task, done))
            result = await load.run(requests)
            self._lag_s = result.lag_s
            if result.reasons:
                raise RuntimeError(f"not every request was served: {dict(result.reasons)}")
            return result.outcomes

        return asyncio.run(run())

    def _show(self, task: Any, done: int) -> None:
        self._progress.update(task, completed=done)


def _renumbered(request: Request, run: int) -> Request:
    """Give each run prompts of its own: the replica's cache knows those of the runs before."""
    assert isinstance(request.prompt_ids, range)
    base = request.prompt_ids.start + (run << _RUN_BITS)
    return replace(request, prompt_ids=range(base, base + len(request.prompt_ids)))


def _cpu_s(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


# --- the model -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Turn:
    """A step with the pause after it, if the engine had more to do."""

    decode_rows: int
    prefill_tokens: int
    context_tokens: int
    prefill_pairs: int
    seconds: float


def turns(steps: Sequence[LoggedStep]) -> list[_Turn]:
    """Return the steps, each as long as it kept the next one waiting."""
    nexts = [step.start_s for step in steps[1:]]
    return [
        _Turn(
            step.decode_rows,
            step.prefill_tokens,
            step.context_tokens,
            step.prefill_pairs,
            next_s - step.start_s if step.running or step.waiting else step.seconds,
        )
        for step, next_s in zip(steps, nexts, strict=False)
    ]


def fit_steps(steps: Sequence[LoggedStep], notes: dict[str, Any]) -> StepTimeModel:
    """Fit, then scale so that all steps together take as long as they did.

    The fit minimises relative errors, which do not see the rare slow step. Those behind it do.
    """
    measured = turns(steps)
    model = fit(measured, notes)
    factor = sum(turn.seconds for turn in measured) / sum(model.seconds(turn) for turn in measured)
    return StepTimeModel(
        model.base_s * factor,
        model.per_decode_row_s * factor,
        model.per_prefill_token_s * factor,
        model.per_context_token_s * factor,
        model.per_prefill_pair_s * factor,
        model.fitted_on | {"scaled_by": round(factor, 4)},
    )


def fit_overhead(live: Outcomes, model: StepTimeModel) -> Overhead:
    """Return what clients of the first run waited for beyond what its simulation says, as medians; never negative."""
    ours, theirs = by_index(live), by_index(simulate_replica(live, model, Overhead()))
    request_s = max(0.0, float(np.median(ours.ttft_s - theirs.ttft_s)))
    later = ours.output_tokens - 1
    decode_s = (ours.e2e_s - ours.ttft_s) - (theirs.e2e_s - theirs.ttft_s)
    token_s = float(np.median(decode_s[later > 0] / later[later > 0])) if (later > 0).any() else 0.0
    return Overhead(request_s, max(0.0, token_s))


def simulate_replica(live: Outcomes, model: StepTimeModel, overhead: Overhead) -> Outcomes:
    """Return what becomes of the requests of a live run in a simulated replica of the same settings."""
    env, log = simpy.Environment(), OutcomeLog()
    replica = SimReplica(env, "r", SchedulerConfig(), CacheConfig(), model, max_model_len=1 << 20)

    def client() -> Generator[simpy.Event, Any, None]:
        for request in _requests(live):
            wait_s = request.arrived_s + overhead.request_s - env.now
            if wait_s > 0:
                yield env.timeout(wait_s)
            attempt = replica.submit(request)
            assert attempt.ended.callbacks is not None
            attempt.ended.callbacks.append(partial(ended, request, attempt))

    def ended(request: Request, attempt: SimAttempt, event: simpy.Event) -> None:
        tokens = request.sampling.max_tokens
        log.record(
            int(request.request_id),
            request.arrived_s,
            env.now + overhead.token_s * (tokens - 1),
            first_token_s=attempt.first_token_s,
            prompt_tokens=len(request.prompt_ids),
            output_tokens=tokens,
            cached_tokens=attempt.cached_tokens,
        )

    env.process(client())
    env.run()
    return log.outcomes()


def _requests(live: Outcomes) -> Iterator[Request]:
    """Yield the requests in order of arrival, with the lengths that the server counted."""
    ordered = by_index(live)
    rows = zip(ordered.index, ordered.arrived_s, ordered.prompt_tokens, ordered.output_tokens, strict=True)
    for index, arrived_s, prompt, output in rows:
        base = int(index) << 20
        sampling = SamplingParams(max_tokens=int(output), ignore_eos=True)
        yield Request(str(index), "model", range(base, base + int(prompt)), sampling, float(arrived_s))


def by_index(outcomes: Outcomes) -> Outcomes:
    """Return the served requests in the order of the workload."""
    served = outcomes.where(outcomes.served)
    order: Any = np.argsort(served.index)
    return served.where(order)


# --- the verdict ---------------------------------------------------------------------------------------------------


def compare(live: Outcomes, model: StepTimeModel, overhead: Overhead) -> dict[str, Any]:
    """Return each percentile as measured and as predicted, whether it is near enough, and the p99 with its interval."""
    simulated = simulate_replica(live, model, overhead)
    return {
        "ttft": _percentiles(by_index(live).ttft_s, simulated.ttft_s),
        "e2e": _percentiles(by_index(live).e2e_s, simulated.e2e_s),
    }


def _percentiles(live: Floats, simulated: Floats) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for p, allowed in TARGETS.items():
        measured, predicted = percentile(live, p), percentile(simulated, p)
        error = predicted / measured - 1
        rows[f"p{p}"] = {
            "live_s": round(float(measured), 5),
            "simulated_s": round(float(predicted), 5),
            "error": round(float(error), 4),
            "allowed": allowed,
            "met": bool(abs(error) <= allowed),
        }
    interval = percentile_interval(live, 99)
    rows["p99"] = {
        "live_s": round(float(percentile(live, 99)), 5),
        "interval_95_s": None if interval is None else [round(interval.low, 5), round(interval.high, 5)],
        "simulated_s": round(float(percentile(simulated, 99)), 5),
    }
    return rows


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
