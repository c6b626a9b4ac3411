"""Paged decode attention for CPUs: walk the block table where the keys lie, copy nothing.

The torch path (`attention.py`) first gathers every sequence's blocks into one padded tensor; that copy alone costs as
much as the attention, and padding grows with the longest sequence. Here each (sequence, KV head) is one loop, the same
shape as the Triton kernel's program:

    for each token j of the context:  slot = table[j // block_size] * block_size + j % block_size
        pass 1   score[g, j] = q[g] . K[slot]          pass 2   out[g] += softmax(score)[g, j] * V[slot]

for the `g` query heads that share the KV head, so each K and V row is read once. A row's result depends on no other
row, to the last bit.

Compiled by numba at first use (some seconds, then cached on disk). Without numba the torch path serves.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch

try:
    numba: Any = importlib.import_module("numba")
except ImportError:  # an optional speed-up; `available` says so
    numba = None


def available() -> bool:
    """Whether numba is installed."""
    return numba is not None


def set_threads(threads: int) -> None:
    """Bound numba's own thread pool; it is not torch's, and together they must not outnumber the cores."""
    if numba is not None:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


def decode(
    q: torch.Tensor, pool: torch.Tensor, tables: torch.Tensor, lengths: torch.Tensor, block_size: int
) -> torch.Tensor:
    """Attend with one query per sequence.

    Shapes: q [B, heads, dim]; pool [slots, 2, kv_heads, dim]; tables [B, blocks] int64; lengths [B] int64, the tokens
    each row may see; returns [B, heads * dim].
    """
    q = q.contiguous()  # numba compiles once more for strided rows, and that version rounds differently
    out = np.empty(q.shape, dtype=_NUMPY[q.dtype])
    _kernel(q.numpy(), pool.numpy(), tables.numpy(), lengths.numpy(), block_size, out)
    return torch.from_numpy(out).view(q.shape[0], -1)


_NUMPY: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}


def _decode_loops(q: Any, pool: Any, tables: Any, lengths: Any, block_size: int, out: Any) -> None:
    batch, heads, dim = q.shape
    kv_heads = pool.shape[2]
    group = heads // kv_heads
    scale = q.dtype.type(1.0 / np.sqrt(dim))
    for task in numba.prange(batch * kv_heads):
        row, kv_head = task // kv_heads, task % kv_heads
        length = lengths[row]
        first = kv_head * group
        scores = np.empty((group, length), q.dtype)
        for start in range(0, length, block_size):
            slot = tables[row, start // block_size] * block_size
            for j in range(min(block_size, length - start)):
                key = pool[slot + j, 0, kv_head]
                for g in range(group):
                    query = q[row, first + g]
                    total = q.dtype.type(0)
                    for d in range(dim):
                        total += query[d] * key[d]
                    scores[g, start + j] = total * scale
        for g in range(group):
            top = scores[g].max()
            total = q.dtype.type(0)
            for j in range(length):
                scores[g, j] = np.exp(scores[g, j] - top)
                total += scores[g, j]
            for j in range(length):
                scores[g, j] /= total
        acc = np.zeros((group, dim), q.dtype)
        for start in range(0, length, block_size):
            slot = tables[row, start // block_size] * block_size
            for j in range(min(block_size, length - start)):
                value = pool[slot + j, 1, kv_head]
                for g in range(group):
                    weight = scores[g, start + j]
                    for d in range(dim):
                        acc[g, d] += weight * value[d]
        out[row, first : first + group] = acc


# fastmath lets the sums be vectorised; without it a dot product is one long chain of additions.
_kernel: Any = None if numba is None else numba.njit(parallel=True, fastmath=True, cache=True)(_decode_loops)
