"""Regions in virtual time: what is far away is heard of later, in order, and given up when its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from parity import virtual_time

from miniserve.errors import UpstreamError
from miniserve.gateway.distance import between, far, nowhere
from miniserve.types import TokenEvent

EVERY_S = 0.1


async def tokens(closed: list[float], error: Exception | None = None) -> AsyncGenerator[TokenEvent, None]:
    try:
        for i in range(5):
            await asyncio.sleep(EVERY_S)
            yield TokenEvent("q", (i,))
        if error is not None:
            raise error
    finally:
        closed.append(asyncio.get_running_loop().time())


def test_everything_comes_later_by_two_ways_and_no_slower() -> None:
    async def main() -> list[tuple[int, float]]:
        loop = asyncio.get_running_loop()
        async with aclosing(far(tokens([]), 0.25)) as events:
            return [(event.token_ids[0], round(loop.time(), 9)) async for event in events]

    assert virtual_time.run(main()) == [(i, round(0.5 + EVERY_S * (i + 1), 9)) for i in range(5)]


def test_a_failure_arrives_behind_the_tokens_before_it() -> None:
    async def main() -> int:
        events = far(tokens([], UpstreamError("broke")), 0.25)
        came = [await anext(events) for _ in range(5)]
        with pytest.raises(UpstreamError, match="broke"):
            await anext(events)
        return len(came)

    assert virtual_time.run(main()) == 5


def test_leaving_early_closes_the_stream_there() -> None:
    async def main() -> list[float]:
        closed: list[float] = []
        async with aclosing(far(tokens(closed), 0.25)) as events:
            await anext(events)
        return closed

    assert virtual_time.run(main()) == [pytest.approx(0.6)]


def test_distances_count_in_either_order_and_none_is_no_distance() -> None:
    distance = between({("eu", "us"): 0.04})
    assert (distance("eu", "us"), distance("us", "eu")) == (0.04, 0.04)
    assert [distance(*pair) for pair in ((None, "us"), ("eu", "eu"), ("asia", "us"), ("eu", ""))] == [0.0] * 4
    assert nowhere("eu", "us") == 0.0
