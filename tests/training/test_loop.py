"""Training: the network is the served model, an interruption changes nothing, the losses go down."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from miniserve.engine.engine import load_engine
from miniserve.errors import SetupError
from miniserve.models.folder import check_folder
from miniserve.training.loop import is_finished, schedule, train
from miniserve.training.network import Network, save_weights
from miniserve.training.recipes import RECIPES, TrainingRecipe
from miniserve.training.vocabulary import write_tokenizer
from miniserve.types import Request, SamplingParams


def weights(out: Path, name: str = "pupil") -> dict[str, torch.Tensor]:
    return load_file(out / name / "model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def interrupt_at(stop: int):  # type: ignore[no-untyped-def]
    def on_step(step: int, loss: float) -> None:
        if step == stop:
            raise KeyboardInterrupt

    return on_step


@pytest.fixture
def folder(recipe: TrainingRecipe, tmp_path: Path) -> tuple[Network, Path]:
    """A network with random weights that half precision holds exactly, and its model folder."""
    network = Network(recipe.shape.config(), seed=1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_((weight * 4).half().float())
    write_tokenizer(tmp_path, recipe.shape.config())
    save_weights(network, tmp_path)
    return network, tmp_path


def test_the_network_computes_what_transformers_computes(folder: tuple[Network, Path]) -> None:
    network, path = folder
    reference = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    ids = torch.randint(0, network.config.vocab_size, (3, 17), generator=torch.Generator().manual_seed(0))
    wanted = torch.ones_like(ids, dtype=torch.bool)
    with torch.inference_mode():
        difference = network(ids, wanted) - reference(ids).logits.flatten(0, 1)
    assert difference.abs().max() < 1e-4


def test_the_engine_says_what_the_network_says(folder: tuple[Network, Path]) -> None:
    network, path = folder
    prompt = [1, 40, 41, 42, 0, 2]
    request = Request("r", "m", tuple(prompt), SamplingParams(max_tokens=12, temperature=0, ignore_eos=True))
    said = load_engine(path, quant="fp32").run([request])["r"]
    ids = list(prompt)
    for _ in range(12):
        with torch.inference_mode():
            wanted = torch.zeros(1, len(ids), dtype=torch.bool)
            wanted[0, -1] = True
            ids.append(int(network(torch.tensor([ids]), wanted).argmax()))
    assert said == ids[len(prompt) :]


def test_training_learns_and_keeps_a_record(recipe: TrainingRecipe, out: Path) -> None:
    losses: list[float] = []
    longer = dataclasses.replace(recipe, steps=60, batch=16, learning_rate=1e-2)
    path = train(longer, out, on_step=lambda step, loss: losses.append(loss))
    record = json.loads((path / "training.json").read_text())
    check_folder(path)
    assert losses[-1] < losses[0] - 0.5
    assert record["recipe"]["seed"] == recipe.seed
    assert record["loss_curve"][0][0] == 50
    assert record["parameters"] == sum(weight.numel() for weight in weights(out).values())
    assert not list((out / ".checkpoints").glob("*.pt"))


def test_the_same_seed_trains_the_same_weights(recipe: TrainingRecipe, tmp_path: Path) -> None:
    for name in "ab":
        train(recipe, tmp_path / name)
    train(dataclasses.replace(recipe, seed=8), tmp_path / "c")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.parametrize("stop", [1, 5])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    recipe: TrainingRecipe, tmp_path: Path, stop: int
) -> None:
    train(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut", on_step=interrupt_at(stop))
    assert not is_finished(recipe, tmp_path / "cut")
    assert not (tmp_path / "cut" / recipe.name).exists(), "half a model must not be found under its name"
    steps: list[int] = []
    train(recipe, tmp_path / "cut", resume=True, on_step=lambda step, loss: steps.append(step))
    assert steps == list(range(stop + 1, recipe.steps + 1))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert is_finished(recipe, tmp_path / "cut")


def test_a_checkpoint_of_another_recipe_is_refused(recipe: TrainingRecipe, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out, on_step=interrupt_at(2))
    with pytest.raises(SetupError, match="another recipe"):
        train(dataclasses.replace(recipe, seed=1), out, resume=True)


def test_a_later_version_starts_from_the_earlier_one(recipe: TrainingRecipe, out: Path) -> None:
    later = dataclasses.replace(recipe, name="later", start="pupil", learning_rate=0.0)
    with pytest.raises(SetupError, match="train pupil first"):
        train(later, out)
    train(recipe, out)
    train(later, out)
    assert same(weights(out), weights(out, "later"))


def test_a_pupil_learns_from_its_teacher_not_from_the_answers(recipe: TrainingRecipe, out: Path) -> None:
    train(dataclasses.replace(recipe, name="teacher"), out)
    taught = dataclasses.replace(recipe, name="taught", teacher="teacher", start="teacher")
    losses: list[float] = []
    train(dataclasses.replace(taught, steps=1), out, on_step=lambda step, loss: losses.append(loss))
    train(dataclasses.replace(taught, name="told", teacher=None, steps=1), out)
    teacher = weights(out, "teacher")
    moved = {
        name: max((weights(out, name)[k] - teacher[k]).abs().max() for k in teacher) for name in ("taught", "told")
    }
    assert moved["taught"] <= moved["told"], "who is the teacher already has nothing to learn from it"
    assert losses[0] > 0


def test_the_learning_rate_rises_stays_and_falls() -> None:
    rates = [schedule(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 50)
    assert rates[49:501] == [1.0] * 452
    assert rates[-1] == pytest.approx(2 / 1000)
    assert rates[500:] == sorted(rates[500:], reverse=True)


def test_every_recipe_can_be_made_in_order() -> None:
    made: set[str] = set()
    for name, recipe in RECIPES.items():
        assert name == recipe.name
        assert {needed for needed in (recipe.start, recipe.teacher) if needed} <= made
        made.add(name)
    small, distilled = RECIPES["small"], RECIPES["small-distilled"]
    assert dataclasses.replace(distilled, name="small", teacher=None) == small, "the comparison must be fair"
