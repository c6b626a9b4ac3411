"""One door to matrix products: `make_linear(weight, quant)` returns a function x -> x @ weight.T.

Serving multiplies a few rows (one per sequence) by large matrices, so a step's time is the time to read the weights.
Three ways to hold them, measured side by side by `python -m miniserve bench linear`:

    fp64  plain torch, the oracle of the tests
    fp32  packed once into oneDNN's blocked layout: exact, and 1.3-2x faster than `F.linear` at 1-16 rows on a CPU
    fp16  packed into fbgemm's layout: weights rounded to half precision, sums in fp32; half the bytes to read, so up to
          3x faster at few rows; rounding moves SmolLM2's logits by at most 0.05

The packing operators are semi-private to torch (hence its exact pin). Where one is missing, the next simpler way is
taken. A row's result never depends on the rows beside it beyond the last bits of the sum.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from miniserve.errors import SetupError

Linear = Callable[[torch.Tensor], torch.Tensor]

QUANTS = ("fp16", "fp32", "fp64")


def weight_dtype(quant: str) -> torch.dtype:
    """Return the dtype of activations and of the KV cache for `quant`.

    Raises: SetupError for an unknown kind.
    """
    if quant not in QUANTS:
        raise SetupError(f"unknown precision {quant!r}: choose one of {', '.join(QUANTS)}")
    return torch.float64 if quant == "fp64" else torch.float32


def make_linear(weight: torch.Tensor, quant: str) -> Linear:
    """Pack `weight` [out, in] and return the product with it, [rows, in] -> [rows, out]."""
    if weight.device.type == "cpu" and quant == "fp16" and _can_pack_fp16():
        return _packed_fp16(weight)
    if weight.device.type == "cpu" and quant != "fp64" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return _packed_fp32(weight)
    return lambda x: F.linear(x, weight)


def _can_pack_fp16() -> bool:
    return "fbgemm" in torch.backends.quantized.supported_engines


def _packed_fp16(weight: torch.Tensor) -> Linear:
    torch.backends.quantized.engine = "fbgemm"
    packed = torch.ops.quantized.linear_prepack_fp16(weight, None)
    multiply = torch.ops.quantized.linear_dynamic_fp16
    return lambda x: multiply(x, packed)


def _packed_fp32(weight: torch.Tensor) -> Linear:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, packed, None, "none", [], None)
