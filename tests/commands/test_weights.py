"""`miniserve weights`: results on stdout, progress on stderr, 1 only for damage."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from miniserve.commands import weights
from miniserve.errors import WeightsError


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    weights.add_arguments(parser)
    return weights.run(parser.parse_args(arguments))


def test_fetch_prints_the_folder_alone_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fetch", "tiny", "--cache", str(tmp_path)) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'models' / 'tiny'}\n"
    assert "ready" in err
    assert run("path", "tiny", "--cache", str(tmp_path)) == 0
    assert capsys.readouterr() == (out, "")


def test_path_never_downloads(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="--offline"):
        run("path", "--cache", str(tmp_path))


def test_list_shows_what_is_there_and_what_could_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("fetch", "tiny", "--cache", str(tmp_path))
    capsys.readouterr()
    assert run("--cache", str(tmp_path)) == 0
    tiny, smollm2 = capsys.readouterr().out.splitlines()
    assert tiny.startswith("tiny ")
    assert tiny.endswith(" ok")
    assert smollm2.startswith("smollm2 ")
    assert "weights fetch smollm2" in smollm2


def test_verify_finds_a_changed_byte_and_fetch_mends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("fetch", "tiny", "--cache", str(tmp_path))
    assert run("verify", "--cache", str(tmp_path)) == 0
    assert "ok" in capsys.readouterr().out
    path = tmp_path / "models" / "tiny" / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert run("verify", "tiny", "--cache", str(tmp_path)) == 1
    assert "damaged: " in capsys.readouterr().out
    run("fetch", "tiny", "--cache", str(tmp_path))
    assert run("verify", "tiny", "--cache", str(tmp_path)) == 0


def test_verify_of_what_is_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WeightsError, match="holds no model"):
        run("verify", "--cache", str(tmp_path))
    assert run("verify", "smollm2", "--cache", str(tmp_path)) == 1
    assert "does not exist" in capsys.readouterr().out


def test_a_folder_of_ones_own_is_checked_without_hashes(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", str(tiny_folder), "--cache", str(tmp_path)) == 0
    assert "no recorded hashes" in capsys.readouterr().out
