"""Triton's interpreter, mended in one place and stricter in two, for `kernel_worker.py`."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter


def run_programs_in_random_order(seed: int, times: int) -> None:
    """Make every launch run its programs `times` times, each time in another order. Seed 0 restores the plain order."""
    executor, builder = interpreter.GridExecutor, interpreter.interpreter_builder
    if not hasattr(executor, "plain_call"):
        executor.plain_call, builder.plain_set = executor.__call__, builder.set_grid_idx
    executor.__call__, builder.set_grid_idx = executor.plain_call, builder.plain_set
    if seed == 0:
        return
    rng = random.Random(seed)
    order: list[tuple[int, ...]] = []

    def set_grid_idx(*_: int) -> None:
        if not order:  # a new round
            sizes = builder.grid_dim
            order.extend((x, y, z) for x in range(sizes[0]) for y in range(sizes[1]) for z in range(sizes[2]))
            rng.shuffle(order)
        builder.plain_set(*order.pop())

    def call(self: Any, *args: Any, **kwargs: Any) -> None:
        for _ in range(times):
            executor.plain_call(self, *args, **kwargs)
            assert not order

    executor.__call__, builder.set_grid_idx = call, set_grid_idx


def mend_products() -> None:
    """Replace the interpreter's `dot`, which is NumPy's matrix product, by a plain sum over the inner dimension.

    NumPy's product goes to BLAS, where the last bits of a row depend on the CPU and on the row's place in the matrix: a
    test of last bits would be about BLAS and not about our kernels. And the interpreter keeps bfloat16 as 16-bit
    integers and multiplies those; they are converted first.
    """

    def create_dot(self: Any, a: Any, b: Any, d: Any, *_: Any) -> Any:
        left, right = (_widened(handle).data.astype(d.data.dtype) for handle in (a, b))
        product = np.zeros_like(d.data)
        for k in range(left.shape[-1]):
            product += left[..., :, k, None] * right[..., k, None, :]
        return interpreter.TensorHandle(product + d.data, d.dtype.scalar)

    interpreter.InterpreterBuilder.create_dot = create_dot


def _widened(handle: Any) -> Any:
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


def watch_memory() -> None:
    """Make every load and store outside the launch's tensors an error, and every load that returns NaN.

    The tests put NaN wherever a kernel has no business, so it need not reach a result to be found.
    """
    executor, builder = interpreter.GridExecutor, interpreter.InterpreterBuilder
    plain_load, plain_store = builder.create_masked_load, builder.create_masked_store
    plain_arguments = executor._init_args_hst
    extents: list[tuple[int, int]] = []

    def arguments(self: Any, args: Any, kwargs: Any) -> Any:
        extents[:] = [_extent(arg) for arg in (*args, *kwargs.values()) if isinstance(arg, torch.Tensor)]
        return plain_arguments(self, args, kwargs)

    def check(pointers: Any, mask: Any) -> None:
        used = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)]
        size = pointers.get_element_ty().primitive_bitwidth // 8
        inside = [(used >= first) & (used + size <= end) for first, end in extents]
        assert np.logical_or.reduce(inside).all(), "an address outside the launch's tensors"

    def load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        check(pointers, mask)
        loaded = plain_load(self, pointers, mask, *rest)
        if loaded.dtype.scalar.is_floating():
            real = _widened(loaded).data[np.broadcast_to(mask.data, loaded.data.shape)]
            assert not np.isnan(real).any(), "loaded a number that the kernel has no business with"
        return loaded

    def store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        check(pointers, mask)
        return plain_store(self, pointers, value, mask, *rest)

    executor._init_args_hst = arguments
    builder.create_masked_load, builder.create_masked_store = load, store


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the addresses from a tensor's first number to the end of its last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()
