"""Every kernel compiles for sm_80 and sm_90 without a GPU, and keeps its numbers in registers."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from miniserve.engine.kernels import aot

KERNELS = ["store_rows", "attend_split", "merge_splits", "attend_chunks"]
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}  # bytes per block, CUDA C++ Programming Guide


def skip_without_triton() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed; it has wheels for Linux only (pip install 'miniserve[gpu]')")


def run_python(arguments: list[str], triton_home: Path) -> subprocess.CompletedProcess[str]:
    """Run a process of its own: an interpreted kernel cannot be compiled, and warnings are errors there too."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    env |= {"TRITON_HOME": str(triton_home)}
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def usages(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, int], aot.Resources]:
    """The report by (kernel, type, capability), from the command itself."""
    skip_without_triton()
    home = tmp_path_factory.mktemp("triton")
    done = run_python(["-m", "miniserve.engine.kernels.aot", "--json"], home)
    assert done.stderr == ""
    assert not list(home.rglob("*.cubin")), "the report must use a cache of its own"
    rows = [aot.Resources(**row) for row in json.loads(done.stdout)]
    return {(row.kernel, row.dtype, row.capability): row for row in rows}


def test_every_kernel_is_built_for_every_gpu_and_type(usages: dict[tuple[str, str, int], aot.Resources]) -> None:
    assert usages.keys() == {(k, t, c) for k in KERNELS for t in ("fp16", "fp32") for c in (80, 90)}


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_spills(
    usages: dict[tuple[str, str, int], aot.Resources], kernel: str, dtype: str, capability: int
) -> None:
    usage = usages[kernel, dtype, capability]
    assert (usage.spill_store_bytes, usage.spill_load_bytes, usage.stack_bytes) == (0, 0, 0)
    assert 0 < usage.registers < 255  # 255 is the limit: a kernel that meets it is about to spill
    assert usage.shared_bytes <= SHARED_LIMIT[capability] // 2  # two programs fit beside each other


def test_half_precision_attention_runs_on_tensor_cores(usages: dict[tuple[str, str, int], aot.Resources]) -> None:
    """Single precision must not: tensor cores would round its inputs to TF32."""
    for kernel in ("attend_split", "attend_chunks"):
        for capability in (80, 90):
            assert usages[kernel, "fp16", capability].tensor_cores
            assert not usages[kernel, "fp32", capability].tensor_cores


def test_a_spill_would_be_seen(tmp_path: Path) -> None:
    """The report of a kernel that is forced into too few registers: the assembler's log is really read."""
    skip_without_triton()
    program = (
        "import torch; from dataclasses import replace; from miniserve.engine.kernels import aot\n"
        "build = [b for b in aot.builds(aot.KernelShape(), torch.float16) if b.kernel.__name__ == 'attend_chunks'][0]\n"
        "usage = aot.compile_for(replace(build, options={**build.options, 'maxnreg': 32}), 80)\n"
        "print(usage.registers, usage.spill_store_bytes)"
    )
    done = run_python(["-c", program], tmp_path)
    registers, spilled = map(int, done.stdout.split())
    assert registers <= 32
    assert spilled > 0


def test_the_launches_compile_and_no_batch_or_table_size_compiles_them_again(tmp_path: Path) -> None:
    """A compile in the middle of serving would stall every stream for a second."""
    skip_without_triton()
    done = run_python([str(Path(__file__).with_name("kernel_launches.py"))], tmp_path)
    assert json.loads(done.stdout) == dict.fromkeys(KERNELS, 1)


def test_the_table_has_a_line_for_each_build() -> None:
    usage = aot.Resources("attend_split", 90, "fp16", 4, 64, 8, 16, 24, 20480, True)
    heading, line = aot.report_table([usage]).splitlines()
    assert heading.split()[0] == "kernel"
    assert line.split() == ["attend_split", "sm_90", "fp16", "4", "64", "24", "20480", "yes"]
    assert len(heading) == len(line)


def test_without_triton_the_command_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert aot.main([]) == 2
    assert capsys.readouterr().err.startswith("miniserve: Triton is not installed; on Linux: pip install")
