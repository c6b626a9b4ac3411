"""`miniserve train`: remake the shipped models from their seeds, with a progress bar.

Models are made in the order in which they build on one another. Ctrl-C keeps a checkpoint; `--resume` continues from
it, reaches the same weights, and skips models that are already finished.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniserve.commands.options import at_least_one
from miniserve.errors import SetupError
from miniserve.models.store import SHIPPED_FOLDER

if TYPE_CHECKING:
    from rich.progress import Progress

    from miniserve.training.recipes import TrainingRecipe

DEFAULT_THREADS = 2  # the products of such a narrow model gain nothing from more
LINE_EVERY = 100  # steps, if there is no terminal for a progress bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to make (default: all, in order)")
    parser.add_argument(
        "--out", type=Path, default=SHIPPED_FOLDER, metavar="DIR", help="where model folders go (default: data/models)"
    )
    parser.add_argument("--resume", action="store_true", help="continue after an interruption; skip finished models")
    parser.add_argument(
        "--minutes-scale",
        type=_scale,
        default=1.0,
        metavar="X",
        help="multiply the number of steps by X (0.01 for a trial run)",
    )
    parser.add_argument(
        "--threads", type=at_least_one, default=DEFAULT_THREADS, help="torch threads (default %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Train the chosen models one after another."""
    import torch

    recipes = _chosen(args.names, args.minutes_scale)
    torch.set_num_threads(args.threads)
    try:
        with _progress() as progress:
            for recipe in recipes:
                _train(recipe, args, progress)
    except KeyboardInterrupt:
        print("miniserve: stopped; run the same command with --resume to continue", file=sys.stderr)
        return 130
    return 0


def _chosen(names: list[str], scale: float) -> list[TrainingRecipe]:
    from miniserve.training.recipes import RECIPES

    unknown = sorted(set(names) - set(RECIPES))
    if unknown:
        raise SetupError(f"there is no recipe for {', '.join(unknown)}; the recipes are {', '.join(RECIPES)}")
    wanted = [recipe for recipe in RECIPES.values() if not names or recipe.name in names]
    return [dataclasses.replace(recipe, steps=max(1, round(recipe.steps * scale))) for recipe in wanted]


def _train(recipe: TrainingRecipe, args: argparse.Namespace, progress: Progress) -> None:
    from miniserve.training.loop import is_finished, train

    task: Any = progress.add_task(recipe.name, total=recipe.steps, loss="")
    if args.resume and is_finished(recipe, args.out):
        progress.update(task, completed=recipe.steps, loss="already finished")
        return

    def on_step(step: int, loss: float) -> None:
        progress.update(task, completed=step, loss=f"{loss:.4f}")
        if step % LINE_EVERY == 0 and not progress.console.is_terminal:
            print(f"{recipe.name}: step {step:,} of {recipe.steps:,}, loss {loss:.4f}", file=sys.stderr, flush=True)

    train(recipe, args.out, resume=args.resume, on_step=on_step)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _scale(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return number
