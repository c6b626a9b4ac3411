"""The Triton kernels: attention over paged keys and values on an NVIDIA GPU, and the copy that fills the pool.

    kv_store       a step's keys and values into their slots
    paged_decode   one query per sequence, its context split over programs (flash-decoding)
    paged_prefill  chunks of prompts, causal from wherever the cached context ends
    paged_tile     the tile of work that the two repeat

Triton is imported on the first call, never with this package: machines without it (macOS, Windows) can import this.

What is shown: the kernels' results in Triton's interpreter on a CPU, against float64; that they compile for sm_80 and
sm_90, with their registers, spills and shared memory (`python -m miniserve.engine.kernels.aot`). What is not
shown: **no GPU has run them yet**. Results and speed on a device are unproven, and tile sizes are chosen from the
compiler's report, not from timings. `pytest -m gpu tests/engine` runs the same cases on a machine with a GPU.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings

import torch

from miniserve.errors import SetupError

MIN_CAPABILITY = (8, 0)  # Ampere: the oldest that we compile for
HEAD_DIMS = (16, 32, 64, 128)  # a tile's side is a power of two; more than 128 would spill registers


def available(device: str) -> bool:
    """Whether the kernels can run on `device` (`"cuda"`, `"cuda:1"`). Never raises."""
    return why_not(device) is None


def require(device: str, head_dim: int | None = None) -> None:
    """Do nothing where the kernels can run (for a model with this head dimension, if it is told).

    Raises: SetupError that says what is missing and what to choose instead.
    """
    reason = why_not(device)
    if reason is None and head_dim not in (None, *HEAD_DIMS):
        reason = f"it has kernels for head dimensions 16, 32, 64 and 128, and the model has {head_dim}"
    if reason is not None:
        raise SetupError(f"attention backend triton cannot be used: {reason}; choose auto or torch instead")


def why_not(device: str) -> str | None:
    """Return why the kernels cannot run on `device`, or None if they can."""
    try:
        kind = torch.device(device).type
    except RuntimeError:
        return f"{device!r} is no device that torch knows"
    if kind != "cuda":
        return f"it runs on an NVIDIA GPU only, and the model is on {device}"
    with warnings.catch_warnings():  # torch warns about an absent or old driver; for us that is an answer
        warnings.simplefilter("ignore")
        reason = _why_not_gpu(device)
    return reason or _why_not_triton()


def _why_not_gpu(device: str) -> str | None:
    if not torch.cuda.is_available() or torch.version.cuda is None:
        return "torch finds no NVIDIA GPU (its build may be for CPUs only)"
    try:
        capability = torch.cuda.get_device_capability(device)
    except (RuntimeError, AssertionError) as error:  # an index past the last GPU; a driver that fails
        return f"torch cannot use {device} ({str(error).splitlines()[0]})"
    if capability < MIN_CAPABILITY:
        return f"it needs compute capability 8.0 or newer, and {device} has {capability[0]}.{capability[1]}"
    return None


def _why_not_triton() -> str | None:
    try:
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed (on Linux: pip install 'miniserve[gpu]')"
        importlib.import_module("triton")
    except Exception as error:  # a broken installation raises whatever it likes, and this must not
        return f"Triton cannot be imported ({type(error).__name__}: {error})"
    return None


# --- one layer's pool is [slots, 2, kv_heads, head_dim], contiguous; all tensors on one device. Floats are
# --- float32, float16 or bfloat16 (sums are float32), integers int32 or int64.


def store_kv(pool: torch.Tensor, kv: torch.Tensor, slots: torch.Tensor) -> None:
    """Write each token's key and value into its slot.

    Shapes: kv [T, 2 * kv_heads * head_dim], rows may be strided; slots [T], distinct. `kv` is cast to the pool's type.
    """
    from miniserve.engine.kernels import kv_store

    kv_store.store_kv(pool, kv, slots)


def decode(
    q: torch.Tensor, pool: torch.Tensor, tables: torch.Tensor, lengths: torch.Tensor, block_size: int
) -> torch.Tensor:
    """Attend with one query per sequence. No row's result depends on another row.

    Shapes: q [B, heads, head_dim], of the pool's type; tables [B, blocks] padded with any block number; lengths [B],
    the tokens that each row may see, at least 1; returns [B, heads * head_dim].
    """
    from miniserve.engine.kernels import paged_decode

    return paged_decode.decode(q, pool, tables, lengths, block_size)


def prefill(
    q: torch.Tensor,
    pool: torch.Tensor,
    tables: torch.Tensor,
    offsets: torch.Tensor,
    contexts: torch.Tensor,
    block_size: int,
    longest: int | None = None,
) -> torch.Tensor:
    """Attend with chunks of S sequences at once: query i of a chunk sits at position `context + i`.

    Shapes: q [T, heads, head_dim], of the pool's type, the chunks one after another; tables [S, blocks]; offsets
    [S + 1], chunk s is rows `[offsets[s], offsets[s + 1])`; contexts [S], the cached tokens before each chunk; returns
    [T, heads * head_dim]. The chunk's own K and V must be stored already. `longest` is the longest chunk's tokens where
    the caller knows it (it bounds the grid; T does otherwise, without waiting for the device).
    """
    from miniserve.engine.kernels import paged_prefill

    return paged_prefill.prefill(q, pool, tables, offsets, contexts, longest or len(q), block_size)
