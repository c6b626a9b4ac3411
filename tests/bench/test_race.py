"""The race with a tiny model: real servers, real HTTP, every figure there. Who wins says nothing at this size."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from random import Random

import pytest
from rich.console import Console

from miniserve.bench import race
from miniserve.errors import SetupError


def test_a_race_of_ours_and_transformers(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "PREFIX_WORDS", 30)  # the tiny model has a small context
    monkeypatch.setattr(race, "PROMPT_WORDS", 8)
    monkeypatch.setattr(race, "CASES", {"2 streams": 2, race.SHARED: 3})
    console = Console(file=StringIO(), width=200)
    result = race.run_race(tiny_folder, None, threads=1, repeats=1, seed=0, console=console)
    names = {"miniserve fp16", "miniserve fp32", "miniserve int8", "transformers fp32"}
    assert [row["case"] for row in result["rows"]] == ["2 streams", race.SHARED]
    for row in result["rows"]:
        assert set(row["tokens_per_s"]) == set(row["ttft_p50_s"]) == names
        assert all(value > 0 for value in (*row["tokens_per_s"].values(), *row["ttft_p50_s"].values()))
        assert set(row["speed_against transformers fp32"]) == names - {"transformers fp32"}
    assert set(result["resident_mib"]) == names
    console.print(race.race_table(result))
    assert isinstance(console.file, StringIO)
    assert "miniserve int8" in console.file.getvalue()


def test_prompts_share_a_beginning_only_where_the_case_says_so() -> None:
    shared = race.prompts(race.SHARED, Random(1))
    assert len({text[: text.index(" ")] for text in shared}) == 1
    assert len(set(shared)) == len(shared) == race.CASES[race.SHARED]
    apart = race.prompts("16 streams", Random(1))
    assert len({text.split()[0] for text in apart}) == 16
    assert {len(text.split()) for text in apart} == {race.PROMPT_WORDS}


def test_a_vllm_that_is_not_there_is_said_before_anything_starts(tiny_folder: Path) -> None:
    with pytest.raises(SetupError, match=r"VLLM_BIN=.*nowhere"):
        race.run_race(tiny_folder, "nowhere/vllm", 1, 1, 0, Console(file=StringIO()))


def test_a_server_that_ends_at_once_is_named() -> None:
    with (
        pytest.raises(SetupError, match="broken exited with code 3"),
        race._running("broken", ["python3", "-c", "raise SystemExit(3)"], 1),
    ):
        pass
