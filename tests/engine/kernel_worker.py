"""Runs the Triton kernels in a process of its own: one case per line on stdin (JSON), one result per line on stdout.

Whether a kernel is interpreted is decided when it is decorated (TRITON_INTERPRET=1), once per process; so the tests
talk to this program, started with the variable for the interpreter and without it for a GPU.

Every case is hostile: blocks are scattered; whatever the kernels must not read is NaN (slots that nobody uses, the rest
of a last block, the block that pads the tables, the columns between the rows of q); so is all memory that the launchers
allocate. The answer is computed in float64, one query and one head at a time, with no notion of blocks.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import sys
import traceback
from typing import Any

import kernel_interpreter
import torch

from miniserve.engine.kernels import kv_store, paged_decode, paged_prefill

NAN = float("nan")


# --- inputs and the answer


class Case:
    """A scattered pool that holds `totals[i]` tokens of each sequence, and NaN elsewhere."""

    def __init__(self, totals: list[int], spec: dict[str, Any]) -> None:
        self.heads, self.kv_heads, self.dim = spec["heads"], spec["kv_heads"], spec["dim"]
        self.block_size, self.device = spec["block_size"], spec["device"]
        self.dtype = getattr(torch, spec.get("dtype", "float32"))
        self.index = getattr(torch, spec.get("index", "int64"))
        self.generator = torch.Generator().manual_seed(spec.get("seed", 0))
        used = [-(-total // self.block_size) for total in totals]
        num_blocks = sum(used) + spec.get("spare_blocks", 2) + 1
        order = (torch.randperm(num_blocks - 1, generator=self.generator) + 1).tolist()  # block 0 pads the tables
        free = sorted(order, reverse=True) if spec.get("last_blocks") else order
        self.blocks = [[free.pop(0) for _ in range(n)] for n in used]
        width = max(used) + spec.get("extra_columns", 1)
        self.tables = self.ints([blocks + [0] * (width - len(blocks)) for blocks in self.blocks])
        self.kv = [self.normal(total, 2, self.kv_heads, self.dim) for total in totals]
        shape = (num_blocks * self.block_size, 2, self.kv_heads, self.dim)
        self.pool = torch.full(shape, NAN, dtype=self.dtype, device=self.device)
        for kv, blocks in zip(self.kv, self.blocks, strict=True):
            self.pool[self.slots(blocks, len(kv))] = kv

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator).to(self.dtype).to(self.device)

    def ints(self, numbers: list[Any]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=self.index, device=self.device)

    def slots(self, blocks: list[int], tokens: int) -> torch.Tensor:
        return self.ints([blocks[p // self.block_size] * self.block_size + p % self.block_size for p in range(tokens)])

    def queries(self, rows: int) -> torch.Tensor:
        """[rows, heads, dim], the first columns of wider rows, as q is of the fused projection."""
        wide = torch.full((rows, self.heads + 2, self.dim), NAN, dtype=self.dtype, device=self.device)
        wide[:, : self.heads] = self.normal(rows, self.heads, self.dim)
        return wide[:, : self.heads]


def by_definition(q: torch.Tensor, kv: torch.Tensor, context: int) -> torch.Tensor:
    """q [n, heads, dim], query i at position context + i; kv [tokens, 2, kv_heads, dim]; in float64."""
    q, kv = q.double().cpu(), kv.double().cpu()
    n, heads, dim = q.shape
    group = heads // kv.shape[2]
    out = torch.empty(n, heads, dim, dtype=torch.float64)
    for i in range(n):
        seen = kv[: context + i + 1]
        for h in range(heads):
            scores = seen[:, 0, h // group] @ q[i, h] / math.sqrt(dim)
            out[i, h] = scores.softmax(0) @ seen[:, 1, h // group]
    return out.view(n, -1)


def compared(got: torch.Tensor, wanted: torch.Tensor) -> dict[str, Any]:
    error = ((got.double().cpu() - wanted).abs() / wanted.abs().clamp(min=1)).max().item()
    digests = [hashlib.sha256(row.float().cpu().numpy().tobytes()).hexdigest() for row in got]
    return {"error": None if math.isnan(error) else error, "rows": digests}


# --- one function per kernel


def decode(spec: dict[str, Any]) -> dict[str, Any]:
    """Lengths; `only` picks rows of the same batch to be run without the others."""
    lengths = spec["lengths"]
    case = Case(lengths, spec)
    q = case.queries(len(lengths))
    wanted = torch.cat([by_definition(q[i : i + 1], kv, len(kv) - 1) for i, kv in enumerate(case.kv)])
    rows = spec.get("only", list(range(len(lengths))))
    args = (q[rows], case.pool, case.tables[rows], case.ints(lengths)[rows], case.block_size, spec.get("split", 16))
    return compared(paged_decode.decode(*args), wanted[rows])


def prefill(spec: dict[str, Any]) -> dict[str, Any]:
    """Chunks of (context, new tokens); `cuts` runs a single sequence chunk by chunk instead."""
    chunks = spec["chunks"]
    case = Case([context + new for context, new in chunks], spec)
    q = case.queries(sum(new for _, new in chunks))
    wanted, offsets = [], [0]
    for (context, new), kv in zip(chunks, case.kv, strict=True):
        wanted.append(by_definition(q[offsets[-1] : offsets[-1] + new], kv, context))
        offsets.append(offsets[-1] + new)
    longest = max(new for _, new in chunks) if spec.get("tell_longest", True) else offsets[-1]

    def run(rows: slice, offsets: list[int], contexts: list[int]) -> torch.Tensor:
        where = (case.ints(offsets), case.ints(contexts))
        return paged_prefill.prefill(
            q[rows], case.pool, case.tables, *where, longest, case.block_size, spec.get("tile", 16)
        )

    if "cuts" not in spec:
        return compared(run(slice(None), offsets, [context for context, _ in chunks]), torch.cat(wanted))
    ((start, total),) = chunks
    edges = [0, *spec["cuts"], total]
    parts = [run(slice(a, b), [0, b - a], [start + a]) for a, b in itertools.pairwise(edges)]
    return compared(torch.cat(parts), torch.cat(wanted))


def store(spec: dict[str, Any]) -> dict[str, Any]:
    """Tokens: their K and V, columns of wider rows, in random order; all other slots must keep their NaN."""
    tokens = spec["tokens"]
    case = Case([tokens], {**spec, "spare_blocks": 3})
    slots, wanted = case.slots(case.blocks[0], tokens), case.pool.clone()
    order = torch.randperm(tokens, generator=case.generator).to(case.device)
    wide = torch.full((tokens, 7 + 2 * case.kv_heads * case.dim), NAN, dtype=torch.float32, device=case.device)
    wide[:, 7:] = case.kv[0].flatten(1)[order]
    case.pool.fill_(NAN)
    kv_store.store_kv(case.pool, wide[:, 7:], slots[order])
    return {"error": 0.0 if torch.equal(case.pool.nan_to_num(99.0), wanted.nan_to_num(99.0)) else None}


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # fills new memory with NaN; no other effect here
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if interpreted:
        kernel_interpreter.mend_products()
        kernel_interpreter.watch_memory()
    for line in sys.stdin:
        spec = {"device": "cpu" if interpreted else "cuda", **json.loads(line)}
        try:
            if interpreted:
                kernel_interpreter.run_programs_in_random_order(spec.get("order", 0), spec.get("times", 1))
            result = {"decode": decode, "prefill": prefill, "store": store}[spec["kernel"]](spec)
        except Exception:
            result = {"failure": traceback.format_exc()}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
