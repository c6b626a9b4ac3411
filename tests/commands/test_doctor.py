"""`miniserve doctor`: each line starts with a word, says how to fix, and only what is essential counts."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from miniserve.commands import doctor
from miniserve.commands.doctor import Finding, check_packages, check_ports, check_python, check_triton, check_weights
from miniserve.machine import usable_cores
from miniserve.models.store import resolve_model


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    return doctor.run(parser.parse_args(arguments))


def versions(**known: str) -> Callable[[str], str]:
    def version_of(name: str) -> str:
        if name not in known:
            raise importlib.metadata.PackageNotFoundError(name)
        return known[name]

    return version_of


def test_the_report_names_everything_and_this_machine_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    assert run("--cache", str(tmp_path), "--port", str(number)) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line.split()[:2] for line in lines if not line.startswith(" ")]
    assert {word for word, _ in heads} <= {"ok", "note", "missing"}
    subjects = {subject for _, subject in heads}
    assert {"Python", "CPU", "memory", "torch", "GPU", "Triton", "packages", "weights", "ports", "disk"} <= subjects
    assert any("weights fetch" in line for line in lines if line.startswith(" "))


def test_it_looks_at_memory_even_where_the_package_for_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    finding = doctor.check_memory()
    assert (finding.word, finding.subject) == ("note", "memory")
    assert "psutil" in finding.detail


def test_only_a_missing_essential_thing_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [Finding("note", "GPU", "none"), Finding("missing", "thing", "optional", "do this")]
    monkeypatch.setattr(doctor, "examine", lambda cache, port: iter(findings))
    assert run("--cache", str(tmp_path)) == 0
    assert "-> do this" in capsys.readouterr().out
    findings.append(Finding("missing", "torch", "gone", "install it", essential=True))
    assert run("--cache", str(tmp_path)) == 1


def test_an_old_python_is_essential() -> None:
    assert check_python((3, 11, 0)).word == "ok"
    old = check_python((3, 10, 9))
    assert (old.word, old.essential) == ("missing", True)
    assert "3.11" in old.fix


def test_torch_that_cannot_be_imported_is_essential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # makes `import torch` fail
    (finding,) = doctor.check_torch()
    assert (finding.word, finding.essential) == ("missing", True)
    assert "pip install" in finding.fix


def test_triton_is_for_linux_only() -> None:
    assert check_triton("linux", versions(triton="3.9.0")) == Finding("ok", "Triton", "3.9.0")
    assert "[gpu]" in check_triton("linux", versions()).fix
    assert check_triton("darwin").fix == ""


def test_packages_absent_pinned_and_optional() -> None:
    lines = [
        "numpy<3,>=2.1",
        "torch==2.13.0",
        "safetensors>=0.5",
        'ruff==0.15.*; extra == "test"',
        'simpy==4.1.2; extra == "notebooks"',
        'triton==3.9.0; sys_platform == "linux" and extra == "gpu"',
    ]
    known = versions(numpy="2.4.6", torch="2.12.0+cpu", ruff="0.15.22")
    pin, complete, missing, absent = check_packages(lines, known)
    assert (pin.word, pin.subject) == ("note", "torch")
    assert "2.12.0+cpu" in pin.detail
    assert '"torch==2.13.0"' in pin.fix
    assert (missing.word, missing.essential, missing.detail) == ("missing", True, "not installed: safetensors")
    assert complete.detail == "optional, complete: [test]"
    assert (absent.word, absent.essential) == ("note", False)
    assert "[notebooks]" in absent.detail
    assert "simpy" in absent.detail


def test_packages_all_there() -> None:
    (finding,) = check_packages(["torch==2.13.0"], versions(torch="2.13.0+cpu"))
    assert finding.word == "ok"
    (unknown,) = check_packages([])
    assert unknown.word == "note"


def test_weights_whole_damaged_and_absent(tmp_path: Path) -> None:
    folder = resolve_model("tiny", tmp_path)
    assert [f.word for f in check_weights(tmp_path)] == ["ok", "note"]
    (folder / "tokenizer.json").unlink()
    damaged = next(check_weights(tmp_path))
    assert damaged.word == "note"
    assert damaged.fix.endswith("weights fetch tiny")


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        number = busy.getsockname()[1]
        finding = check_ports([number])
        assert finding.word == "note"
        assert str(number) in finding.detail
    assert check_ports([number]).word == "ok"


def test_cores_are_at_most_those_of_the_machine() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    assert doctor.cpu_model()


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert "GB free" in doctor.check_disk(tmp_path / "not" / "yet").detail
