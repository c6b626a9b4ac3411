# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator,no-untyped-def"
# (Triton has no types and its own rules for annotations; it is absent outside Linux.)
"""KV store: one program copies one token's key and value into its slot.

A slot holds K and V of a token side by side, in the order in which the fused projection writes them, so a token is one
contiguous row in both places and the copy is coalesced.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

OPTIONS = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": True}


def constants(kv_heads: int, head_dim: int) -> dict[str, int]:
    """What the kernel is compiled for: a row's numbers, and the power of two that covers them."""
    numbers = 2 * kv_heads * head_dim
    return {"NUMBERS": numbers, "COVER": triton.next_power_of_2(numbers)}


@triton.jit
def store_rows(pool, kv, slots, kv_row, NUMBERS: tl.constexpr, COVER: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    i = tl.arange(0, COVER)
    numbers = tl.load(kv + row * kv_row + i, mask=i < NUMBERS)
    tl.store(pool + slot * NUMBERS + i, numbers, mask=i < NUMBERS)


def store_kv(pool: torch.Tensor, kv: torch.Tensor, slots: torch.Tensor) -> None:
    """Launch; see `kernels.store_kv`."""
    _, _, kv_heads, dim = pool.shape
    assert kv.shape == (len(slots), 2 * kv_heads * dim), (kv.shape, pool.shape, slots.shape)
    assert pool.is_contiguous()
    assert kv.stride(1) == 1
    if len(slots):
        store_rows[(len(slots),)](pool, kv, slots, kv.stride(0), **constants(kv_heads, dim), **OPTIONS)
