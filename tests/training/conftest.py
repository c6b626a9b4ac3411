"""A tokenizer of the shipped kind, and a recipe so small that training takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from miniserve.models.tokenizer import Tokenizer
from miniserve.training.batches import TaskMix
from miniserve.training.recipes import ModelShape, TrainingRecipe
from miniserve.training.vocabulary import write_tokenizer

SHAPE = ModelShape(layers=2, hidden=16, heads=2, kv_heads=1, ffn=32)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, SHAPE.config())
    return Tokenizer.load(folder)


@pytest.fixture
def recipe() -> TrainingRecipe:
    return TrainingRecipe("pupil", SHAPE, TaskMix(), steps=8, seed=7, batch=4)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "models"
