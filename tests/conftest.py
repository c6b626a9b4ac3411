"""Fixtures shared by all tests: the model folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def default_cache() -> Path:
    return Path(os.environ.get("MINISERVE_CACHE", Path.home() / ".cache" / "miniserve"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer model, made in code."""
    from miniserve.engine.tiny import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct from the cache; tests that need it are skipped where it is absent (nothing is downloaded)."""
    from miniserve.engine.weights import resolve_model
    from miniserve.errors import WeightsError

    try:
        return resolve_model("smollm2", default_cache(), offline=True)
    except WeightsError as error:
        pytest.skip(f"SmolLM2 is not in the cache (fetch it with `python -m miniserve weights fetch`): {error}")
