"""Calls the launchers as the engine does, with a driver that compiles for sm_90 and launches nothing.

Prints, as JSON, how many variants of each kernel the calls compiled. For `test_kernels_aot.py`, in its own process.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from miniserve.engine import kernels
from miniserve.engine.kernels import kv_store, paged_decode, paged_prefill


class CompileOnly:
    """As much of a driver as a launch asks for before it compiles."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0


def main() -> None:
    plain = JITFunction.run

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        return plain(self, *args, grid=grid, warmup=True, **options)

    JITFunction.run = run
    driver.set_active(CompileOnly())
    pool = torch.zeros(64, 2, 3, 64, dtype=torch.float16)
    qkv = torch.zeros(33, (9 + 6) * 64, dtype=torch.float16)
    for rows in (1, 2, 16, 33):  # 1 and multiples of 16 are what Triton makes variants for
        q, numbers = qkv[:rows, : 9 * 64].view(rows, 9, 64), torch.ones(rows, dtype=torch.long)
        tables = torch.zeros(rows, rows, dtype=torch.long)
        kernels.store_kv(pool, qkv[:rows, 9 * 64 :], numbers)
        kernels.decode(q, pool, tables, numbers, 16)
        kernels.prefill(q, pool, tables, torch.arange(rows + 1), numbers, 16)
    compiled = (kv_store.store_rows, paged_decode.attend_split, paged_decode.merge_splits, paged_prefill.attend_chunks)
    print(json.dumps({f.__name__: sum(len(cache[0]) for cache in f.device_caches.values()) for f in compiled}))


if __name__ == "__main__":
    main()
