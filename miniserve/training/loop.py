"""The training loop: one recipe in, one model folder out. It can be interrupted at any step and resumed.

Matrices are trained with Muon, the rest with AdamW; the learning rate rises for 50 steps, stays level, and falls to
zero over the second half. A step depends only on (recipe, step number, weights, optimizer state): what a checkpoint
holds.

Source: Muon, Jordan et al. 2024, with the scaling of Liu et al. 2025 (arXiv:2502.16982); distillation, Hinton et al.
2015 (arXiv:1503.02531).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from miniserve.clock import monotonic
from miniserve.errors import SetupError
from miniserve.models.model_config import read_config, read_json, write_json
from miniserve.models.tokenizer import Tokenizer
from miniserve.training.batches import BatchSource, TrainingBatch
from miniserve.training.network import Network, count_parameters, save_weights
from miniserve.training.recipes import TrainingRecipe
from miniserve.training.vocabulary import write_tokenizer

WARM_UP_STEPS = 50
CLIP = 1.0  # largest combined norm of all gradients
CURVE_EVERY = 50  # steps per point of the loss curve
CHECKPOINT_EVERY = 100

OnTrainingStep = Callable[[int, float], None]  # steps done, smoothed loss


@dataclass(slots=True)
class TrainingRun:
    """The state of a training run between two steps."""

    recipe: TrainingRecipe
    network: Network
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    loss: float = 0.0  # smoothed over about 50 steps
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        return {
            "recipe": repr(self.recipe),
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            **{name: getattr(self, name) for name in _COUNTERS},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Raises: SetupError if the checkpoint belongs to another recipe."""
        if state["recipe"] != repr(self.recipe):
            raise SetupError(f"the checkpoint of {self.recipe.name} is for another recipe: train without --resume")
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for name in _COUNTERS:
            setattr(self, name, state[name])


_COUNTERS = ("step", "loss", "seconds", "curve")


def train(
    recipe: TrainingRecipe, out: Path, *, resume: bool = False, on_step: OnTrainingStep = lambda step, loss: None
) -> Path:
    """Train `recipe` and return its model folder, `out/<name>`; the models it builds on must already be in `out`.

    Ctrl-C keeps a checkpoint in `out/.checkpoints`; resuming from it gives exactly the weights of an uninterrupted run.

    Raises: SetupError if a model it builds on is missing, or the checkpoint is for another recipe.
    """
    checkpoint = _checkpoint(recipe, out)
    unfinished = checkpoint.with_suffix("")  # a folder: the model appears under its name only once it is complete
    write_tokenizer(unfinished, recipe.shape.config())
    run = _start(recipe, out)
    if resume and checkpoint.is_file():
        run.restore(torch.load(checkpoint, weights_only=True))
    source = BatchSource(Tokenizer.load(unfinished), recipe.mix, recipe.batch, recipe.seed)
    teacher = _load(recipe.teacher, out).requires_grad_(False) if recipe.teacher else None
    try:
        _run(run, source, teacher, checkpoint, on_step)
    except KeyboardInterrupt:
        _save(run, checkpoint)
        raise
    save_weights(run.network, unfinished)
    write_json(unfinished / "training.json", _record(run))
    shutil.rmtree(out / recipe.name, ignore_errors=True)
    checkpoint.unlink(missing_ok=True)
    return unfinished.rename(out / recipe.name)


def is_finished(recipe: TrainingRecipe, out: Path) -> bool:
    """Return whether `out` holds the model of exactly this recipe, with no later attempt interrupted."""
    record, checkpoint = out / recipe.name / "training.json", _checkpoint(recipe, out)
    return record.is_file() and not checkpoint.is_file() and read_json(record).get("recipe") == _as_json(recipe)


def _checkpoint(recipe: TrainingRecipe, out: Path) -> Path:
    return out / ".checkpoints" / f"{recipe.name}.pt"


def _start(recipe: TrainingRecipe, out: Path) -> TrainingRun:
    network = _load(recipe.start, out) if recipe.start else Network(recipe.shape.config(), recipe.seed)
    named = network.named()
    matrices = [p for name, p in named.items() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in named.items() if p.dim() == 1 or "embed" in name]
    rate = recipe.learning_rate
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    return TrainingRun(recipe, network, [muon, adam])


def _load(name: str, out: Path) -> Network:
    """Load a model trained earlier."""
    path = out / name / "model.safetensors"
    if not path.is_file():
        raise SetupError(f"{path} is missing: train {name} first")
    network = Network(read_config(out / name), seed=0)
    weights = {"weights." + key.replace(".", "/"): tensor.float() for key, tensor in load_file(path).items()}
    network.load_state_dict(weights)
    return network


def _run(
    run: TrainingRun, source: BatchSource, teacher: Network | None, checkpoint: Path, on_step: OnTrainingStep
) -> None:
    batches = source.batches(run.step)
    while run.step < run.recipe.steps:
        start_s = monotonic()
        loss = _step(run, next(batches), teacher)
        run.loss = loss if run.step == 0 else 0.98 * run.loss + 0.02 * loss
        run.step += 1
        run.seconds += monotonic() - start_s
        if run.step % CURVE_EVERY == 0:
            run.curve.append((run.step, round(run.loss, 4)))
        if run.step % CHECKPOINT_EVERY == 0:
            _save(run, checkpoint)
        on_step(run.step, run.loss)


def _step(run: TrainingRun, batch: TrainingBatch, teacher: Network | None) -> float:
    rate = run.recipe.learning_rate * schedule(run.step, run.recipe.steps)
    for optimizer in run.optimizers:
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = rate
    wanted = batch.targets >= 0  # [B, T]
    logits = run.network(batch.ids, wanted)  # [N, vocab]
    target = batch.targets[wanted] if teacher is None else teacher(batch.ids, wanted).softmax(-1)
    loss = F.cross_entropy(logits, target)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.network.parameters(), CLIP)
    for optimizer in run.optimizers:
        optimizer.step()
    return loss.item()


def schedule(step: int, steps: int) -> float:
    """Return the fraction of the learning rate at `step`: rising, level, then falling to zero over the second half."""
    return min(1.0, (step + 1) / WARM_UP_STEPS, 2 * (steps - step) / steps)


def _save(run: TrainingRun, checkpoint: Path) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    (checkpoint.parent / ".gitignore").write_text("*\n")
    part = checkpoint.with_suffix(".part")
    torch.save(run.state(), part)
    os.replace(part, checkpoint)


def _as_json(recipe: TrainingRecipe) -> dict[str, Any]:
    """Return the recipe in the form of training.json: tuples as lists, a function as its name."""
    edit = recipe.mix.edit.__name__ if recipe.mix.edit else None
    value: dict[str, Any] = json.loads(json.dumps(asdict(recipe), default=lambda function: edit))
    return value


def _record(run: TrainingRun) -> dict[str, Any]:
    return {
        "recipe": _as_json(run.recipe),
        "parameters": count_parameters(run.network),
        "seconds": round(run.seconds, 1),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "loss_curve": [list(point) for point in run.curve],
    }
