"""Weights in 8 bits: how to lose little, and how not to make a row pay for its neighbours.

A product in integers needs both sides on a grid. Weights are easy: one step size per output row, and they are known in
advance. Activations are not: a few columns are up to 2,500 times larger than the rest (in SmolLM2, the input of
`down_proj` in layer 11), and a grid that reaches them is too coarse for everything else. Three ways, from naive to
mended:

    int8-naive   one step size for the whole batch. Coarse, and a row's answer changes when a neighbour has an outlier
    int8-row     each row is scaled by its own largest value: no neighbour matters, but outliers still cost the rest
    int8         each row is written as two numbers per value, hi + lo: round to the grid, then put what rounding lost
                 on a second grid that is as many times finer as the first has levels. Both go through the same
                 product as rows of one batch, so the weights, which are what takes time to read, are read once

Torch's dynamic product chooses the grid from the batch's minimum and maximum. A last row holding +1 and -1 fixes it at
[-1, 1] whatever the others hold; with exact integer sums, a row then gets the same bits in any batch.

The measured table (speed, memory, perplexity, agreement) is printed by `python -m miniserve bench quant`.
Source: LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339) for the outliers.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

import torch

Linear = Callable[[torch.Tensor], torch.Tensor]

_LEVELS = 127  # steps of the activation grid on [-1, 1]: 7 bits, since 8 overflow 16-bit sums on CPUs without VNNI
_MARGIN = 1.01  # the grid has no point at +1 itself; without this the largest value of a row is clipped by 0.8 %


def pack_int8(weight: torch.Tensor) -> torch.Tensor:
    """Return `weight` [out, in] as int8 with one step size per output row, packed for fbgemm."""
    torch.backends.quantized.engine = "fbgemm"
    steps = weight.abs().amax(1).double().clamp_min(1e-12) / 127
    packed: torch.Tensor = torch.ops.quantized.linear_prepack(_to_int8(weight, steps), None)
    return packed


_warnings_lock = threading.Lock()  # layers are packed in several threads, and warning filters belong to the process


def _to_int8(weight: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    with _warnings_lock, warnings.catch_warnings():
        # torch moves quantization to a package of its own; the pinned version still has the operators.
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor")
        return torch.quantize_per_channel(weight, steps, torch.zeros(len(steps), dtype=torch.long), 0, torch.qint8)


def int8_linear(weight: torch.Tensor) -> Linear:
    """Two grids per row: the one that serves."""
    packed, ends = pack_int8(weight), _ends(weight.shape[1])

    def multiply(x: torch.Tensor) -> torch.Tensor:
        largest = x.abs().amax(1, keepdim=True).clamp_min(1e-12) * _MARGIN
        scaled = x / largest  # inside (-1, 1)
        hi = (scaled * (_LEVELS / 2)).round() * (2 / _LEVELS)
        lo = (scaled - hi) * (_LEVELS / _MARGIN)  # what rounding lost, at most half a step, blown up to (-1, 1)
        product = torch.ops.quantized.linear_dynamic(torch.cat([hi, lo, ends]), packed, True)
        rows = len(x)
        out: torch.Tensor = (product[:rows] + product[rows : 2 * rows] * (_MARGIN / _LEVELS)) * largest
        return out

    return multiply


def int8_row_linear(weight: torch.Tensor) -> Linear:
    """One grid per row: shown in the table, not served."""
    packed, ends = pack_int8(weight), _ends(weight.shape[1])

    def multiply(x: torch.Tensor) -> torch.Tensor:
        largest = x.abs().amax(1, keepdim=True).clamp_min(1e-12) * _MARGIN
        product: torch.Tensor = torch.ops.quantized.linear_dynamic(torch.cat([x / largest, ends]), packed, True)
        return product[:-1] * largest

    return multiply


def int8_naive_linear(weight: torch.Tensor) -> Linear:
    """One grid per batch, as torch does it by default: shown in the table, not served."""
    packed = pack_int8(weight)
    return lambda x: torch.ops.quantized.linear_dynamic(x, packed, True)


def _ends(width: int) -> torch.Tensor:
    """Return the row that pins the grid to [-1, 1]."""
    ends = torch.zeros(1, width)
    ends[0, 0], ends[0, -1] = 1.0, -1.0
    return ends
