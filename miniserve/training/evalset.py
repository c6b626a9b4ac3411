"""The evaluation sets: 2,000 easy and 2,000 hard held-out items, written once and only read thereafter.

`data/eval/easy.jsonl` and `hard.jsonl` hold one item per line; `sets.json` records the seed they were drawn from. No
question occurs twice, and none is ever trained on (see `tasks.is_held_out`).
"""

from __future__ import annotations

import json
from pathlib import Path

from miniserve.errors import SetupError
from miniserve.models.model_config import write_json
from miniserve.seeds import generator
from miniserve.training.tasks import TaskItem, draw

SEED = 2026
SIZES = {  # items per task
    "easy": {"arithmetic": 900, "string": 900, "fact": 200},
    "hard": {"arithmetic": 700, "string": 700, "fact": 600},
}


def make_items(difficulty: str, seed: int = SEED) -> list[TaskItem]:
    """Return the evaluation set of one difficulty, shuffled, so that its first n items are a fair sample."""
    rng = generator(seed, f"evaluation {difficulty}")
    items: dict[str, TaskItem] = {}
    for task, count in SIZES[difficulty].items():
        wanted = len(items) + count
        while len(items) < wanted:
            item = draw(rng, task, difficulty == "hard", held_out=True)
            items.setdefault(item.question, item)
    shuffled = list(items.values())
    rng.shuffle(shuffled)
    return shuffled


def write_sets(folder: Path, seed: int = SEED) -> None:
    """Write both sets and their origin."""
    folder.mkdir(parents=True, exist_ok=True)
    for difficulty in SIZES:
        lines = [json.dumps(_fields(item), ensure_ascii=False) + "\n" for item in make_items(difficulty, seed)]
        (folder / f"{difficulty}.jsonl").write_text("".join(lines), encoding="utf-8")
    write_json(folder / "sets.json", {"seed": seed, "items": SIZES, "made_by": "python -m miniserve eval --write-sets"})


def read_set(folder: Path, difficulty: str) -> list[TaskItem]:
    """Read one evaluation set.

    Raises: SetupError if the file is missing or not one that `write_sets` wrote.
    """
    path = folder / f"{difficulty}.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [TaskItem(**json.loads(line)) for line in lines]
    except FileNotFoundError:
        raise SetupError(f"{path} is missing: `python -m miniserve eval --write-sets` makes it") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise SetupError(f"{path} is not an evaluation set: {error}") from error


def _fields(item: TaskItem) -> dict[str, str]:
    return {name: getattr(item, name) for name in ("task", "difficulty", "question", "answer", "key")}
