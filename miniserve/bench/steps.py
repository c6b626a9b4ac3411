"""Measure steps of many shapes on this machine, fit the step-time model, and test it on unseen steps."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from miniserve.bench.record import environment
from miniserve.config import CacheConfig, EngineConfig, SchedulerConfig
from miniserve.engine.engine import Engine, StepRecord, load_engine
from miniserve.engine.step_time import StepTimeModel, fit
from miniserve.types import Request, SamplingParams


def bench_steps(
    folder: Path, quant: str, threads: int, seed: int, console: Console
) -> tuple[StepTimeModel, dict[str, Any]]:
    """Return the model fitted to this machine, and how well it predicts a second, unseen mix of requests."""
    cache = CacheConfig(num_blocks=1024)
    scheduler = SchedulerConfig(max_running=16, max_batch_tokens=256, turn_tokens=None)
    engine = load_engine(folder, quant=quant, config=EngineConfig(scheduler, cache, threads=threads))
    run_mix(engine, Random(seed + 2), requests=4)  # warm-up: threads, page faults, compiled kernels
    train = [
        s
        for i in track(range(8), "measuring steps", console=console)
        for s in run_mix(engine, Random(f"{seed}/{i}"), 12)
    ]
    unseen = run_mix(engine, Random(seed + 1), requests=24)
    machine = environment()
    notes = {"model": folder.name, "quant": quant, "threads": threads, "cpu": machine["cpu"], "date": machine["date"]}
    model = fit(train, notes)
    return model, {**notes, "train_steps": len(train), "unseen": judge_fit(model, unseen)}


def run_mix(engine: Engine, rng: Random, requests: int) -> list[StepRecord]:
    """Serve a mix of prompt and answer lengths with a varying number of streams; return every step."""
    records: list[StepRecord] = []
    engine.on_step = records.append
    engine.scheduler.blocks.forget()
    waiting = [_request(rng, i) for i in range(requests)]
    streams = rng.choice([1, 2, 4, 8, 16])
    while waiting or engine.has_work:
        while waiting and len(engine.scheduler.sequences()) < streams:
            engine.add(waiting.pop())
        engine.step()
    engine.on_step = None
    return records


def _request(rng: Random, number: int) -> Request:
    prompt = tuple(rng.randrange(100, 200) for _ in range(rng.choice([8, 40, 120, 400])))
    sampling = SamplingParams(max_tokens=rng.choice([4, 16, 48]), temperature=0, ignore_eos=True)
    return Request(f"s{number}", "m", prompt, sampling)


def judge_fit(model: StepTimeModel, steps: list[StepRecord]) -> dict[str, Any]:
    """Compare predicted with measured step times: each step, their sum, and their percentiles."""
    predicted = np.array([model.seconds(step) for step in steps])
    measured = np.array([step.seconds for step in steps])
    ratios = {f"p{q}": round(float(np.percentile(predicted, q) / np.percentile(measured, q)), 3) for q in (50, 95)}
    return {
        "steps": len(steps),
        "median_abs_relative_error": round(float(np.median(np.abs(predicted / measured - 1))), 4),
        "predicted_to_measured_total": round(float(predicted.sum() / measured.sum()), 3),
        "predicted_to_measured": ratios,
    }


def steps_table(model: StepTimeModel, result: dict[str, Any]) -> Table:
    table = Table(title=f"step time of {result['model']} {result['quant']}, {result['threads']} threads")
    table.add_column("term")
    table.add_column("fitted", justify="right")
    table.add_row("base (weights, operators)", f"{1e3 * model.base_s:.2f} ms")
    table.add_row("per decode row", f"{1e3 * model.per_decode_row_s:.3f} ms")
    table.add_row("per prefill token", f"{1e3 * model.per_prefill_token_s:.3f} ms")
    table.add_row("per 1,000 context tokens", f"{1e6 * model.per_context_token_s:.3f} ms")
    table.add_row("per million prefill pairs", f"{1e9 * model.per_prefill_pair_s:.2f} ms")
    unseen = result["unseen"]
    table.add_row(f"error on {unseen['steps']} unseen steps, median", f"{unseen['median_abs_relative_error']:.1%}")
    table.add_row("predicted : measured, p50", f"{unseen['predicted_to_measured']['p50']:.2f}")
    table.add_row("predicted : measured, p95", f"{unseen['predicted_to_measured']['p95']:.2f}")
    return table
