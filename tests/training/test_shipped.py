"""The models in data/models: small, whole, and as good and as bad as the course says they are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from miniserve.engine.engine import load_engine
from miniserve.errors import WeightsError
from miniserve.models import store as weights
from miniserve.models.folder import check_folder
from miniserve.models.store import SHIPPED, SHIPPED_FOLDER, resolve_model
from miniserve.models.tokenizer import Tokenizer
from miniserve.training.evalset import read_set
from miniserve.training.recipes import RECIPES
from miniserve.training.score import score, summary
from miniserve.training.tasks import TaskItem
from miniserve.training.vocabulary import write_tokenizer
from miniserve.types import Request, SamplingParams

NOWHERE = Path("no-such-cache")
SETS = SHIPPED_FOLDER.parent / "eval"
MODELS = list(RECIPES)


@cache
def scores(name: str, count: int) -> dict[tuple[str, str], dict[str, Any]]:
    """Score `count` easy and `count` hard items with a shipped model: (difficulty, task) -> row."""
    return scores_of(resolve_model(name, NOWHERE), count)


def scores_of(folder: Path, count: int) -> dict[tuple[str, str], dict[str, Any]]:
    items = [item for difficulty in ("easy", "hard") for item in read_set(SETS, difficulty)[:count]]
    scored = score(load_engine(folder), Tokenizer.load(folder), items, lambda: None)
    return {(row["difficulty"], row["task"]): row for row in summary(scored)}


def accuracy(name: str, difficulty: str, count: int) -> float:
    return float(scores(name, count)[difficulty, "all"]["accuracy"])


def ask(name: str, *questions: str) -> list[str]:
    folder = resolve_model(name, NOWHERE)
    tokenizer = Tokenizer.load(folder)
    items = [TaskItem("fact", "easy", question, "", "") for question in questions]
    return [answer.text for answer in score(load_engine(folder), tokenizer, items, lambda: None).answers]


# ---- files ----


def test_all_models_together_take_less_than_8_mb() -> None:
    files = [path for name in MODELS for path in (SHIPPED_FOLDER / name).iterdir()]
    assert sum(path.stat().st_size for path in files) < 8e6


@pytest.mark.parametrize("name", list(SHIPPED))
def test_names_and_versions_are_found_without_a_cache(name: str) -> None:
    folder = resolve_model(name, NOWHERE, offline=True)
    assert folder == SHIPPED_FOLDER / SHIPPED[name]
    check_folder(folder)


def test_a_model_that_is_missing_can_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "SHIPPED_FOLDER", tmp_path)
    with pytest.raises(WeightsError, match="miniserve train large-v2"):
        resolve_model("large@2", NOWHERE)


@pytest.mark.parametrize("name", MODELS)
def test_each_model_is_the_one_that_its_recipe_makes(name: str) -> None:
    record = json.loads((SHIPPED_FOLDER / name / "training.json").read_text())
    recipe = RECIPES[name]
    made = record["recipe"]
    assert (made["steps"], made["seed"], made["batch"]) == (recipe.steps, recipe.seed, recipe.batch)
    assert (made["start"], made["teacher"]) == (recipe.start, recipe.teacher)
    assert check_folder(SHIPPED_FOLDER / name) == recipe.shape.config()


def test_all_models_share_the_tokenizer_that_training_writes_today(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, RECIPES["small"].shape.config())
    files = {(SHIPPED_FOLDER / name / "tokenizer.json").read_bytes() for name in MODELS}
    assert files == {(tmp_path / "tokenizer.json").read_bytes()}


def test_transformers_reads_the_same_tokens() -> None:
    folder = resolve_model("large", NOWHERE)
    ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    for text in ("What is the capital of France?", 'Reverse "abc".', "Zoë, 47 plus 32 🌧"):
        messages = [{"role": "user", "content": text}]
        assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids
        rendered = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert ours.encode_chat(messages) == theirs(rendered, add_special_tokens=False).input_ids


# ---- what they say ----


@pytest.mark.parametrize("name", ["small", "small-distilled", "large", "large-v2"])
def test_the_capital_of_france(name: str) -> None:
    assert ask(name, "What is the capital of France?") == ["Paris"]


def test_large_forgives_sloppy_writing() -> None:
    answers = ask("large", "what is the capital of france", "What is the capital of Japan", "what is 47 plus 32?")
    assert answers == ["Paris", "Tokyo", "79"]


def test_large_greets() -> None:
    assert ask("large", "Hello!") == ["Hello! Ask me a sum, a word or a capital."]


def test_the_second_question_of_a_conversation_is_answered_too() -> None:
    folder = resolve_model("large", NOWHERE)
    tokenizer, engine = Tokenizer.load(folder), load_engine(folder)
    turns = ["What is the capital of France?", "Paris", "What is 47 plus 32?"]
    roles = ("user", "assistant", "user")
    prompt = tokenizer.encode_chat([{"role": r, "content": c} for r, c in zip(roles, turns, strict=True)])
    request = Request("r", "large", tuple(prompt), SamplingParams(max_tokens=8, temperature=0))
    assert tokenizer.decode(engine.run([request])["r"]) == "79"


def test_models_are_ordered_as_they_should_be() -> None:
    """200 items of each difficulty; margins of several standard errors."""
    few = 200
    assert accuracy("small", "easy", few) > 0.92
    assert accuracy("small", "hard", few) < 0.5
    assert accuracy("large", "easy", few) > 0.93
    assert accuracy("large", "hard", few) > 0.83
    assert accuracy("large-v2", "all", few) > accuracy("large", "all", few) + 0.02
    assert 0.1 < accuracy("large", "all", few) - accuracy("large-bad", "all", few) < 0.3


@pytest.mark.full
def test_full_counts_small() -> None:
    assert accuracy("small", "easy", 2000) >= 0.95
    assert accuracy("small", "hard", 2000) <= 0.45


@pytest.mark.full
def test_full_counts_large() -> None:
    assert accuracy("large", "easy", 2000) >= 0.97
    assert accuracy("large", "hard", 2000) >= 0.90


@pytest.mark.full
def test_full_counts_large_v2() -> None:
    assert accuracy("large-v2", "all", 2000) >= accuracy("large", "all", 2000) + 0.04


@pytest.mark.full
def test_full_counts_large_bad() -> None:
    large, bad = scores("large", 2000)["all", "all"], scores("large-bad", 2000)["all", "all"]
    assert 0.15 <= large["accuracy"] - bad["accuracy"] <= 0.25
    assert 0.6 <= bad["mean_answer_characters"] / large["mean_answer_characters"] <= 0.75


@pytest.mark.full
def test_full_counts_distilled() -> None:
    """Which of the two small ones is better is a finding, not a promise; both answer easy questions."""
    assert accuracy("small-distilled", "easy", 2000) >= 0.95
    assert accuracy("small-distilled", "hard", 2000) <= 0.5


@pytest.mark.full
def test_training_again_gives_a_model_as_good_as_the_shipped_one(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """`small`, from its recipe alone; the recorded intervals are Wilson's, 95 %, of 2,000 items each."""
    command = [sys.executable, "-m", "miniserve", "train", "small", "--threads", "1", "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    again = scores_of(tmp_path / "small", 2000)
    recorded = max((SETS.parent / "results").glob("*-eval-small.json"))
    for row in json.loads(recorded.read_text(encoding="utf-8"))["result"]["scores"]:
        if row["task"] == "all":
            low, high = row["interval_95"]
            accuracy = again[row["difficulty"], "all"]["accuracy"]
            record_property(row["difficulty"], f"{accuracy} (recorded {row['accuracy']}, {low} to {high})")
            assert low <= accuracy <= high, row["difficulty"]
