# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator,no-untyped-def"
# (Triton has no types and its own rules for annotations; it is absent outside Linux.)
"""Decode: one query per sequence against its whole context, split so that one long sequence fills the device.

    attend_split   program (sequence, KV head, split): the query heads that share the KV head, over SPLIT positions
    merge_splits   program (sequence, query head): put the splits' partial results together

K and V are read once for all query heads of a group. A split has a fixed length, whatever the batch: a row's result
depends on no other row, to the last bit, so a continuation does not depend on which requests happen to run beside it.
Splits past a sequence's end return at once, and their part of the partial buffers is never read.

Source: Dao et al. 2023, "Flash-Decoding for long-context inference".
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from miniserve.engine.kernels.paged_tile import assert_layout, attend_tile, scale

SPLIT_TOKENS = 256  # enough work for a program to be worth its start, and 32 programs for 8192 tokens
MIN_ROWS = 16  # the tensor cores' smallest tile; rows past the group are zeros
SPLIT_OPTIONS = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}
MERGE_OPTIONS = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": True}


def split_constants(
    heads: int, kv_heads: int, head_dim: int, block_size: int, dtype: torch.dtype, split_tokens: int = SPLIT_TOKENS
) -> dict[str, int]:
    """What `attend_split` is compiled for. `split_tokens` is a power of two, at least 16."""
    group = heads // kv_heads
    single = dtype == torch.float32  # no tensor cores; larger tiles than these spill registers (see `aot.py`)
    tile = (16 if head_dim > 64 else 32) if single else 64
    return {
        "BLOCK_SIZE": block_size,
        "KV_HEADS": kv_heads,
        "GROUP": group,
        "ROWS": max(MIN_ROWS, triton.next_power_of_2(group)),
        "DIM": head_dim,
        "TILE": min(split_tokens, tile),
        "SPLIT": split_tokens,
    }


@triton.jit(do_not_specialize=["table_row", "splits"])
def attend_split(
    q,
    pool,
    tables,
    lengths,
    partial,  # [B, heads, splits, DIM] float32: weighted sums of V, relative to `tops`
    tops,  # [B, heads, splits] float32
    totals,  # [B, heads, splits] float32
    q_row,
    q_head,
    table_row,
    splits,
    scale,
    BLOCK_SIZE: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    TILE: tl.constexpr,
    SPLIT: tl.constexpr,
):
    row, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + row).to(tl.int32)
    start = split * SPLIT
    if start >= length:
        return
    end = tl.minimum(start + SPLIT, length)
    member = tl.arange(0, ROWS)
    head = kv_head * GROUP + member
    dims = tl.arange(0, DIM)
    real = member < GROUP
    queries = tl.load(
        q + row.to(tl.int64) * q_row + head[:, None] * q_head + dims[None, :], mask=real[:, None], other=0.0
    )
    acc = tl.zeros([ROWS, DIM], tl.float32)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    last = tl.zeros([ROWS], tl.int32) + (length - 1)
    table = tables + row.to(tl.int64) * table_row
    for first in range(start, end, TILE):
        acc, top, total = attend_tile(
            queries, acc, top, total, pool, table, kv_head, first, end, last, scale, BLOCK_SIZE, KV_HEADS, DIM, TILE
        )
    at = (row.to(tl.int64) * (KV_HEADS * GROUP) + head) * splits + split
    tl.store(partial + at[:, None] * DIM + dims[None, :], acc, mask=real[:, None])
    tl.store(tops + at, top, mask=real)
    tl.store(totals + at, total, mask=real)


@triton.jit(do_not_specialize=["splits"])
def merge_splits(
    partial, tops, totals, lengths, out, splits, HEADS: tl.constexpr, DIM: tl.constexpr, SPLIT: tl.constexpr
):
    row, head = tl.program_id(0), tl.program_id(1)
    length = tl.load(lengths + row).to(tl.int32)
    dims = tl.arange(0, DIM)
    pair = row.to(tl.int64) * HEADS + head
    acc = tl.zeros([DIM], tl.float32)
    top = float("-inf")
    total = 0.0
    for split in range(tl.cdiv(length, SPLIT)):
        at = pair * splits + split
        its_top = tl.load(tops + at)
        new_top = tl.maximum(top, its_top)
        shrink, its_shrink = tl.exp2(top - new_top), tl.exp2(its_top - new_top)
        acc = acc * shrink + tl.load(partial + at * DIM + dims) * its_shrink
        total = total * shrink + tl.load(totals + at) * its_shrink
        top = new_top
    tl.store(out + pair * DIM + dims, acc / total)


def decode(
    q: torch.Tensor,
    pool: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor,
    block_size: int,
    split_tokens: int = SPLIT_TOKENS,
) -> torch.Tensor:
    """Launch; see `kernels.decode`."""
    batch, heads, dim = q.shape
    kv_heads = pool.shape[2]
    assert_layout(q, pool, tables)
    splits = triton.cdiv(tables.shape[1] * block_size, split_tokens)
    out = torch.empty((batch, heads * dim), dtype=q.dtype, device=q.device)
    if batch == 0:
        return out
    partial, tops, totals = _partials(batch, heads, splits, dim, q.device)
    consts: dict[str, Any] = split_constants(heads, kv_heads, dim, block_size, q.dtype, split_tokens)
    strides = (q.stride(0), q.stride(1), tables.stride(0))
    attend_split[(batch, kv_heads, splits)](
        q, pool, tables, lengths, partial, tops, totals, *strides, splits, scale(dim), **consts, **SPLIT_OPTIONS
    )
    merge_splits[(batch, heads)](
        partial, tops, totals, lengths, out, splits, HEADS=heads, DIM=dim, SPLIT=split_tokens, **MERGE_OPTIONS
    )
    return out


def _partials(batch: int, heads: int, splits: int, dim: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    shapes = [(batch, heads, splits, dim), (batch, heads, splits), (batch, heads, splits)]
    return tuple(torch.empty(shape, dtype=torch.float32, device=device) for shape in shapes)
