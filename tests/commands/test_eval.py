"""`miniserve eval`: sets are made and read back, a score is shown and kept."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from miniserve.commands import eval as command
from miniserve.errors import SetupError
from miniserve.training.evalset import SIZES, make_items, read_set


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    assert run("--write-sets", "--sets", str(folder)) == 0
    return folder


def test_written_sets_are_read_back_with_their_seed(sets: Path) -> None:
    for difficulty in SIZES:
        assert read_set(sets, difficulty) == make_items(difficulty)
    assert json.loads((sets / "sets.json").read_text())["seed"] == 2026


def test_the_committed_sets_are_what_the_command_writes(sets: Path) -> None:
    committed = Path(__file__).resolve().parents[2] / "data" / "eval"
    for difficulty in SIZES:
        name = f"{difficulty}.jsonl"
        assert (committed / name).read_bytes() == (sets / name).read_bytes()
        assert (committed / name).stat().st_size < 500_000


def test_a_score_is_shown_and_kept(
    sets: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--items", "5", "--sets", str(sets), "--record", "--results", str(tmp_path))
    assert run(str(tiny_folder), *options) == 0
    shown = capsys.readouterr().out
    assert "0.0%" in shown, "a random model is right about nothing"
    (path,) = tmp_path.glob("*-eval-*.json")
    record = json.loads(path.read_text())
    assert record["what"] == f"eval-{tiny_folder.name}"
    assert record["result"]["scores"][0]["items"] == 10
    assert record["result"]["decode_us_per_token_8_streams"] > 0
    assert record["environment"]["versions"]["torch"]
    assert str(tiny_folder.parent) not in path.read_text()


def test_what_cannot_be_scored_is_named(sets: Path, tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="name the model"):
        run("--sets", str(sets))
    with pytest.raises(SetupError, match="--write-sets"):
        run(str(tiny_folder), "--sets", str(tmp_path))
    (tmp_path / "easy.jsonl").write_text("{}\n")
    with pytest.raises(SetupError, match="not an evaluation set"):
        run(str(tiny_folder), "--sets", str(tmp_path))
