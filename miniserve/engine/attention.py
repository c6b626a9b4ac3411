"""Attention over paged keys and values: where a step's new K/V go, and how each row finds its past.

The pool is one tensor `[layers, slots, 2, kv_heads, head_dim]`; slot = block * block_size + offset, and one slot holds
a token's key *and* value, so storing a step's tokens is one indexed copy per layer. What does not depend on the layer
(slots, tables, lengths) is built once per step in `plan_attention`.

    rows with one query    gather their blocks side by side, pad to the longest, mask the padding      [B, heads, ctx]
    prefill chunks         one sequence at a time, causal from wherever its cached context ends        [heads, n, ctx]

The functions here are the reference path, plain torch on any device. `choose_backend` swaps in a faster one for the
same job: a numba kernel for decode rows on a CPU (`cpu_attention.py`), Triton kernels on a GPU (`kernels/`). K and V
are never repeated per query head: the queries that share a KV head are grouped instead (grouped-query attention).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F

from miniserve.engine import cpu_attention, kernels
from miniserve.engine.batch import Batch, Work
from miniserve.errors import SetupError


def make_pool(
    layers: int, num_blocks: int, block_size: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: str = "cpu"
) -> torch.Tensor:
    """Allocate the KV pool `[layers, num_blocks * block_size, 2, kv_heads, head_dim]`.

    Zeros, never uninitialised memory: a masked row still takes part as `0 * value`, and `0 * nan` is nan. On a CPU
    numpy's zeros are untouched pages, so memory is taken only as blocks come into use.
    """
    shape = (layers, num_blocks * block_size, 2, kv_heads, head_dim)
    if device == "cpu":
        return torch.from_numpy(np.zeros(shape, _NUMPY[dtype]))
    return torch.zeros(shape, dtype=dtype, device=device)


_NUMPY = {torch.float64: np.float64, torch.float32: np.float32, torch.float16: np.float16}


@dataclass(frozen=True, slots=True)
class Chunk:
    """A prefill chunk: `num_tokens` rows of the step, with `context` cached tokens before them."""

    row: int  # counted from the first chunk's first row
    num_tokens: int
    context: int


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What every layer needs to know about this step. Tables are padded with block 0."""

    block_size: int
    slots: torch.Tensor  # [T] where each row's K/V go
    num_decode: int  # the first rows have one query each
    tables: torch.Tensor  # [num_decode, blocks]
    lengths: torch.Tensor  # [num_decode] tokens that each row may see, itself included
    chunks: tuple[Chunk, ...]
    chunk_tables: torch.Tensor  # [chunks, blocks]
    chunk_offsets: torch.Tensor  # [chunks + 1] where each chunk's rows begin, counted like `Chunk.row`
    chunk_contexts: torch.Tensor  # [chunks]


def plan_attention(batch: Batch, block_size: int, device: str = "cpu") -> AttentionPlan:
    """Turn block tables into index tensors for one step; the works with a single token come first in a batch."""
    slots: list[int] = []
    for work in batch.works:
        table = work.seq.block_table
        slots.extend(table[p // block_size] * block_size + p % block_size for p in range(work.start, work.end))
    decodes = [work for work in batch.works if work.num_tokens == 1]
    prefills = [work for work in batch.works if work.num_tokens > 1]
    offsets = [0, *accumulate(work.num_tokens for work in prefills)]

    def index(values: Seq[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    return AttentionPlan(
        block_size=block_size,
        slots=index(slots),
        num_decode=len(decodes),
        tables=_tables(decodes, block_size, device),
        lengths=index([work.end for work in decodes]),
        chunks=tuple(Chunk(row, w.num_tokens, w.start) for row, w in zip(offsets, prefills, strict=False)),
        chunk_tables=_tables(prefills, block_size, device),
        chunk_offsets=index(offsets),
        chunk_contexts=index([work.start for work in prefills]),
    )


def _tables(works: list[Work], block_size: int, device: str) -> torch.Tensor:
    widths = [-(-work.end // block_size) for work in works]
    width = max(widths, default=0)
    rows = [work.seq.block_table[:w] + [0] * (width - w) for work, w in zip(works, widths, strict=True)]
    return torch.tensor(rows, dtype=torch.long, device=device)


# --- the reference path: one layer's pool is [slots, 2, kv_heads, head_dim]


def store_kv(pool: torch.Tensor, kv: torch.Tensor, plan: AttentionPlan) -> None:
    """Write `kv` [T, 2 * kv_heads * head_dim] at `plan.slots`."""
    pool.view(pool.shape[0], -1).index_copy_(0, plan.slots, kv)


def decode(q: torch.Tensor, pool: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
    """Attend with one query per sequence: q [B, heads, dim] -> [B, heads * dim]."""
    batch, heads, dim = q.shape
    kv_heads = pool.shape[2]
    kv = _blocks(pool, plan.block_size).index_select(0, plan.tables.flatten())
    k, v = kv.view(batch, -1, 2, kv_heads, dim).permute(2, 0, 3, 1, 4)  # each [B, kv_heads, ctx, dim]
    padding = torch.arange(k.shape[2], device=q.device) >= plan.lengths[:, None]  # [B, ctx]
    mask = torch.zeros(padding.shape, dtype=q.dtype, device=q.device).masked_fill_(padding, float("-inf"))
    grouped = q.view(batch, kv_heads, heads // kv_heads, dim)  # query heads that share a KV head sit together
    return F.scaled_dot_product_attention(grouped, k, v, mask[:, None, None, :]).reshape(batch, -1)


def prefill(q: torch.Tensor, pool: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
    """Attend with all chunks, one after another: q [rows of chunks, heads, dim] -> [rows, heads * dim]."""
    out = torch.empty(q.shape[0], q.shape[1] * q.shape[2], dtype=q.dtype, device=q.device)
    for chunk, table in zip(plan.chunks, plan.chunk_tables, strict=True):
        rows, context = slice(chunk.row, chunk.row + chunk.num_tokens), chunk.context + chunk.num_tokens
        kv = _blocks(pool, plan.block_size).index_select(0, table[: -(-context // plan.block_size)]).flatten(0, 1)
        k, v = kv[:context].permute(1, 2, 0, 3)  # each [kv_heads, ctx, dim]
        positions = torch.arange(context, device=q.device)
        mask = None if chunk.context == 0 else positions <= positions[chunk.context :, None]  # [n, ctx]
        attended = F.scaled_dot_product_attention(
            q[rows].transpose(0, 1)[None], k[None], v[None], mask, is_causal=mask is None, enable_gqa=True
        )  # [1, heads, n, dim]
        out[rows] = attended[0].transpose(0, 1).reshape(chunk.num_tokens, -1)
    return out


def _blocks(pool: torch.Tensor, block_size: int) -> torch.Tensor:
    return pool.view(-1, block_size, *pool.shape[1:])  # [num_blocks, block_size, 2, kv_heads, dim]


# --- which path


@dataclass(frozen=True, slots=True)
class AttentionBackend:
    """Three functions that do one layer's work; every backend agrees with `TORCH` up to rounding."""

    name: str
    store_kv: Callable[[torch.Tensor, torch.Tensor, AttentionPlan], None]
    decode: Callable[[torch.Tensor, torch.Tensor, AttentionPlan], torch.Tensor]
    prefill: Callable[[torch.Tensor, torch.Tensor, AttentionPlan], torch.Tensor]

    def attend(self, q: torch.Tensor, pool: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
        """Attend with all rows of a step, q [T, heads, dim] -> [T, heads * dim]."""
        n = plan.num_decode
        if not plan.chunks:
            return self.decode(q, pool, plan)
        if not n:
            return self.prefill(q, pool, plan)
        return torch.cat([self.decode(q[:n], pool, plan), self.prefill(q[n:], pool, plan)])


def _numba_decode(q: torch.Tensor, pool: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
    return cpu_attention.decode(q, pool, plan.tables, plan.lengths, plan.block_size)


def _triton_store(pool: torch.Tensor, kv: torch.Tensor, plan: AttentionPlan) -> None:
    kernels.store_kv(pool, kv, plan.slots)


def _triton_decode(q: torch.Tensor, pool: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
    return kernels.decode(q, pool, plan.tables, plan.lengths, plan.block_size)


def _triton_prefill(q: torch.Tensor, pool: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
    longest = max(chunk.num_tokens for chunk in plan.chunks)
    return kernels.prefill(
        q, pool, plan.chunk_tables, plan.chunk_offsets, plan.chunk_contexts, plan.block_size, longest
    )


TORCH = AttentionBackend("torch", store_kv, decode, prefill)
NUMBA = replace(TORCH, name="numba", decode=_numba_decode)
TRITON = AttentionBackend("triton", _triton_store, _triton_decode, _triton_prefill)
BACKENDS = ("auto", "torch", "numba", "triton")


def choose_backend(name: str = "auto", device: str = "cpu", head_dim: int | None = None) -> AttentionBackend:
    """Return the backend called `name`, or for `auto` the fastest one that can run on `device`.

    Raises: SetupError for one that is unknown or cannot run here, saying what to choose instead.
    """
    if name == "auto":
        if device == "cpu":
            return NUMBA if cpu_attention.available() else TORCH
        return TRITON if kernels.available(device) and head_dim in (None, *kernels.HEAD_DIMS) else TORCH
    if name == "numba":
        _require_numba(device)
        return NUMBA
    if name == "triton":
        kernels.require(device, head_dim)
        return TRITON
    if name != "torch":
        raise SetupError(f"unknown attention backend {name!r}: choose one of {', '.join(BACKENDS)}")
    return TORCH


def _require_numba(device: str) -> None:
    if device != "cpu":
        why = f"it runs on a CPU only, and the model is on {device}"
    elif not cpu_attention.available():
        why = "numba is not installed"
    else:
        return
    raise SetupError(f"attention backend numba cannot be used: {why}; choose auto or torch instead")
