"""The toy chapter, for this process and for the workers that it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from course.grade import toy


@pytest.fixture(autouse=True)
def toy_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers import the toy's questions."""
    monkeypatch.setenv("PYTHONPATH", toy.PATH)


@pytest.fixture(scope="session")
def chapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the toy chapter."""
    return toy.write_chapter(tmp_path_factory.mktemp("toy"))
