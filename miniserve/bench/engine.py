"""The engine against `transformers.generate`: same weights, same prompts, same threads, taken in turns.

Two questions. Equal lengths: what do packed weights and a paged cache gain at 1, 4 and 16 streams? Unequal lengths:
what does continuous batching gain when a static batch must wait for its longest member? Only requested tokens are
counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from miniserve.config import EngineConfig
from miniserve.engine.engine import Engine, load_engine
from miniserve.models.tokenizer import Tokenizer
from miniserve.types import Request, SamplingParams

WORDS = "the river carries small boats past old stone houses while children watch".split()  # noqa: SIM905 -- a sentence


@dataclass(frozen=True, slots=True)
class EngineCase:
    """`streams` prompts served together; `lengths[i]` new tokens wanted from the i-th."""

    name: str
    prompts: list[list[int]]
    lengths: list[int]

    @property
    def useful_tokens(self) -> int:
        return sum(self.lengths)


def make_cases(tokenizer: Tokenizer, seed: int) -> list[EngineCase]:
    """64 words in; 64 tokens out, and once 16 to 128 out. Each prompt starts differently, so no prefix is shared."""
    rng = Random(seed)

    def prompt() -> list[int]:
        return tokenizer.encode(" ".join(rng.choice(WORDS) for _ in range(64)))[:64]

    cases = [EngineCase(f"{n} x 64 tokens", [prompt() for _ in range(n)], [64] * n) for n in (1, 4, 16)]
    lengths = [16 + round(112 * i / 15) for i in range(16)]
    rng.shuffle(lengths)
    return [*cases, EngineCase("16 x 16..128 tokens", [prompt() for _ in range(16)], lengths)]


def run_ours(engine: Engine, case: EngineCase) -> float:
    """Return seconds to serve the case."""
    engine.scheduler.blocks.forget()  # a repeated prompt must be computed again
    requests = [
        Request(f"b{i}", "m", tuple(ids), SamplingParams(max_tokens=n, temperature=0, ignore_eos=True))
        for i, (ids, n) in enumerate(zip(case.prompts, case.lengths, strict=True))
    ]
    start_s = time.perf_counter()
    outputs = engine.run(requests)
    seconds = time.perf_counter() - start_s
    assert [len(outputs[r.request_id]) for r in requests] == case.lengths
    return seconds


def run_transformers(model: Any, case: EngineCase) -> float:
    """Return the seconds of one static batch: every row computes until the longest is done."""
    ids = torch.tensor(case.prompts)
    longest = max(case.lengths)
    start_s = time.perf_counter()
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        min_new_tokens=longest,
        max_new_tokens=longest,
        pad_token_id=0,
    )
    return time.perf_counter() - start_s


def bench_engine(folder: Path, threads: int, repeats: int, seed: int, console: Console) -> dict[str, Any]:
    """Measure every case `repeats` times, peers in turns, and return medians and ratios.

    Raises: ModuleNotFoundError without `transformers`.
    """
    from transformers import LlamaForCausalLM

    cases = make_cases(Tokenizer.load(folder), seed)
    config = EngineConfig(threads=threads)
    fp16, fp32 = (load_engine(folder, quant=quant, config=config) for quant in ("fp16", "fp32"))
    reference: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    reference.eval()
    torch.set_num_threads(threads)
    runners: dict[str, Callable[[EngineCase], float]] = {
        "fp16": lambda case: run_ours(fp16, case),
        "fp32": lambda case: run_ours(fp32, case),
        "transformers fp32": lambda case: run_transformers(reference, case),
    }
    for run in runners.values():  # warm-up: first calls pay for threads and page faults
        run(cases[0])
    seconds: dict[tuple[str, str], list[float]] = {}
    for case, name in track(
        list(_turns(cases, list(runners), repeats)), "engine against transformers", console=console
    ):
        seconds.setdefault((case.name, name), []).append(runners[name](case))
    rows = [_row(case, {name: statistics.median(seconds[case.name, name]) for name in runners}) for case in cases]
    return {"model": folder.name, "threads": threads, "repeats": repeats, "seed": seed, "rows": rows}


def _turns(cases: list[EngineCase], names: list[str], repeats: int) -> Iterator[tuple[EngineCase, str]]:
    """Yield turns A B C A B C ..., so that drift on the machine affects all equally."""
    for case in cases:
        for _ in range(repeats):
            for name in names:
                yield case, name


def _row(case: EngineCase, seconds: dict[str, float]) -> dict[str, Any]:
    rates = {name: round(case.useful_tokens / s, 1) for name, s in seconds.items()}
    peer = seconds["transformers fp32"]
    ratios = {name: round(peer / s, 2) for name, s in seconds.items() if name != "transformers fp32"}
    return {"case": case.name, "tokens_per_s": rates, "ratio_to_transformers": ratios}


def engine_table(result: dict[str, Any]) -> Table:
    table = Table(
        title=f"{result['model']}, {result['threads']} threads, median of {result['repeats']}: tokens per second"
    )
    for heading in ("case", "fp16 (default)", "fp32 (exact)", "transformers fp32", "fp16 : tf", "fp32 : tf"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for row in result["rows"]:
        rates, ratios = row["tokens_per_s"], row["ratio_to_transformers"]
        table.add_row(
            row["case"],
            *(f"{rates[name]:.1f}" for name in ("fp16", "fp32", "transformers fp32")),
            *(f"{ratios[name]:.2f}x" for name in ("fp16", "fp32")),
        )
    return table
