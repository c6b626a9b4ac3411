"""Fixtures shared by all tests: the model folders. And hypothesis is told that no test gates on a timing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer model, made in code."""
    from miniserve.models.tiny import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct from the cache. Where it is absent the test is skipped; nothing is downloaded."""
    from miniserve.errors import WeightsError
    from miniserve.models.store import default_cache, resolve_model

    try:
        return resolve_model("smollm2", default_cache(), offline=True)
    except WeightsError as error:
        pytest.skip(f"SmolLM2 is not in the cache (fetch it with `python -m miniserve weights fetch`): {error}")


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    """Twenty short questions and tasks."""
    return [
        "What is the capital of France?",
        "Write a haiku about the sea.",
        "Explain in one sentence why the sky is blue.",
        "List three uses of a paper clip.",
        "What is 17 plus 25?",
        "Translate 'good morning' into Spanish.",
        "Who wrote Romeo and Juliet?",
        "Give me a recipe for tomato soup.",
        "What does a load balancer do?",
        "Name the planets of the solar system.",
        "Write a Python function that reverses a string.",
        "Why do leaves turn red in autumn?",
        "Tell me a short story about a lost dog.",
        "How many minutes are there in a day?",
        "Describe a cup of coffee to someone who has never seen one.",
        "What is the difference between a virus and a bacterium?",
        "Suggest a name for a small bakery.",
        "Summarise the rules of chess.",
        "Schreibe einen Satz auf Deutsch über den Regen. 🌧",
        "Continue: Once upon a time, in a village by the river,",
    ]
