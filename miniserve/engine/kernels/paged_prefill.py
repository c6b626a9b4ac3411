# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator,no-untyped-def"
# (Triton has no types and its own rules for annotations; it is absent outside Linux.)
"""Prefill: chunks of several sequences, each causal from wherever its cached context ends, in one launch.

    program (tile, KV head, sequence);  a tile's ROWS rows are (query, head of the group) pairs, query major:

        row r of a sequence = query r // GROUP, head r % GROUP;  query i sits at position context + i

so a tile is full whatever the group's size, and each K and V row is read once for the group. Tiles of positions start
at 0 in every chunk: a row's result is the same however the prompt was cut into chunks.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from miniserve.engine.kernels.paged_tile import assert_layout, attend_tile, scale

OPTIONS = {"num_warps": 4, "num_stages": 3, "enable_fp_fusion": True}


def constants(
    heads: int, kv_heads: int, head_dim: int, block_size: int, dtype: torch.dtype, tile: int | None = None
) -> dict[str, int]:
    """What the kernel is compiled for. `tile` (a power of two, at least 16) replaces both sides of the score tile."""
    single = dtype == torch.float32  # no tensor cores; larger tiles than these spill registers (see `aot.py`)
    return {
        "BLOCK_SIZE": block_size,
        "KV_HEADS": kv_heads,
        "GROUP": heads // kv_heads,
        "ROWS": tile or (32 if single else 64),
        "DIM": head_dim,
        "TILE": tile or (16 if single and head_dim > 64 else 32),
    }


@triton.jit(do_not_specialize=["table_row"])
def attend_chunks(
    q,
    pool,
    tables,
    offsets,
    contexts,
    out,
    q_row,
    q_head,
    table_row,
    scale,
    BLOCK_SIZE: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    TILE: tl.constexpr,
):
    first_row, kv_head, seq = tl.program_id(0) * ROWS, tl.program_id(1), tl.program_id(2)
    offset = tl.load(offsets + seq).to(tl.int32)
    num_queries = tl.load(offsets + seq + 1).to(tl.int32) - offset
    if first_row >= num_queries * GROUP:
        return
    context = tl.load(contexts + seq).to(tl.int32)
    row = first_row + tl.arange(0, ROWS)
    query, head = row // GROUP, kv_head * GROUP + row % GROUP
    real = query < num_queries
    dims = tl.arange(0, DIM)
    token = (offset + query).to(tl.int64)
    queries = tl.load(
        q + token[:, None] * q_row + head[:, None] * q_head + dims[None, :], mask=real[:, None], other=0.0
    )
    acc = tl.zeros([ROWS, DIM], tl.float32)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    last = context + query
    end = context + tl.minimum((first_row + ROWS - 1) // GROUP + 1, num_queries)
    table = tables + seq.to(tl.int64) * table_row
    for first in range(0, end, TILE):
        acc, top, total = attend_tile(
            queries, acc, top, total, pool, table, kv_head, first, end, last, scale, BLOCK_SIZE, KV_HEADS, DIM, TILE
        )
    at = (token * (KV_HEADS * GROUP) + head) * DIM
    tl.store(out + at[:, None] + dims[None, :], acc / total[:, None], mask=real[:, None])


def prefill(
    q: torch.Tensor,
    pool: torch.Tensor,
    tables: torch.Tensor,
    offsets: torch.Tensor,
    contexts: torch.Tensor,
    longest: int,
    block_size: int,
    tile: int | None = None,
) -> torch.Tensor:
    """Launch; see `kernels.prefill`."""
    rows, heads, dim = q.shape
    kv_heads = pool.shape[2]
    assert_layout(q, pool, tables)
    out = torch.empty((rows, heads * dim), dtype=q.dtype, device=q.device)
    if rows == 0:
        return out
    consts: dict[str, Any] = constants(heads, kv_heads, dim, block_size, q.dtype, tile)
    grid = (triton.cdiv(longest * consts["GROUP"], consts["ROWS"]), kv_heads, len(contexts))
    strides = (q.stride(0), q.stride(1), tables.stride(0))
    attend_chunks[grid](q, pool, tables, offsets, contexts, out, *strides, scale(dim), **consts, **OPTIONS)
    return out
