"""Whatever happens around a request, it gets exactly the tokens it would have got alone.

In float64 on a tiny model: there, rounding differences between batch shapes (about 1e-16) are far below any decision,
so equality is exact. `tests/engine/test_smollm2.py` does the same in fp32 and lists the ties.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.block_manager import BlockManager
from miniserve.engine.engine import Engine
from miniserve.engine.model import Llama, load_model
from miniserve.engine.runner import ModelRunner
from miniserve.engine.scheduler import Scheduler
from miniserve.types import FinishReason, Priority, Request, SamplingParams

STEM = tuple((7 * i) % 250 for i in range(80))


@cache
def model(folder: Path) -> Llama:
    return load_model(folder, "fp64")


def engine(folder: Path, cache_config: CacheConfig, config: SchedulerConfig) -> Engine:
    blocks = BlockManager(cache_config.num_blocks, cache_config.block_size, cache_config.prefix_caching)
    limit = min(cache_config.num_blocks * cache_config.block_size, 512)
    return Engine(ModelRunner(model(folder), cache_config), Scheduler(config, blocks, limit, eos_ids=[]))


def alone(folder: Path, request: Request) -> list[int]:
    lone = engine(folder, CacheConfig(8, 64, prefix_caching=False), SchedulerConfig(max_batch_tokens=512))
    return lone.run([request])[request.request_id]


sampling = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 14),
    temperature=st.sampled_from([0.0, 0.0, 0.7, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 5, 100]),
    top_p=st.sampled_from([1.0, 0.9, 0.3]),
    seed=st.integers(0, 5),
    min_p=st.sampled_from([0.0, 0.0, 0.05]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.5, -2.0]),
    presence_penalty=st.sampled_from([0.0, 0.0, 1.5]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.3]),
    logit_bias=st.sampled_from([(), (), ((7, 3.0), (14, -100.0))]),
    bad_words=st.sampled_from([(), ((21,), (28, 35))]),
    stop_token_ids=st.sampled_from([(), tuple(range(0, 250, 9))]),
    min_tokens=st.integers(0, 3),
)


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    count = draw(st.integers(2, 6))
    return [
        Request(
            f"r{i}",
            "tiny",
            STEM[: draw(st.integers(1, 60))] + tuple(draw(st.lists(st.integers(0, 250), max_size=4))),
            draw(sampling),
            tenant=draw(st.sampled_from(["", "", "alice"])),
            priority=draw(st.sampled_from(Priority)),
        )
        for i in range(count)
    ]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    wanted=requests(),
    block_size=st.integers(4, 32),
    spare_blocks=st.integers(0, 6),
    budget=st.integers(6, 90),
    max_running=st.integers(1, 6),
    turn_tokens=st.sampled_from([None, 1, 5]),
    caching=st.booleans(),
    arrivals=st.lists(st.integers(0, 8), min_size=6, max_size=6),
    aborts=st.dictionaries(st.integers(0, 5), st.integers(0, 20), max_size=2),
)
def test_any_neighbourhood_gives_the_tokens_of_running_alone(
    tiny_folder: Path,
    wanted: list[Request],
    block_size: int,
    spare_blocks: int,
    budget: int,
    max_running: int,
    turn_tokens: int | None,
    caching: bool,
    arrivals: list[int],
    aborts: dict[int, int],
) -> None:
    # As few blocks as the largest request needs, and a few more: with several running, somebody is preempted.
    largest = max(len(r.prompt_ids) + r.sampling.max_tokens for r in wanted)
    cache_config = CacheConfig(-(-largest // block_size) + spare_blocks, block_size, caching)
    config = SchedulerConfig(
        max_running=max_running, max_batch_tokens=max(budget, max_running), turn_tokens=turn_tokens, aging_s=1.0
    )
    busy = engine(tiny_folder, cache_config, config)
    outputs: dict[str, list[int]] = {r.request_id: [] for r in wanted}
    step, pending = 0, list(zip(arrivals, wanted, strict=False))
    while pending or busy.has_work:
        for arrival, request in list(pending):
            if arrival <= step:
                busy.add(request)
                pending.remove((arrival, request))
        for index, when in aborts.items():
            if when == step and index < len(wanted):
                busy.abort(wanted[index].request_id)
        for event in busy.step():
            outputs[event.request_id].extend(event.token_ids)
        busy.scheduler.blocks.check_integrity(busy.scheduler.sequences())
        step += 1
    assert busy.scheduler.blocks.num_used == 0
    for index, request in enumerate(wanted):
        expected = alone(tiny_folder, request)
        got = outputs[request.request_id]
        if index in aborts:
            assert got == expected[: len(got)]
        else:
            assert got == expected


PENALTIES = {"frequency_penalty": 1.0, "presence_penalty": 0.5, "repetition_penalty": 1.2, "min_p": 0.01}


@pytest.mark.parametrize("more", [{}, PENALTIES], ids=["plain", "penalties"])
@pytest.mark.parametrize("cut", range(9))
def test_a_resumed_request_continues_token_for_token(tiny_folder: Path, cut: int, more: dict[str, float]) -> None:
    request = Request("r", "tiny", STEM[:20], SamplingParams(max_tokens=9, temperature=1.5, seed=3, **more))
    whole = alone(tiny_folder, request)
    assert len(whole) == 9
    rest = alone(tiny_folder, Request("r", "tiny", STEM[:20], request.sampling, resume_ids=tuple(whole[:cut])))
    assert rest == whole[cut:]


def test_preemption_recomputes_and_changes_nothing(tiny_folder: Path) -> None:
    """The property above forces preemption only sometimes; here it is certain."""
    wanted = [
        Request(f"r{i}", "tiny", STEM[i : 20 + i], SamplingParams(max_tokens=40, temperature=1.0, seed=i, **more))
        for i, more in enumerate([{}, PENALTIES, {}, PENALTIES])
    ]
    busy = engine(tiny_folder, CacheConfig(12, 8, prefix_caching=False), SchedulerConfig(max_batch_tokens=64))
    outputs = busy.run(wanted)
    counters = busy.scheduler.counters
    assert counters.preemptions > 0
    assert counters.recomputed_tokens > 0
    assert counters.finished[FinishReason.LENGTH] == 4
    assert outputs == {r.request_id: alone(tiny_folder, r) for r in wanted}
