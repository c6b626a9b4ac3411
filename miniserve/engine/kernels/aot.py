# mypy: disable-error-code="import-untyped,import-not-found"
# (Triton has no types; it is absent outside Linux.)
"""Compile the Triton kernels ahead of time, without a GPU, and report what the compiler made of them.

    python -m miniserve.engine.kernels.aot            SmolLM2's shape: 9 heads, 3 KV heads, head dimension 64
    python -m miniserve.engine.kernels.aot --heads 32 --kv-heads 8 --head-dim 128 --json

For each kernel, GPU generation and number type: registers per thread (255 at most), bytes spilled from registers to
memory (0 is the aim: a spill is slow), shared memory per program, and whether the products run on tensor cores. The
numbers are the assembler's own (`ptxas -v`, inside Triton's wheel). They say that a kernel can be built, not that its
results are right: for that see `tests/engine/test_kernels.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from miniserve.errors import SetupError

CAPABILITIES = (80, 90)  # A100, H100
DTYPES = (torch.float16, torch.float32)
_NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}

# The arguments of all kernels by name; `*` is a pointer, `T` the type of q and the pool.
_TYPES = {
    **dict.fromkeys(("q", "pool", "kv", "out"), "*T"),
    **dict.fromkeys(("partial", "tops", "totals"), "*fp32"),
    **dict.fromkeys(("tables", "lengths", "slots", "offsets", "contexts"), "*i64"),
    **dict.fromkeys(("q_row", "q_head", "kv_row", "table_row", "splits"), "i32"),
    "scale": "fp32",
}
_ANY_NUMBER = ("table_row", "splits", "scale")  # of the others the launch knows that they are divisible by 16


@dataclass(frozen=True, slots=True)
class KernelShape:
    """The attention of one model, and the pool's block size."""

    heads: int = 9
    kv_heads: int = 3
    head_dim: int = 64
    block_size: int = 16


@dataclass(frozen=True, slots=True)
class Build:
    """A kernel and what it is compiled for."""

    kernel: Any
    constants: dict[str, int]
    options: dict[str, Any]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Resources:
    """What one compiled kernel needs. Registers are per thread, shared memory per program, spills per thread."""

    kernel: str
    capability: int
    dtype: str
    warps: int
    registers: int
    spill_store_bytes: int
    spill_load_bytes: int
    stack_bytes: int
    shared_bytes: int
    tensor_cores: bool


def builds(shape: KernelShape, dtype: torch.dtype) -> Iterator[Build]:
    """Yield the kernels as the launchers would compile them for `shape`."""
    from miniserve.engine.kernels import kv_store, paged_decode, paged_prefill

    model = (shape.heads, shape.kv_heads, shape.head_dim, shape.block_size, dtype)
    split = paged_decode.split_constants(*model)
    merge = {"HEADS": shape.heads, "DIM": shape.head_dim, "SPLIT": split["SPLIT"]}
    yield Build(kv_store.store_rows, kv_store.constants(shape.kv_heads, shape.head_dim), kv_store.OPTIONS, dtype)
    yield Build(paged_decode.attend_split, split, paged_decode.SPLIT_OPTIONS, dtype)
    yield Build(paged_decode.merge_splits, merge, paged_decode.MERGE_OPTIONS, dtype)
    yield Build(paged_prefill.attend_chunks, paged_prefill.constants(*model), paged_prefill.OPTIONS, dtype)


def compile_for(build: Build, capability: int) -> Resources:
    """Compile one kernel for one GPU generation (80 = sm_80) and read the assembler's log."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = build.kernel.arg_names
    signature = {name: _type(name, build) for name in names}
    aligned = [i for i, name in enumerate(names) if name not in build.constants and name not in _ANY_NUMBER]
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned}
    source = ASTSource(build.kernel, signature, build.constants, attributes)
    log = io.StringIO()
    with tempfile.TemporaryDirectory() as cache, triton.knobs.cache.scope(), triton.knobs.nvidia.scope():
        triton.knobs.cache.dir = cache  # an empty one, so that the assembler really runs
        triton.knobs.nvidia.dump_ptxas_log = True
        with contextlib.redirect_stdout(log):
            compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(build.options))
    return _usage(build, capability, compiled, log.getvalue())


def _type(name: str, build: Build) -> str:
    return "constexpr" if name in build.constants else _TYPES[name].replace("T", _NAMES[build.dtype])


def _usage(build: Build, capability: int, compiled: Any, log: str) -> Resources:
    return Resources(
        kernel=build.kernel.__name__,
        capability=capability,
        dtype=_NAMES[build.dtype],
        warps=compiled.metadata.num_warps,
        registers=_number(r"Used (\d+) registers", log),
        spill_store_bytes=_number(r"(\d+) bytes spill stores", log),
        spill_load_bytes=_number(r"(\d+) bytes spill loads", log),
        stack_bytes=_number(r"(\d+) bytes stack frame", log),
        shared_bytes=compiled.metadata.shared,
        tensor_cores="mma" in compiled.asm["ptx"],  # mma.sync on sm_80, wgmma or mma.sync on sm_90
    )


def _number(pattern: str, log: str) -> int:
    found = re.search(pattern, log)
    assert found, f"the assembler's log has no {pattern!r}: {log!r}"
    return int(found.group(1))


def report(shape: KernelShape, dtypes: Sequence[torch.dtype] = DTYPES) -> list[Resources]:
    """Compile every kernel for every GPU generation.

    Raises: SetupError without Triton.
    """
    if importlib.util.find_spec("triton") is None:
        raise SetupError("Triton is not installed; on Linux: pip install 'miniserve[gpu]' (it has no other wheels)")
    return [
        compile_for(build, capability)
        for dtype in dtypes
        for build in builds(shape, dtype)
        for capability in CAPABILITIES
    ]


def report_table(usages: Sequence[Resources]) -> str:
    """Return the report as lines of text."""
    lines = ["kernel         GPU    type  warps  registers  spilled bytes  shared bytes  tensor cores"]
    for u in usages:
        spilled, cores = u.spill_store_bytes + u.spill_load_bytes, "yes" if u.tensor_cores else "no"
        lines.append(
            f"{u.kernel:<14} sm_{u.capability}  {u.dtype}  {u.warps:>5}  {u.registers:>9}"
            f"  {spilled:>13}  {u.shared_bytes:>12}  {cores:>12}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(
        prog="python -m miniserve.engine.kernels.aot", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--kv-heads", type=int, default=3)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(arguments)
    try:
        usages = report(KernelShape(args.heads, args.kv_heads, args.head_dim, args.block_size))
    except SetupError as error:
        print(f"miniserve: {error}", file=sys.stderr)
        return 2
    print(json.dumps([asdict(usage) for usage in usages]) if args.json else report_table(usages))
    return 0


if __name__ == "__main__":
    sys.exit(main())
