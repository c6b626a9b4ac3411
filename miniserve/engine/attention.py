"""Attention over paged keys and values: where a step's new K/V go, and how each row finds its past.

The pool is one tensor `[layers, slots, 2, kv_heads, head_dim]`; slot = block * block_size + offset, and one slot holds
a token's key *and* value, so storing a step's tokens is one indexed copy per layer. What does not depend on the layer
(slots, tables, lengths) is built once per step in `plan_attention`.

    rows with one query    gather their blocks side by side, pad to the longest, mask the padding      [B, heads, ctx]
    prefill chunks         one sequence at a time, causal from wherever its cached context ends        [heads, n, ctx]

The functions here are the reference path, plain torch on any device. `choose_backend` swaps in a faster one for the
same job: a numba kernel for decode rows on a CPU (`cpu_attention.py`). K and V are never repeated per query head: the
queries that share a KV head are grouped instead (grouped-query attention).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from miniserve.engine import cpu_attention
from miniserve.engine.scheduler import Batch, Work
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
        return torch.from_numpy(np.zeros(shape, np.float64 if dtype == torch.float64 else np.float32))
    return torch.zeros(shape, dtype=dtype, device=device)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A prefill chunk: rows `[row, row + num_tokens)` of the step, with `context` cached tokens before them."""

    row: int
    num_tokens: int
    context: int
    blocks: torch.Tensor  # [ceil((context + num_tokens) / block_size)]
    mask: torch.Tensor | None  # [num_tokens, context + num_tokens] bool; None = plain causal


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What every layer needs to know about this step."""

    block_size: int
    slots: torch.Tensor  # [T] where each row's K/V go
    num_decode: int  # the first rows have one query each
    tables: torch.Tensor  # [num_decode, blocks] block tables, padded with block 0
    lengths: torch.Tensor  # [num_decode] tokens that each row may see, itself included
    chunks: tuple[Chunk, ...]


def plan_attention(batch: Batch, block_size: int, device: str = "cpu") -> AttentionPlan:
    """Turn block tables (lists of numbers) into index tensors for one step."""
    slots: list[int] = []
    decodes: list[Work] = []
    chunks: list[Chunk] = []
    for work in batch.works:
        table = work.seq.block_table
        if work.num_tokens == 1:
            decodes.append(work)
        else:
            chunks.append(_plan_chunk(work, len(slots), block_size, device))
        slots.extend(table[p // block_size] * block_size + p % block_size for p in range(work.start, work.end))
    widths = [-(-work.end // block_size) for work in decodes]
    width = max(widths, default=0)
    tables = [work.seq.block_table[:w] + [0] * (width - w) for work, w in zip(decodes, widths, strict=True)]
    return AttentionPlan(
        block_size,
        torch.tensor(slots, device=device),
        len(decodes),
        torch.tensor(tables, dtype=torch.long, device=device),
        torch.tensor([work.end for work in decodes], dtype=torch.long, device=device),
        tuple(chunks),
    )


def _plan_chunk(work: Work, row: int, block_size: int, device: str) -> Chunk:
    blocks = torch.tensor(work.seq.block_table[: -(-work.end // block_size)], device=device)
    mask = None
    if work.start > 0:
        mask = torch.arange(work.end)[None, :] <= torch.arange(work.start, work.end)[:, None]
        mask = mask.to(device)
    return Chunk(row, work.num_tokens, work.start, blocks, mask)


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


def prefill(q: torch.Tensor, pool: torch.Tensor, plan: AttentionPlan, chunk: Chunk) -> torch.Tensor:
    """Attend with one sequence's chunk: q [n, heads, dim] -> [n, heads * dim]."""
    kv = _blocks(pool, plan.block_size).index_select(0, chunk.blocks).flatten(0, 1)
    k, v = kv[: chunk.context + chunk.num_tokens].permute(1, 2, 0, 3)  # each [kv_heads, ctx, dim]
    out = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None], k[None], v[None], chunk.mask, is_causal=chunk.mask is None, enable_gqa=True
    )  # [1, heads, n, dim]
    return out[0].transpose(0, 1).reshape(chunk.num_tokens, -1)


def _blocks(pool: torch.Tensor, block_size: int) -> torch.Tensor:
    return pool.view(-1, block_size, *pool.shape[1:])  # [num_blocks, block_size, 2, kv_heads, dim]


# --- which path


@dataclass(frozen=True, slots=True)
class AttentionBackend:
    """Three functions that do one layer's work; every backend agrees with `TORCH` up to rounding."""

    name: str
    store_kv: Callable[[torch.Tensor, torch.Tensor, AttentionPlan], None]
    decode: Callable[[torch.Tensor, torch.Tensor, AttentionPlan], torch.Tensor]
    prefill: Callable[[torch.Tensor, torch.Tensor, AttentionPlan, Chunk], torch.Tensor]

    def attend(self, q: torch.Tensor, pool: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
        """Attend with all rows of a step, q [T, heads, dim] -> [T, heads * dim]."""
        n = plan.num_decode
        if not plan.chunks:
            return self.decode(q, pool, plan)
        out = torch.empty(q.shape[0], q.shape[1] * q.shape[2], dtype=q.dtype, device=q.device)
        if n:
            out[:n] = self.decode(q[:n], pool, plan)
        for chunk in plan.chunks:
            rows = slice(chunk.row, chunk.row + chunk.num_tokens)
            out[rows] = self.prefill(q[rows], pool, plan, chunk)
        return out


def _numba_decode(q: torch.Tensor, pool: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
    return cpu_attention.decode(q, pool, plan.tables, plan.lengths, plan.block_size)


TORCH = AttentionBackend("torch", store_kv, decode, prefill)
NUMBA = replace(TORCH, name="numba", decode=_numba_decode)


def choose_backend(name: str = "auto", device: str = "cpu") -> AttentionBackend:
    """Return the backend called `name`, or the fastest one there is for `device`.

    Raises: SetupError for one that is unknown or cannot run here.
    """
    on_cpu = device == "cpu"
    if name == "torch" or (name == "auto" and not (on_cpu and cpu_attention.available())):
        return TORCH
    if name not in ("auto", "numba"):
        raise SetupError(f"unknown attention backend {name!r}: choose auto, numba or torch")
    if not on_cpu or not cpu_attention.available():
        why = "numba is not installed" if on_cpu else f"it runs on a CPU only, and the model is on {device}"
        raise SetupError(f"attention backend numba cannot be used: {why}; choose auto or torch instead")
    return NUMBA
