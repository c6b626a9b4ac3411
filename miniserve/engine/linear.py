"""One door to matrix products: `make_linear(weight, quant)` returns a function x -> x @ weight.T.

Serving multiplies a few rows (one per sequence) by large matrices, so a step's time is the time to read the weights.
Ways to hold them:

    fp64  plain torch, the oracle of the tests
    fp32  packed once into oneDNN's blocked layout: exact, and 1.3-2x faster than `F.linear` at 1-16 rows on a CPU
    fp16  packed into fbgemm's layout: weights rounded to half precision, sums in fp32; half the bytes to read
    int8  a quarter of the bytes, and a loss that is small but there (`quantize.py`; its naive forms are for the table)

On a GPU fp16 is plain torch in half precision, activations and KV cache included (`fp16-plain` is that path on a CPU,
for tests). The packing operators are semi-private to torch (hence its exact pin). Where one is missing, the next
simpler way is taken. A row's result never depends on the rows beside it beyond the last bits of the sum (`int8-naive`
apart).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from miniserve.engine.quantize import Linear, int8_linear, int8_naive_linear, int8_row_linear
from miniserve.errors import SetupError
from miniserve.models.values import FP16_MAX

QUANTS = ("fp16", "fp32", "int8")  # what is served
_ALL_QUANTS = (*QUANTS, "fp64", "fp16-plain", "int8-row", "int8-naive")  # and what is measured or tested against


def weight_dtype(quant: str, device: str = "cpu") -> torch.dtype:
    """Return the dtype of activations and of the KV cache for `quant`: on a CPU fp16 means weights only.

    Raises: SetupError for an unknown kind.
    """
    if quant not in _ALL_QUANTS:
        raise SetupError(f"unknown precision {quant!r}: choose one of {', '.join(QUANTS)}")
    if quant == "fp16-plain" or (quant == "fp16" and device != "cpu"):
        return torch.float16
    return torch.float64 if quant == "fp64" else torch.float32


def make_linear(weight: torch.Tensor, quant: str) -> Linear:
    """Pack `weight` [out, in] and return the product with it, [rows, in] -> [rows, out]."""
    if quant.startswith("int8"):
        return _quantized(weight, quant)
    fits = quant == "fp16" and float(weight.abs().max()) <= FP16_MAX  # what half precision cannot hold stays in fp32
    if weight.device.type == "cpu" and fits and _has_fbgemm():
        return _packed_fp16(weight)
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and _has_onednn():
        return _packed_fp32(weight)
    return lambda x: F.linear(x, weight)


def _has_fbgemm() -> bool:
    return "fbgemm" in torch.backends.quantized.supported_engines


def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def _quantized(weight: torch.Tensor, quant: str) -> Linear:
    if weight.device.type != "cpu" or not _has_fbgemm():
        raise SetupError(f"{quant} needs an x86 CPU with torch's fbgemm engine; use fp16 or fp32 instead")
    ways = {"int8": int8_linear, "int8-row": int8_row_linear, "int8-naive": int8_naive_linear}
    return ways[quant](weight)


_PIECE_ROWS = 8192  # fbgemm reads a matrix in strides while packing: the head takes half the time in such pieces


def _packed_fp16(weight: torch.Tensor) -> Linear:
    torch.backends.quantized.engine = "fbgemm"
    pack, multiply = torch.ops.quantized.linear_prepack_fp16, torch.ops.quantized.linear_dynamic_fp16
    pieces = [pack(rows, None) for rows in torch.split(weight, _PIECE_ROWS)]
    if len(pieces) == 1:
        return lambda x: multiply(x, pieces[0])
    return lambda x: torch.cat([multiply(x, piece) for piece in pieces], dim=-1)


def _packed_fp32(weight: torch.Tensor) -> Linear:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, packed, None, "none", [], None)
