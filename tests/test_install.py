"""From a fresh clone to a first right answer, as a learner would get there; then once more without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FIRST = "from miniserve import course; course.chapter(6).check('6.1', [0.5] * 98 + [21, 21])"


def run(command: Sequence[str | Path], folder: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def gigabytes(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e9


@pytest.mark.full
def test_a_fresh_clone_comes_to_a_first_right_answer(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    clone, python = tmp_path / "clone", tmp_path / "clone" / ".venv" / "bin" / "python"
    run(["git", "clone", "--quiet", ROOT, clone], tmp_path)
    started_s = time.perf_counter()
    run([Path(sys.base_prefix) / "bin" / "python3", "-m", "miniserve.setup_env"], clone)
    assert "6.1  CORRECT" in run([python, "-c", FIRST], clone)
    record_property("seconds_to_the_first_right_answer", round(time.perf_counter() - started_s))

    packages = next((clone / ".venv" / "lib").glob("python3*/site-packages"))
    with_triton, triton = gigabytes(clone / ".venv"), gigabytes(packages / "triton")
    record_property("environment_gb", round(with_triton, 2))
    record_property("environment_gb_without_triton", round(with_triton - triton, 2))

    if bwrap := shutil.which("bwrap"):
        alone = [bwrap, "--dev-bind", "/", "/", "--unshare-net"]
        assert "6.1  CORRECT" in run([*alone, python, "-c", FIRST], clone)
    record_property("also_without_a_network", bool(bwrap) or "not tried: there is no bwrap")
