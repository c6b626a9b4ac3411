"""`miniserve train`: which models, how long, and how it ends."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from miniserve.commands import train as command
from miniserve.errors import SetupError
from miniserve.training import loop
from miniserve.training.recipes import RECIPES, TrainingRecipe


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainingRecipe]:
    """The recipes that the command asks for; nothing is trained."""
    asked: list[TrainingRecipe] = []
    monkeypatch.setattr(loop, "train", lambda recipe, out, **options: asked.append(recipe))
    return asked


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments))


def test_all_models_are_made_in_the_order_of_their_needs(trained: list[TrainingRecipe], tmp_path: Path) -> None:
    assert run("--out", str(tmp_path)) == 0
    assert [recipe.name for recipe in trained] == list(RECIPES)
    assert trained == list(RECIPES.values())


def test_named_models_are_made_with_scaled_steps(trained: list[TrainingRecipe], tmp_path: Path) -> None:
    assert run("small", "large", "--minutes-scale", "0.01", "--out", str(tmp_path)) == 0
    assert [recipe.name for recipe in trained] == ["large", "small"]
    assert [recipe.steps for recipe in trained] == [RECIPES[name].steps // 100 for name in ("large", "small")]


def test_an_unknown_name_is_refused(trained: list[TrainingRecipe], tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no recipe for huge; the recipes are large, large-v2"):
        run("huge", "--out", str(tmp_path))
    assert not trained


def test_resume_skips_what_is_finished(tmp_path: Path) -> None:
    few = ("small", "--minutes-scale", "0.0007", "--out", str(tmp_path), "--threads", "1")
    assert run(*few) == 0
    made = (tmp_path / "small" / "model.safetensors").stat().st_mtime_ns
    assert run(*few, "--resume") == 0
    assert (tmp_path / "small" / "model.safetensors").stat().st_mtime_ns == made


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(recipe: TrainingRecipe, out: Path, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", interrupted)
    assert run("small", "--out", str(tmp_path)) == 130
    assert "--resume" in capsys.readouterr().err
