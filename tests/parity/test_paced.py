"""The paced replica on a real event loop; what it does on virtual time, tests/parity compares with the simulation."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from parity.paced import PacedReplica

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import InvalidRequest, Overloaded, UpstreamError
from miniserve.types import FinishReason, Request, SamplingParams

pytestmark = pytest.mark.anyio

QUICK = StepTimeModel(0.0005, 0.0, 0.0, 0.0, 0.0)


def a_replica(**scheduler: int) -> PacedReplica:
    config = SchedulerConfig(max_running=4, max_batch_tokens=16, **scheduler)  # type: ignore[arg-type]
    return PacedReplica(config, CacheConfig(num_blocks=8), QUICK, max_model_len=128, version="v1")


def a_request(request_id: str = "q", prompt: int = 20, max_tokens: int = 5) -> Request:
    return Request(request_id, "m", range(100, 100 + prompt), SamplingParams(max_tokens=max_tokens))


async def tokens_of(replica: PacedReplica, request: Request) -> list[int]:
    return [token async for event in replica.generate(request) for token in event.token_ids]


async def test_its_tokens_count_on_from_the_prompt_and_several_are_served_at_once() -> None:
    replica = a_replica()
    answers = await asyncio.gather(*(tokens_of(replica, a_request(f"q{i}", max_tokens=i + 1)) for i in range(6)))
    assert answers == [list(range(120, 121 + i)) for i in range(6)]
    report = await replica.report(1.0)
    stats = report.stats
    assert (report.model, stats.running, stats.waiting, stats.blocks_used) == ("v1", 0, 0, 0)
    assert stats.counters.generated_tokens == 21
    assert stats.counters.steps > 0
    await replica.close()


async def test_closing_the_stream_frees_its_blocks() -> None:
    replica = a_replica()
    async with aclosing(replica.generate(a_request(max_tokens=50))) as events:
        await anext(events)
        assert replica.blocks.num_used > 0
    assert replica.blocks.num_used == 0
    assert not replica.scheduler.has_work
    await replica.close()


async def test_it_refuses_as_an_engine_does() -> None:
    replica = a_replica(max_waiting=1)
    with pytest.raises(InvalidRequest, match="context"):
        await tokens_of(replica, a_request(prompt=500))
    waiting = asyncio.create_task(tokens_of(replica, a_request("q1")))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="1 requests waiting"):
        await tokens_of(replica, a_request("q2"))
    assert len(await waiting) == 5
    await replica.close()


async def test_a_killed_replica_fails_what_it_had_and_cannot_be_reached() -> None:
    replica = a_replica()
    async with aclosing(replica.generate(a_request(max_tokens=50))) as events:
        event = await anext(events)
        assert event.finish_reason is not FinishReason.LENGTH
        replica.kill(UpstreamError("it broke off"))
        with pytest.raises(UpstreamError, match="broke off"):
            await anext(events)
    for asking in (tokens_of(replica, a_request("q2")), replica.report(1.0)):
        with pytest.raises(UpstreamError) as refused:
            await asking
        assert refused.value.code == "unreachable"
    assert replica.blocks.num_used == 0
    await replica.close()
