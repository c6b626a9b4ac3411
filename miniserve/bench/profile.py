"""Where a step's time goes, compared with the best this machine could do.

    products     matrix products with weights: with few rows they read weights, with many they multiply
    attention    storing keys and values, and attending
    rest         norms, rope, activations, planning, sampling, Python

The limits are measured as well: bytes per second that all threads together read from memory, and additions and
multiplications per second in a large fp32 product. The ratio shows what is left to gain, and where.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from miniserve.config import CacheConfig, EngineConfig, SchedulerConfig
from miniserve.engine.attention import AttentionBackend
from miniserve.engine.engine import Engine, load_engine
from miniserve.engine.linear import make_linear
from miniserve.engine.model import Llama
from miniserve.engine.quantize import Linear
from miniserve.engine.runner import ModelRunner, use_threads
from miniserve.types import Request, SamplingParams

CASES = {
    "decode 1 row": 1,
    "decode 4 rows": 4,
    "decode 16 rows": 16,
    "prefill 64 tokens": 64,
    "prefill 256 tokens": 256,
}
QUANTS = ("fp16", "fp32")
_BYTES = {"fp16": 2, "fp32": 4}
_CONTEXT_TOKENS = 100
_REPEATS = 20


class StageClock:
    """Seconds by part, since the last `clear`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, with its time attributed to `part`."""

        def run(*args: Any) -> Any:
            start_s = time.perf_counter()
            result = function(*args)
            self.seconds[part] += time.perf_counter() - start_s
            return result

        return run


def bench_profile(folder: Path, threads: int, console: Console) -> dict[str, Any]:
    """Return the machine's limits, and a row per precision and case."""
    use_threads(threads)
    limits = {"read_gb_per_s": _read_gb_per_s(), "matrix_gflop_per_s": _matrix_gflop_per_s()}
    rows: list[dict[str, Any]] = []
    for quant in track(QUANTS, "profiling", console=console):
        cache, scheduler = CacheConfig(512, 16, prefix_caching=False), SchedulerConfig(max_batch_tokens=256)
        engine = load_engine(folder, quant=quant, config=EngineConfig(scheduler, cache, threads=threads))
        assert isinstance(engine.runner, ModelRunner)
        clock = StageClock()
        watch_process(engine.runner.model, clock)
        measure_case(engine, clock, "decode 1 row")  # a warm-up
        for case in CASES:
            times = measure_case(engine, clock, case)
            shares = _against(limits, engine.runner.model, quant, case, times["products_ms"])
            rows.append({"precision": quant, "case": case, **times, **shares})
    return {"model": folder.name, "threads": threads, "limits": limits, "rows": rows}


def watch_process(model: Llama, clock: StageClock) -> None:
    """Time what `model` does from now on."""

    def products(linear: Linear) -> Linear:
        return clock.timed("products", linear)

    model.layers = [
        replace(
            layer,
            qkv=products(layer.qkv),
            out=products(layer.out),
            gate_up=products(layer.gate_up),
            down=products(layer.down),
        )
        for layer in model.layers
    ]
    model.head = products(model.head)
    inner = model.attention
    model.attention = AttentionBackend(
        inner.name,
        clock.timed("attention", inner.store_kv),
        clock.timed("attention", inner.decode),
        clock.timed("attention", inner.prefill),
    )


def measure_case(engine: Engine, clock: StageClock, case: str) -> dict[str, float]:
    """Return the medians over the case's steps, in milliseconds."""
    steps: list[dict[str, float]] = []
    wanted, prefill = CASES[case], case.startswith("prefill")
    for together in _requests(case):
        for request in together:
            engine.add(request)
        while engine.has_work:
            clock.seconds.clear()
            engine.step()
            record = engine.steps[-1]
            if (record.prefill_tokens if prefill else record.decode_rows) == wanted:
                rest_s = record.seconds - clock.seconds["products"] - clock.seconds["attention"]
                steps.append({"step": record.seconds, **clock.seconds, "rest": rest_s})
    return {f"{part}_ms": round(1000 * statistics.median(step[part] for step in steps), 2) for part in steps[0]}


def _requests(case: str) -> list[list[Request]]:
    """Return requests that make `_REPEATS` steps of the case's shape; each list is served together."""
    size = CASES[case]
    if case.startswith("prefill"):
        return [[_request(f"{case} {i}", size, 1)] for i in range(_REPEATS)]
    return [[_request(f"{case} {i}", _CONTEXT_TOKENS, _REPEATS + size) for i in range(size)]]


def _request(name: str, prompt_tokens: int, max_tokens: int) -> Request:
    sampling = SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True)
    return Request(name, "m", tuple(100 + i % 100 for i in range(prompt_tokens)), sampling)


def _against(limits: dict[str, float], model: Llama, quant: str, case: str, products_ms: float) -> dict[str, float]:
    """Return how close the products come to the machine's limits: reading the weights once, and arithmetic."""
    config = model.config
    layer = config.hidden_size * (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    layer += config.num_heads * config.head_dim * config.hidden_size + 3 * config.hidden_size * config.intermediate_size
    body, head = layer * config.num_layers, config.vocab_size * config.hidden_size
    sampling_rows = 1 if case.startswith("prefill") else CASES[case]
    gb = (body + head) * _BYTES[quant] / 1e9
    gflop = 2 * (body * CASES[case] + head * sampling_rows) / 1e9
    seconds = products_ms / 1000
    return {
        "of_read_limit": round(gb / seconds / limits["read_gb_per_s"], 2),
        "of_matrix_limit": round(gflop / seconds / limits["matrix_gflop_per_s"], 2),
    }


def _read_gb_per_s() -> float:
    large = torch.ones(1 << 26)  # 256 MiB, beyond every cache
    return round(large.nbytes / 1e9 / _fastest_s(lambda: large.sum()), 1)


def _matrix_gflop_per_s(size: int = 1536) -> float:
    product, x = make_linear(torch.randn(size, size), "fp32"), torch.randn(512, size)
    return round(2 * 512 * size * size / 1e9 / _fastest_s(lambda: product(x)), 1)


def _fastest_s(run: Callable[[], Any]) -> float:
    times = []
    for _ in range(10):
        start_s = time.perf_counter()
        run()
        times.append(time.perf_counter() - start_s)
    return min(times)


def profile_table(result: dict[str, Any]) -> Table:
    limits = result["limits"]
    table = Table(
        title=f"{result['model']}, {result['threads']} threads; this machine reads {limits['read_gb_per_s']} GB/s "
        f"and multiplies {limits['matrix_gflop_per_s']} GFLOP/s in fp32"
    )
    for heading in ("precision", "case", "step", "products", "attention", "rest", "of read limit", "of matrix limit"):
        table.add_column(heading, justify="left" if heading in ("precision", "case") else "right")
    for row in result["rows"]:
        times = (f"{row[f'{part}_ms']:.1f} ms" for part in ("step", "products", "attention", "rest"))
        shares = (f"{row[f'of_{limit}_limit']:.0%}" for limit in ("read", "matrix"))
        table.add_row(row["precision"], row["case"], *times, *shares)
    return table
