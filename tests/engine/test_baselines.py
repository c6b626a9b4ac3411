"""The baselines give the same tokens as the engine; they only work harder for them."""

from __future__ import annotations

from pathlib import Path

from miniserve.bench.baselines import generate_without_cache, run_static
from miniserve.config import CacheConfig, EngineConfig
from miniserve.engine.engine import Engine, load_engine
from miniserve.engine.model import load_model
from miniserve.types import Request, SamplingParams


def requests(lengths: list[int]) -> list[Request]:
    return [
        Request(f"r{i}", "tiny", tuple(range(10 + i, 30 + i)), SamplingParams(max_tokens=n, temperature=0.8, seed=i))
        for i, n in enumerate(lengths)
    ]


def fresh(folder: Path) -> Engine:
    return load_engine(folder, quant="fp64", config=EngineConfig(cache=CacheConfig(64, 16)))


def test_without_cache_the_tokens_are_the_same(tiny_folder: Path) -> None:
    model = load_model(tiny_folder, "fp64")
    for request in requests([12, 5]):
        assert generate_without_cache(model, request) == fresh(tiny_folder).run([request])[request.request_id]


def test_static_batching_gives_the_same_tokens_in_more_steps(tiny_folder: Path) -> None:
    wanted = requests([2, 30, 3, 2, 4, 30])
    continuous = fresh(tiny_folder)
    expected = continuous.run(wanted)
    result = run_static(fresh(tiny_folder), wanted, batch_size=3)
    assert result.outputs == expected
    assert result.wasted_tokens == 28 + 27 + 28 + 26
    assert result.steps > continuous.scheduler.counters.steps
