# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator,no-untyped-def"
# (Triton has no types and its own rules for annotations; it is absent outside Linux.)
"""One tile of attention over paged memory: the step that decode and prefill repeat.

    positions p .. p+TILE of one sequence  --block table-->  slots  -->  K and V rows of one KV head
    scores = q . K * scale;   the running softmax takes them in;   out += weights . V

The softmax is online: `top` is the largest score so far (in powers of two), `total` the sum of weights relative to it,
`acc` the weighted sum of V relative to it; a larger score later rescales what was there. Nothing outside the sequence
is ever loaded, so memory that other sequences or nobody uses may hold anything, even NaN.

Source: Milakov and Gimelshein 2018 (arXiv:1805.02867); Dao et al. 2022 (arXiv:2205.14135) for the tiles; Kwon et al.
2023 (arXiv:2309.06180) for paged memory.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl


@triton.jit
def attend_tile(
    q,  # [ROWS, DIM]
    acc,  # [ROWS, DIM] float32
    top,  # [ROWS] float32, -inf at the start
    total,  # [ROWS] float32
    pool,  # [slots, 2, KV_HEADS, DIM]
    table,  # this sequence's block numbers
    kv_head,
    first,  # the tile's first position
    end,  # positions from here on are not loaded
    last,  # [ROWS] the last position that each row may see
    scale,  # of the scores, times log2(e)
    BLOCK_SIZE: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    TILE: tl.constexpr,
):
    """Take positions `[first, min(first + TILE, end))` in; return the new (acc, top, total).

    Every row must see a position of its first tile, or `top` stays -inf and the rescaling is NaN.
    """
    position = first + tl.arange(0, TILE)
    exists = position < end
    block = tl.load(table + position // BLOCK_SIZE, mask=exists, other=0)
    slot = block.to(tl.int64) * BLOCK_SIZE + position % BLOCK_SIZE  # 64 bits: a pool may have more than 2^31 numbers
    dims = tl.arange(0, DIM)
    key_at = pool + slot[:, None] * (2 * KV_HEADS * DIM) + kv_head * DIM + dims[None, :]
    key = tl.load(key_at, mask=exists[:, None], other=0.0)  # [TILE, DIM]
    value = tl.load(key_at + KV_HEADS * DIM, mask=exists[:, None], other=0.0)

    scores = tl.dot(q, tl.trans(key), input_precision="ieee") * scale  # [ROWS, TILE]
    seen = exists[None, :] & (position[None, :] <= last[:, None])
    scores = tl.where(seen, scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, 1))
    weights = tl.exp2(scores - new_top[:, None])
    shrink = tl.exp2(top - new_top)
    acc = acc * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
    return acc, new_top, total * shrink + tl.sum(weights, 1)


def scale(head_dim: int) -> float:
    """Return 1 / sqrt(head_dim) in base 2: the kernels use 2^x, which is one instruction, for e^x."""
    return math.log2(math.e) / math.sqrt(head_dim)


def assert_layout(q: torch.Tensor, pool: torch.Tensor, tables: torch.Tensor) -> None:
    """What the pointer arithmetic takes for granted."""
    assert pool.is_contiguous()
    assert q.stride(2) == 1
    assert tables.stride(1) == 1
    assert q.dtype == pool.dtype, (q.dtype, pool.dtype)
    assert q.shape[1] % pool.shape[2] == 0, (q.shape, pool.shape)
