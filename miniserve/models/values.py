"""What is in the weight files, beyond their headers: numbers that are none, numbers too large, a head of its own.

Reads every weight once, through the page cache, without torch; whatever loads the model next finds the pages there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from miniserve.errors import WeightsError
from miniserve.models.folder import EMBEDDING, HEAD, TensorEntry, check_folder, read_tensors
from miniserve.models.model_config import ModelConfig

FP16_MAX = 65504.0
_CHUNK = 1 << 16  # weights looked at together: they fit into the cache

# How a float's bits are laid out: their type, the bits of the magnitude, and the smallest that is infinite.
_BITS = {
    "F32": (np.uint32, 0x7FFFFFFF, 0x7F800000),
    "F16": (np.uint16, 0x7FFF, 0x7C00),
    "BF16": (np.uint16, 0x7FFF, 0x7F80),
}


def check_stored_model(folder: Path) -> tuple[ModelConfig, dict[str, float]]:
    """Check a model folder, weights included; return its configuration and the largest magnitude in each tensor.

    A head that the configuration ties to the embedding, but that the file holds with other numbers, is a head of its
    own, as in transformers.
    Raises: WeightsError naming the first file, tensor or key that is wrong.
    """
    config = check_folder(folder)
    largest = largest_values(folder)
    if config.tie_embeddings and HEAD in largest and not equal_tensors(folder, EMBEDDING, HEAD):
        config = replace(config, tie_embeddings=False)
    return config, largest


def largest_values(folder: Path) -> dict[str, float]:
    """Return the largest magnitude in each tensor of a model folder.

    Raises: WeightsError naming a tensor that holds nan or an infinity.
    """
    return {name: _largest(folder, name, entry) for name, entry in read_tensors(folder).items()}


def check_fits_fp16(folder: Path, largest: dict[str, float]) -> None:
    """Raises: WeightsError naming a tensor with a weight that half precision cannot hold."""
    for name, value in largest.items():
        if value > FP16_MAX:
            raise WeightsError(f"{folder}: {name} holds {value:g}, more than fp16 can ({FP16_MAX:g}); use --quant fp32")


def equal_tensors(folder: Path, first: str, second: str) -> bool:
    """Return whether two tensors of a folder hold the same numbers."""
    entries = read_tensors(folder)
    one, other = entries[first], entries[second]
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    pairs = zip(_pieces(folder, one), _pieces(folder, other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def _largest(folder: Path, name: str, entry: TensorEntry) -> float:
    # The bits of a magnitude are ordered as the magnitudes are, with infinity and then nan above all numbers.
    _, mask, infinite = _BITS[entry.dtype]
    largest = max((int((piece & mask).max()) for piece in _pieces(folder, entry)), default=0)
    if largest >= infinite:
        what = "an infinity" if largest == infinite else "nan (not a number)"
        raise WeightsError(
            f"{folder / entry.file}: tensor {name} holds {what}: the file is damaged, or its training failed"
        )
    return _value(entry.dtype, largest)


def _pieces(folder: Path, entry: TensorEntry) -> Iterator[NDArray[np.unsignedinteger]]:
    """Yield the bits of a tensor, piece by piece."""
    kind = _BITS[entry.dtype][0]
    values = (
        np.memmap(folder / entry.file, kind, "r", offset=entry.start, shape=(entry.size,))
        if entry.size
        else np.empty(0, kind)
    )
    for start in range(0, entry.size, _CHUNK):
        yield values[start : start + _CHUNK]


def _value(dtype: str, bits: int) -> float:
    if dtype == "F16":
        return float(struct.unpack("<e", struct.pack("<H", bits))[0])
    return float(struct.unpack("<f", struct.pack("<I", bits << 16 if dtype == "BF16" else bits))[0])
