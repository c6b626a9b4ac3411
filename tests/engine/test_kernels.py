"""The Triton kernels against float64: in the interpreter on a CPU, and with `-m gpu` the same cases on a device."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from miniserve.engine import kernels
from miniserve.errors import SetupError

BOUNDS = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2}  # |error| / max(1, |value|): some roundings of a number
BLOCK_SIZES = [4, 7, 8, 16, 32]
GROUPS = [(2, 2), (3, 1), (8, 2)]  # (query heads, KV heads): 1, 3 and 4 query heads share a KV head
SPLIT = 16


class Worker:
    """A process that runs the kernels; see `kernel_worker.py`."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self.process, self.errors = process, errors

    def run(self, kernel: str, **spec: Any) -> dict[str, Any]:
        """Return {"error": the largest deviation from float64, None if NaN; "rows": a digest of each row's bits}."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"kernel": kernel, **spec}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        assert line, f"the kernel process died: {self.errors.read_text(encoding='utf-8')}"
        result: dict[str, Any] = json.loads(line)
        assert "failure" not in result, result["failure"]
        assert result["error"] is not None, "NaN: something was read or left that must not be"
        return result


def start_worker(errors: Path, interpret: bool) -> Iterator[Worker]:
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "error", str(Path(__file__).with_name("kernel_worker.py"))]
    with (
        errors.open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            env=env | ({"TRITON_INTERPRET": "1"} if interpret else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        yield Worker(process, errors)
        assert process.stdin is not None
        process.stdin.close()  # it ends with its input


def skip_without_triton() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed; it has wheels for Linux only (pip install 'miniserve[gpu]')")


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """The kernels in Triton's interpreter."""
    skip_without_triton()
    yield from start_worker(tmp_path_factory.mktemp("kernels") / "interpreter.txt", interpret=True)


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """The kernels compiled, on this machine's GPU."""
    if reason := kernels.why_not("cuda"):
        pytest.skip(f"the kernels cannot run on a GPU here: {reason}")
    yield from start_worker(tmp_path_factory.mktemp("kernels") / "gpu.txt", interpret=False)


@pytest.fixture(params=["interpreter", pytest.param("gpu", marks=pytest.mark.gpu)])
def worker(request: pytest.FixtureRequest) -> Worker:
    found: Worker = request.getfixturevalue(request.param)
    return found


# --- results


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize(("heads", "kv_heads"), GROUPS)
def test_decode_of_ragged_contexts(worker: Worker, heads: int, kv_heads: int, block_size: int) -> None:
    borders = {1, block_size - 1, block_size, block_size + 1, 2 * block_size + 3}
    lengths = sorted(borders | {SPLIT - 1, SPLIT, SPLIT + 1, 2 * SPLIT + 1}, key=lambda n: n * 7 % 11)  # not in order
    result = worker.run(
        "decode", heads=heads, kv_heads=kv_heads, dim=16, block_size=block_size, lengths=lengths, split=SPLIT
    )
    assert result["error"] < BOUNDS["float32"]


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize(("heads", "kv_heads"), GROUPS)
def test_prefill_of_chunks_with_and_without_context(worker: Worker, heads: int, kv_heads: int, block_size: int) -> None:
    chunks = [(0, 1), (0, block_size), (block_size - 1, 2), (block_size, 1), (5, 19), (2 * block_size + 1, 4)]
    result = worker.run("prefill", heads=heads, kv_heads=kv_heads, dim=16, block_size=block_size, chunks=chunks)
    assert result["error"] < BOUNDS["float32"]


@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize("dim", [16, 64, 128])
def test_number_types_and_head_dimensions(worker: Worker, dtype: str, dim: int) -> None:
    shape: dict[str, Any] = {"heads": 3, "kv_heads": 1, "dim": dim, "block_size": 16, "dtype": dtype}
    assert worker.run("decode", **shape, lengths=[40, 5], split=32)["error"] < BOUNDS[dtype]
    assert worker.run("prefill", **shape, chunks=[(20, 9), (0, 3)])["error"] < BOUNDS[dtype]


def test_the_real_tiles_on_smollm2s_shape(worker: Worker) -> None:
    """The sizes that the engine launches with, not the small ones that make the other cases quick."""
    shape: dict[str, Any] = {"heads": 9, "kv_heads": 3, "dim": 64, "block_size": 16, "dtype": "float16"}
    decoded = worker.run("decode", **shape, lengths=[300, 256, 17], split=256)
    assert decoded["error"] < BOUNDS["float16"]
    prefilled = worker.run("prefill", **shape, chunks=[(40, 30), (0, 5)], tile=None)
    assert prefilled["error"] < BOUNDS["float16"]


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("dtype", list(BOUNDS))
def test_store_writes_its_slots_and_no_others(worker: Worker, block_size: int, dtype: str) -> None:
    """From strided float32 rows, as the cast is part of the copy. 3 * 16 * 2 numbers are no power of two."""
    worker.run("store", heads=3, kv_heads=3, dim=16, block_size=block_size, tokens=2 * block_size + 3, dtype=dtype)


def test_32_bit_indices_and_wide_tables(worker: Worker) -> None:
    shape: dict[str, Any] = {"heads": 3, "kv_heads": 1, "dim": 16, "block_size": 4, "index": "int32"}
    lengths = {"lengths": [1, 30, 9], "extra_columns": 20}
    assert worker.run("decode", **shape, **lengths)["error"] < BOUNDS["float32"]
    chunks = {"chunks": [(3, 9), (0, 2)], "extra_columns": 20, "tell_longest": False}
    assert worker.run("prefill", **shape, **chunks)["error"] < BOUNDS["float32"]


@pytest.mark.gpu
def test_a_pool_of_more_than_2_to_the_31_numbers(gpu: Worker) -> None:
    """4.6 GB, whose last blocks are used: an offset in 32 bits would fall before the pool."""
    shape: dict[str, Any] = {"heads": 8, "kv_heads": 8, "dim": 128, "block_size": 16, "dtype": "float16"}
    far = {"spare_blocks": 70_000, "last_blocks": True}
    assert gpu.run("decode", **shape, **far, lengths=[40, 5])["error"] < BOUNDS["float16"]
    assert gpu.run("prefill", **shape, **far, chunks=[(20, 9)])["error"] < BOUNDS["float16"]


# --- what a result may depend on

DECODE: dict[str, Any] = {"heads": 6, "kv_heads": 2, "dim": 16, "block_size": 7, "lengths": [40, 3, 17, 33, 1]}
PREFILL: dict[str, Any] = {"heads": 6, "kv_heads": 2, "dim": 16, "block_size": 7, "chunks": [(5, 19), (0, 7), (30, 2)]}


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_programs_does_not_matter(interpreter: Worker, seed: int) -> None:
    assert interpreter.run("decode", **DECODE, order=seed)["rows"] == interpreter.run("decode", **DECODE)["rows"]
    assert interpreter.run("prefill", **PREFILL, order=seed)["rows"] == interpreter.run("prefill", **PREFILL)["rows"]
    interpreter.run("store", heads=3, kv_heads=3, dim=16, block_size=7, tokens=23, order=seed)


def test_programs_may_run_twice(interpreter: Worker) -> None:
    twice = {"order": 5, "times": 2}
    assert interpreter.run("decode", **DECODE, **twice)["rows"] == interpreter.run("decode", **DECODE)["rows"]
    assert interpreter.run("prefill", **PREFILL, **twice)["rows"] == interpreter.run("prefill", **PREFILL)["rows"]
    interpreter.run("store", heads=3, kv_heads=3, dim=16, block_size=7, tokens=23, **twice)


def test_a_decode_row_does_not_depend_on_its_neighbours_in_the_last_bit(worker: Worker) -> None:
    together = worker.run("decode", **DECODE)["rows"]
    for rows in ([2], [4, 1], [3, 0]):
        assert worker.run("decode", **DECODE, only=rows)["rows"] == [together[row] for row in rows]


def test_a_prefill_row_does_not_depend_on_how_the_prompt_was_cut_in_the_last_bit(worker: Worker) -> None:
    whole = {**PREFILL, "chunks": [(4, 30)]}
    at_once = worker.run("prefill", **whole)["rows"]
    assert worker.run("prefill", **whole, cuts=[1, 7, 20])["rows"] == at_once


# --- whether they can run here


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda", "cuda:99", "no such device", ""])
def test_availability_never_raises(device: str) -> None:
    assert kernels.available(device) is (kernels.why_not(device) is None)
    if not torch.cuda.is_available():
        assert not kernels.available(device)


def test_without_a_gpu_the_refusal_says_what_to_use_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SetupError, match=r"finds no NVIDIA GPU.*choose auto or torch"):
        kernels.require("cuda")
    with pytest.raises(SetupError, match=r"NVIDIA GPU only, and the model is on cpu; choose auto or torch"):
        kernels.require("cpu")


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5) if device == "cuda:1" else (9, 0))


@pytest.mark.usefixtures("pretended_gpu")
def test_the_refusal_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match=r"compute capability 8\.0 or newer, and cuda:1 has 7\.5"):
        kernels.require("cuda:1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="Triton is not installed"):
        kernels.require("cuda")


@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize("dim", [8, 80, 256])
def test_a_head_dimension_that_no_kernel_has_is_refused(dim: int) -> None:
    skip_without_triton()
    kernels.require("cuda", head_dim=64)
    with pytest.raises(SetupError, match=f"head dimensions 16, 32, 64 and 128, and the model has {dim}"):
        kernels.require("cuda", head_dim=dim)


def test_the_package_imports_without_triton() -> None:
    program = (
        "import sys; sys.modules['triton'] = None\n"  # an import of it fails from here on
        "from miniserve.engine import kernels\n"
        "print(kernels.available('cuda'), kernels.available('cpu'))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["False", "False"]), done.stderr
