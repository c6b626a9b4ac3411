"""The tables of a file that say what models are called and which of them answers.

    [models]
    gpt-4o-mini = "small"                                                           # an alias
    auto = {router = "learned", small = "small", large = "large"}                   # the question decides
    careful = {router = "cascade", small = "small", large = "large", threshold = -0.1}

    [deprecated]
    "large@1" = "2026-12-01"

The classifier is trained when a gateway starts, on the shipped questions that are for training: under a second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal

from miniserve.errors import SetupError
from miniserve.policies.routing.model_names import ModelRouting
from miniserve.policies.routing.model_router import (
    Cascade,
    Hardness,
    HeuristicHardness,
    LearnedHardness,
    ModelRouter,
    is_training_item,
    train_hardness,
)

QUESTIONS = Path(__file__).resolve().parents[2] / "data" / "eval"


@dataclass(frozen=True, slots=True)
class ModelRule:
    """Which of two models answers. `threshold` is a hardness from 0 to 1; of a cascade, a mean log-probability."""

    router: Literal["heuristic", "learned", "cascade"]
    small: str
    large: str
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.router == "cascade":
            if self.threshold is None:
                raise SetupError("a cascade needs a threshold: keep answers with a mean log-probability from there on")
            self.cascade()
        elif self.threshold is not None and not 0 <= self.threshold <= 1:
            raise SetupError(f"threshold ({self.threshold:g}) is a hardness: 0 to 1")
        if self.small == self.large:
            raise SetupError(f"small and large must be two models, not {self.small!r} twice")

    def cascade(self) -> Cascade:
        """Return the rule as a cascade."""
        assert self.threshold is not None
        return Cascade(self.small, self.large, self.threshold)

    def by_question(self) -> ModelRouter:
        """Return the rule as a choice by the question; a classifier is trained where it takes one."""
        hardness: Hardness = HeuristicHardness() if self.router == "heuristic" else learned_hardness()
        return ModelRouter(self.small, self.large, hardness, 0.5 if self.threshold is None else self.threshold)


def model_routing(models: Mapping[str, str | ModelRule], deprecated: Mapping[str, str]) -> ModelRouting:
    """Return what the two tables say, ready for a gateway. Raises: SetupError for a day that is none."""
    rules = {name: rule for name, rule in models.items() if isinstance(rule, ModelRule)}
    return ModelRouting(
        aliases={name: target for name, target in models.items() if isinstance(target, str)},
        by_question={name: rule.by_question() for name, rule in rules.items() if rule.router != "cascade"},
        cascades={name: rule.cascade() for name, rule in rules.items() if rule.router == "cascade"},
        deprecated={name: _since(name, day) for name, day in deprecated.items()},
    )


def _since(name: str, day: str) -> int:
    try:
        when = datetime.fromisoformat(day)
    except ValueError:
        raise SetupError(f"{name}: {day!r} is no day; write it like 2026-12-01") from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


@lru_cache(maxsize=1)
def learned_hardness(folder: Path = QUESTIONS) -> LearnedHardness:
    """Return a classifier of the shipped questions, trained on the half that is for training.

    Raises: SetupError if the questions are not there.
    """
    questions: list[tuple[str, bool]] = []
    for difficulty in ("easy", "hard"):
        path = folder / f"{difficulty}.jsonl"
        try:
            items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError, RecursionError) as error:
            hint = "`python -m miniserve eval --write-sets` makes it"
            raise SetupError(f'router = "learned" needs {path}, which cannot be read; {hint}') from error
        questions += [(item["question"], difficulty == "hard") for item in items if is_training_item(item["key"])]
    return train_hardness(*zip(*questions, strict=True))
