"""The toy chapter, for this process and for the workers that it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)


@pytest.fixture(autouse=True)
def toy_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers import the toy's questions."""
    monkeypatch.setenv("PYTHONPATH", HERE)


@pytest.fixture(scope="session")
def chapters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the toy chapter."""
    from toy import write_chapter

    yield write_chapter(tmp_path_factory.mktemp("toy"))
    assert os.path.isdir(HERE)
