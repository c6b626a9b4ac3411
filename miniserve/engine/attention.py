"""Attention over paged keys and values: where a step's new K/V go, and how each row finds its past.

The pool is one tensor `[layers, slots, 2, kv_heads, head_dim]`; slot = block * block_size + offset, and one slot holds
a token's key *and* value, so storing a step's tokens is one indexed copy per layer. What does not depend on the layer
(slots, tables, masks) is built once per step in `plan_attention`.

    rows with one query    gather their blocks side by side, pad to the longest, mask the padding      [B, heads, ctx]
    prefill chunks         one sequence at a time, causal from wherever its cached context ends        [heads, n, ctx]

This is the reference path, plain torch on any device. K and V are never repeated per query head: the queries that share
a KV head are grouped instead (grouped-query attention).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from miniserve.engine.scheduler import Batch, Work


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

    slots: torch.Tensor  # [T] where each row's K/V go
    block_size: int
    num_decode: int  # the first rows have one query each
    tables: torch.Tensor  # [num_decode, blocks] block tables, padded with block 0
    mask: torch.Tensor  # [num_decode, 1, 1, blocks * block_size], 0 or -inf, added to scores
    chunks: tuple[Chunk, ...]


def plan_attention(batch: Batch, block_size: int, dtype: torch.dtype, device: str = "cpu") -> AttentionPlan:
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
    tables, mask = _plan_decodes(decodes, block_size, dtype)
    return AttentionPlan(
        torch.tensor(slots, device=device), block_size, len(decodes), tables.to(device), mask.to(device), tuple(chunks)
    )


def _plan_decodes(decodes: list[Work], block_size: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    if not decodes:
        return torch.empty(0, 0, dtype=torch.long), torch.empty(0)
    widths = [-(-work.end // block_size) for work in decodes]
    width = max(widths)
    tables = [work.seq.block_table[:w] + [0] * (width - w) for work, w in zip(decodes, widths, strict=True)]
    lengths = torch.tensor([work.end for work in decodes])
    padding = torch.arange(width * block_size) >= lengths[:, None]  # [B, ctx]
    mask = torch.zeros(padding.shape, dtype=dtype).masked_fill_(padding, float("-inf"))
    return torch.tensor(tables), mask[:, None, None, :]


def _plan_chunk(work: Work, row: int, block_size: int, device: str) -> Chunk:
    blocks = torch.tensor(work.seq.block_table[: -(-work.end // block_size)], device=device)
    mask = None
    if work.start > 0:
        mask = torch.arange(work.end)[None, :] <= torch.arange(work.start, work.end)[:, None]
        mask = mask.to(device)
    return Chunk(row, work.num_tokens, work.start, blocks, mask)


def store_kv(pool: torch.Tensor, kv: torch.Tensor, plan: AttentionPlan) -> None:
    """Write `kv` [T, 2 * kv_heads * head_dim] into one layer's pool [slots, 2, kv_heads, head_dim]."""
    pool.view(pool.shape[0], -1).index_copy_(0, plan.slots, kv)


def paged_attention(q: torch.Tensor, pool: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
    """Attend with `q` [T, heads, head_dim] over one layer's `pool`; returns [T, heads * head_dim]."""
    out = torch.empty(q.shape[0], q.shape[1] * q.shape[2], dtype=q.dtype, device=q.device)
    blocks = pool.view(-1, plan.block_size, *pool.shape[1:])  # [num_blocks, block_size, 2, kv_heads, head_dim]
    if plan.num_decode:
        out[: plan.num_decode] = _decode(q[: plan.num_decode], blocks, plan)
    for chunk in plan.chunks:
        rows = slice(chunk.row, chunk.row + chunk.num_tokens)
        out[rows] = _prefill(q[rows], blocks, chunk)
    return out


def _decode(q: torch.Tensor, blocks: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
    batch, heads, dim = q.shape
    kv_heads = blocks.shape[3]
    kv = blocks.index_select(0, plan.tables.flatten()).view(batch, -1, 2, kv_heads, dim)  # [B, ctx, 2, kv_heads, dim]
    k, v = kv.permute(2, 0, 3, 1, 4)  # each [B, kv_heads, ctx, dim]
    grouped = q.view(batch, kv_heads, heads // kv_heads, dim)  # query heads that share a KV head sit together
    return F.scaled_dot_product_attention(grouped, k, v, plan.mask).reshape(batch, -1)


def _prefill(q: torch.Tensor, blocks: torch.Tensor, chunk: Chunk) -> torch.Tensor:
    context = chunk.context + chunk.num_tokens
    kv = blocks.index_select(0, chunk.blocks).flatten(0, 1)[:context]  # [ctx, 2, kv_heads, dim]
    k, v = kv.permute(1, 2, 0, 3)  # each [kv_heads, ctx, dim]
    out = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None], k[None], v[None], chunk.mask, is_causal=chunk.mask is None, enable_gqa=True
    )  # [1, heads, n, dim]
    return out[0].transpose(0, 1).reshape(chunk.num_tokens, -1)
