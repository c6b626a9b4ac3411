"""What each precision costs and loses, side by side: speed, memory, perplexity, agreement with fp32.

Every precision is measured in a separate process, so that it has its own memory and no packed copy of another is in the
caches. Perplexity is measured on `data/eval/prose.txt`, this project's own text, which no model was trained on.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table

from miniserve.config import CacheConfig, EngineConfig
from miniserve.engine.attention import plan_attention
from miniserve.engine.batch import Batch, Work
from miniserve.engine.engine import Engine, load_engine
from miniserve.engine.runner import ModelRunner
from miniserve.engine.sequence import Sequence
from miniserve.models.tokenizer import Tokenizer
from miniserve.types import Request, SamplingParams

PRECISIONS = ("fp32", "fp16", "int8", "int8-row", "int8-naive")
MIB = 1 << 20


def bench_quant(folder: Path, text: Path, threads: int, console: Console) -> dict[str, Any]:
    """Measure every precision; `agreement` compares each position's most likely token with fp32's."""
    rows = []
    for precision in track(PRECISIONS, "precisions", console=console):
        command = [sys.executable, "-m", "miniserve.bench.quant", str(folder), str(text), precision, str(threads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout))
    exact = rows[0].pop("best_tokens")
    rows[0]["agreement"] = 1.0
    for row in rows[1:]:
        best = row.pop("best_tokens")
        row["agreement"] = round(sum(a == b for a, b in zip(best, exact, strict=True)) / len(exact), 4)
    return {"model": folder.name, "threads": threads, "text_tokens": len(exact) + 1, "rows": rows}


def measure(folder: Path, text: Path, precision: str, threads: int) -> dict[str, Any]:
    """Measure one precision in this process."""
    before = psutil.Process().memory_info().rss
    start_s = time.perf_counter()
    engine = load_engine(folder, quant=precision, config=EngineConfig(threads=threads))
    load_s = time.perf_counter() - start_s
    weights_mib = (psutil.Process().memory_info().rss - before) / MIB
    ids = Tokenizer.load(folder).encode(text.read_text())[: min(1000, engine.max_model_len)]
    logits = all_logits(engine, ids)
    return {
        "precision": precision,
        "load_s": round(load_s, 2),
        "weights_mib": round(weights_mib),
        "step_ms": {str(rows): round(decode_step_ms(engine, rows), 2) for rows in (1, 4, 16)},
        "perplexity": round(math.exp(F.cross_entropy(logits[:-1], torch.tensor(ids[1:])).item()), 3),
        "best_tokens": logits[:-1].argmax(-1).tolist(),
    }


@torch.inference_mode()
def all_logits(engine: Engine, ids: list[int]) -> torch.Tensor:
    """Return the logits [len(ids), vocab] at every position of one text, computed as a single chunk."""
    runner = engine.runner
    assert isinstance(runner, ModelRunner)
    cache = CacheConfig(engine.scheduler.blocks.num_blocks, engine.scheduler.blocks.block_size)
    seq = Sequence(Request("text", "m", tuple(ids)))
    seq.block_table = list(range(-(-len(ids) // cache.block_size)))
    plan = plan_attention(Batch((Work(seq, 0, len(ids), samples=True),)), cache.block_size)
    positions = torch.arange(len(ids))
    return runner.model.forward(torch.tensor(ids), positions, plan, runner.pool, positions).float()


def decode_step_ms(engine: Engine, rows: int, steps: int = 40) -> float:
    """Return the median time of a step that decodes `rows` sequences of about 100 tokens."""
    engine.steps.clear()
    sampling = SamplingParams(max_tokens=steps, temperature=0, ignore_eos=True)
    engine.run(Request(f"{rows}-{i}", "m", tuple(range(10 + i, 90 + i)), sampling) for i in range(rows))
    times = sorted(s.seconds for s in engine.steps if s.decode_rows == rows and not s.prefill_tokens)
    return 1000 * times[len(times) // 2]


def quant_table(result: dict[str, Any]) -> Table:
    table = Table(title=f"{result['model']}, {result['threads']} threads, {result['text_tokens']} tokens of text")
    headings = ("precision", "step, 1 row", "4 rows", "16 rows", "weights", "load", "perplexity", "agrees with fp32")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "precision" else "right")
    for row in result["rows"]:
        table.add_row(
            row["precision"],
            *(f"{row['step_ms'][rows]:.1f} ms" for rows in ("1", "4", "16")),
            f"{row['weights_mib']} MiB",
            f"{row['load_s']:.1f} s",
            f"{row['perplexity']:.2f}",
            f"{row['agreement']:.1%}",
        )
    return table


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))
