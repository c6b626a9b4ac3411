"""LocalReplica: an engine in a thread, requests on the loop; what happens when either lets the other down."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from miniserve.config import EngineConfig
from miniserve.engine.batch import Batch
from miniserve.engine.engine import load_engine
from miniserve.engine.sampler import Sampled
from miniserve.errors import InternalError, Overloaded, UpstreamError, draining, stopped
from miniserve.replica.local import FAILURES_UNTIL_BROKEN, LocalReplica
from miniserve.types import FinishReason, Request

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(engine: Any, **options: Any) -> AsyncGenerator[LocalReplica, None]:
    replica = LocalReplica(engine, **options)
    replica.start()
    try:
        yield replica
    finally:
        engine.gate.set()
        await replica.close()


async def collect(replica: LocalReplica, request: Request) -> list[int]:
    return [token async for event in replica.generate(request) for token in event.token_ids]


async def test_tokens_arrive_in_order_and_the_last_says_why(engine: Any, make_request: Callable[..., Request]) -> None:
    async with serving(engine) as replica:
        events = [event async for event in replica.generate(make_request(max_tokens=4))]
    assert [event.token_ids for event in events] == [(0,), (1,), (2,), (3,)]
    assert [event.finish_reason for event in events] == [None, None, None, FinishReason.LENGTH]


async def test_only_one_thread_touches_the_engine(engine: Any, make_request: Callable[..., Request]) -> None:
    async with serving(engine) as replica:
        await asyncio.gather(*(collect(replica, make_request(f"q{i}", 3)) for i in range(5)))
    assert len(engine.thread_ids) == 1
    assert threading.get_ident() not in engine.thread_ids


async def test_an_idle_engine_is_not_stepped(engine: Any, make_request: Callable[..., Request]) -> None:
    async with serving(engine) as replica:
        await collect(replica, make_request(max_tokens=3))
        replica.stats()  # wakes the thread, which must find nothing to do
        await collect(replica, make_request(max_tokens=3))
    assert engine.steps == 6


async def test_an_idle_thread_sleeps(engine: Any, make_request: Callable[..., Request]) -> None:
    """It looks at the engine's counters once a round; a round takes a message or a step, and here are four of those."""
    async with serving(engine) as replica:
        await collect(replica, make_request(max_tokens=3))
        await asyncio.to_thread(sum, range(2_000_000))  # time in which a thread that does not sleep makes many rounds
    assert engine.stats_calls <= 1 + 4 + 1  # when it is made, the rounds, and one for the message to stop


@pytest.mark.parametrize("tokens_seen", [0, 1, 3])
async def test_closing_early_aborts_and_frees(
    engine: Any, make_request: Callable[..., Request], until: Any, tokens_seen: int
) -> None:
    async with serving(engine) as replica:
        async with aclosing(replica.generate(make_request(max_tokens=1_000_000))) as events:
            for _ in range(max(tokens_seen, 1)):
                await anext(events)
        await until(lambda: engine.aborted == ["q"] and replica.stats().blocks_used == 0)
        assert replica.max_abort_lag_steps <= 2


async def test_cancelling_the_reader_aborts_too(engine: Any, make_request: Callable[..., Request], until: Any) -> None:
    engine.gate.clear()  # nothing comes: the reader is waiting for its first token
    async with serving(engine) as replica:
        task = asyncio.create_task(collect(replica, make_request()))
        await until(lambda: engine.running)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        engine.gate.set()
        await until(lambda: engine.aborted == ["q"])


async def test_a_finished_request_is_not_aborted(engine: Any, make_request: Callable[..., Request]) -> None:
    async with serving(engine) as replica:
        await collect(replica, make_request("a"))
        await collect(replica, make_request("b"))
    assert engine.aborted == []


async def test_an_id_in_use_is_refused_and_whoever_has_it_is_served(
    engine: Any, make_request: Callable[..., Request], until: Any
) -> None:
    engine.gate.clear()
    async with serving(engine) as replica:
        first = asyncio.create_task(collect(replica, make_request("same", 3)))
        await until(lambda: engine.running)
        second = asyncio.create_task(collect(replica, make_request("same", 5)))
        await asyncio.sleep(0)
        engine.gate.set()
        with pytest.raises(InternalError):
            await second
        assert await first == [0, 1, 2]
    assert engine.aborted == []


async def test_two_clients_that_call_their_requests_alike_are_both_served(replica_url: str) -> None:
    async with httpx.AsyncClient(base_url=replica_url, trust_env=False) as client:
        asking = [
            client.post(
                "/v1/completions",
                json={"model": "tiny", "prompt": "hello", "max_tokens": tokens},
                headers={"x-request-id": "same"},
            )
            for tokens in (3, 5, 4)
        ]
        answers = await asyncio.gather(*asking)
    assert [answer.headers["x-request-id"] for answer in answers] == ["same"] * 3
    assert [answer.json()["usage"]["completion_tokens"] for answer in answers] == [3, 5, 4]
    assert len({answer.json()["id"] for answer in answers}) == 3


async def test_an_id_can_be_used_again_after_an_abort(
    engine: Any, make_request: Callable[..., Request], until: Any
) -> None:
    async with serving(engine) as replica:
        async with aclosing(replica.generate(make_request(max_tokens=1000))) as events:
            await anext(events)
        assert await collect(replica, make_request(max_tokens=3)) == [0, 1, 2]


async def test_a_refusal_of_the_engine_is_raised_to_that_request_only(
    engine: Any, make_request: Callable[..., Request], until: Any
) -> None:
    engine.max_running = 1
    async with serving(engine) as replica, aclosing(replica.generate(make_request("a", 10_000_000))) as first:
        await anext(first)
        with pytest.raises(Overloaded, match="queue is full") as refused:
            await collect(replica, make_request("b"))
        assert refused.value.retry_after_s == 2.0
        assert (await anext(first)).token_ids == (1,)


async def test_a_failed_step_fails_what_ran_and_nothing_else(engine: Any, make_request: Callable[..., Request]) -> None:
    engine.fail_steps = 1
    async with serving(engine) as replica:
        with pytest.raises(InternalError, match="engine failed"):
            await collect(replica, make_request("a"))
        assert engine.aborted == ["a"]
        assert replica.ready()
        assert await collect(replica, make_request("b", 2)) == [0, 1]


async def test_repeated_failures_break_the_replica_and_say_so_once(
    engine: Any, make_request: Callable[..., Request], until: Any
) -> None:
    engine.fail_steps = 10
    called: list[int] = []
    async with serving(engine, on_broken=lambda: called.append(1)) as replica:
        for i in range(FAILURES_UNTIL_BROKEN):
            assert replica.ready()
            with pytest.raises(InternalError):
                await collect(replica, make_request(f"q{i}"))
        await until(lambda: called)
        assert not replica.ready()
        with pytest.raises(Overloaded):
            await collect(replica, make_request("late"))
    assert called == [1]
    assert engine.steps == FAILURES_UNTIL_BROKEN


async def test_failures_with_a_good_step_between_do_not_add_up(
    engine: Any, make_request: Callable[..., Request]
) -> None:
    async with serving(engine) as replica:
        for i in range(2 * FAILURES_UNTIL_BROKEN):
            engine.fail_steps = 1
            with pytest.raises(InternalError):
                await collect(replica, make_request(f"bad{i}"))
            await collect(replica, make_request(f"good{i}", 2))
        assert replica.ready()


async def test_requests_that_no_engine_can_compute_do_not_break_the_replica(
    tiny_folder: Path, make_request: Callable[..., Request]
) -> None:
    """A real engine, which asks itself whether it still can: one poison after the other, each alone in its step."""
    inner = load_engine(tiny_folder, quant="fp32", config=EngineConfig(threads=1))
    compute = inner.runner.execute

    def touchy(batch: Batch) -> Iterable[Sampled | None]:
        if any(work.seq.request_id.startswith("bad") for work in batch.works):
            raise RuntimeError("index out of range")
        return compute(batch)

    inner.runner.execute = touchy  # type: ignore[method-assign]
    replica = LocalReplica(inner)
    replica.start()
    try:
        for i in range(2 * FAILURES_UNTIL_BROKEN):
            with pytest.raises(InternalError):
                await collect(replica, make_request(f"bad{i}"))
        assert replica.ready()
        assert len(await collect(replica, make_request("good", 3))) == 3
    finally:
        await replica.close()


async def test_an_engine_that_cannot_abort_is_not_used_further(
    engine: Any, make_request: Callable[..., Request], until: Any
) -> None:
    """Others that were running must not wait for ever either."""
    async with serving(engine) as replica:
        other = asyncio.create_task(collect(replica, make_request("other", 10_000_000)))
        async with aclosing(replica.generate(make_request("q", 10_000_000))) as events:
            await anext(events)
            engine.fail_abort = True
        with pytest.raises(InternalError):
            await other
        await until(lambda: not replica.ready())


async def test_draining_refuses_the_new_and_finishes_the_old(
    engine: Any, make_request: Callable[..., Request], until: Any
) -> None:
    engine.gate.clear()
    async with serving(engine) as replica:
        old = asyncio.create_task(collect(replica, make_request("old")))
        await until(lambda: engine.running)
        assert await replica.drain(timeout_s=0.0) is False, "one is still running"
        with pytest.raises(Overloaded, match="draining") as refused:
            await collect(replica, make_request("new"))
        assert refused.value.args == draining().args, "as in a simulation"
        assert not replica.ready()
        engine.gate.set()
        assert await replica.drain(timeout_s=20.0) is True
        assert await old == [0, 1, 2, 3, 4]


async def test_stopping_ends_what_runs_with_an_error(
    engine: Any, make_request: Callable[..., Request], until: Any
) -> None:
    async with serving(engine) as replica:
        task = asyncio.create_task(collect(replica, make_request(max_tokens=10_000_000)))
        await until(lambda: engine.running)
        await replica.close()
        with pytest.raises(UpstreamError, match="stopped") as ended:
            await task
        assert ended.value.args == stopped().args, "as in a simulation"
