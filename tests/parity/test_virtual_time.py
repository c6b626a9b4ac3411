"""The loop on virtual time: asyncio as it is, the order of one instant, and what cannot go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parity.virtual_time import CONTROL, FLEET, TURN, Deadlock, VirtualTimeLoop, run, sleep

Name = Callable[[str], None]


def told(*sleepers: Callable[[Name], Awaitable[None]]) -> list[tuple[float, str]]:
    """Run all at once; return who said what when."""

    async def main() -> list[tuple[float, str]]:
        loop, said = asyncio.get_running_loop(), list[tuple[float, str]]()
        async with asyncio.TaskGroup() as group:
            for sleeper in sleepers:
                group.create_task(sleeper(lambda name: said.append((loop.time(), name))))  # type: ignore[arg-type]
        return said

    return run(main())


def says(name: str, seconds: float, rank: int = 0) -> Callable[[Name], Awaitable[None]]:
    async def sleeper(say: Name) -> None:
        await sleep(seconds, rank)
        say(name)

    return sleeper


def test_a_day_passes_in_no_time_and_the_clock_jumps_from_timer_to_timer() -> None:
    assert told(says("tomorrow", 86400.0), says("soon", 0.5)) == [(0.5, "soon"), (86400.0, "tomorrow")]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([CONTROL, FLEET, 0, TURN, TURN + 1])), max_size=20))
def test_timers_fire_by_time_then_rank_then_the_order_in_which_they_were_set(timers: list[tuple[int, int]]) -> None:
    sleepers = [says(str(i), float(when), rank) for i, (when, rank) in enumerate(timers)]
    in_order = sorted(range(len(timers)), key=lambda i: timers[i])
    assert [name for _, name in told(*sleepers)] == [str(i) for i in in_order]


def test_a_turn_comes_after_all_that_its_instant_brings_and_before_the_next_turn_comes_what_it_causes() -> None:
    heard: list[str] = []

    async def main() -> None:
        events = [asyncio.Event() for _ in range(3)]

        async def listen(name: str, event: asyncio.Event) -> None:
            await event.wait()
            heard.append(name)

        async def fire(seconds: float, rank: int, name: str, event: asyncio.Event) -> None:
            await sleep(seconds, rank)
            heard.append(name)
            event.set()

        async with asyncio.TaskGroup() as group:
            for name, event in zip(("after arrival", "after turn 1", "after turn 2"), events, strict=True):
                group.create_task(listen(name, event))
            group.create_task(fire(1.0, TURN + 1, "turn 2", events[2]))
            group.create_task(fire(1.0, TURN, "turn 1", events[1]))
            group.create_task(fire(1.0, 0, "arrival", events[0]))

    run(main())
    assert heard == ["arrival", "after arrival", "turn 1", "after turn 1", "turn 2", "after turn 2"]


def test_timeouts_and_cancelled_timers_work_and_do_not_move_the_clock() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(100.0, lambda: None).cancel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.0):
                await asyncio.sleep(5.0)
        return loop.time()

    assert run(main()) == 2.0


def test_when_everybody_waits_and_no_timer_is_set_that_is_said() -> None:
    async def main() -> None:
        await asyncio.sleep(3.0)
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="at 3 s everybody waits"):
        run(main())


def test_a_failure_that_nobody_awaits_ends_the_run() -> None:
    async def main() -> None:
        async def fail() -> None:
            raise ZeroDivisionError

        task = asyncio.create_task(fail())
        await asyncio.sleep(1.0)
        del task
        await asyncio.sleep(1.0)

    with pytest.raises(ZeroDivisionError):
        run(main())


def test_there_is_no_network_in_it() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", 1)

    with pytest.raises((NotImplementedError, AttributeError)):
        run(main())


def test_tasks_left_over_are_cancelled_at_the_end() -> None:
    ended: list[str] = []

    async def linger() -> None:
        try:
            await asyncio.sleep(1000.0)
        finally:
            ended.append("cancelled")

    async def main() -> None:
        task = asyncio.create_task(linger())
        await asyncio.sleep(1.0)
        assert not task.done()

    run(main())
    assert ended == ["cancelled"]


def test_on_a_real_loop_a_ranked_sleep_is_a_sleep() -> None:
    async def main() -> bool:
        await sleep(0.0, TURN)
        return isinstance(asyncio.get_running_loop(), VirtualTimeLoop)

    assert asyncio.run(main()) is False
