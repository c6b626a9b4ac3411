"""Replicas in other regions: what goes there and what comes back travels for a while.

On one machine nothing is far away, so a distance is waited for: once before a request arrives, and once for everything
that comes back, in order. Tokens that follow each other closely still do on arrival. `sim.link.FarAttempt` is the same
in a simulation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from miniserve.types import TokenEvent

Distance = Callable[[str | None, str], float]  # (the client's region, the replica's) -> seconds, one way
_Item = tuple[float, TokenEvent | Exception | None]  # when it left, and what; None: the end


def between(pairs: Mapping[tuple[str, str], float]) -> Distance:
    """Return the distance that `pairs` of regions give, in either order; 0 for any other pair, and within a region."""
    seconds = {pair: one for (a, b), one in pairs.items() for pair in ((a, b), (b, a))}
    return lambda client, replica: 0.0 if client == replica else seconds.get((client or "", replica), 0.0)


def nowhere(client: str | None, replica: str) -> float:
    """Return the distance of a fleet whose replicas are all at hand."""
    return 0.0


async def far(events: AsyncGenerator[TokenEvent, None], one_way_s: float) -> AsyncGenerator[TokenEvent, None]:
    """Yield `events` as they arrive from `one_way_s` away; closing early closes them."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(one_way_s)
    on_the_way: asyncio.Queue[_Item] = asyncio.Queue()
    sending = asyncio.create_task(_send(events, on_the_way), name="events from afar")
    try:
        while True:
            left_s, item = await on_the_way.get()
            await asyncio.sleep(max(0.0, left_s + one_way_s - loop.time()))
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _send(events: AsyncGenerator[TokenEvent, None], on_the_way: asyncio.Queue[_Item]) -> None:
    now = asyncio.get_running_loop().time
    end: Exception | None = None
    try:
        async with aclosing(events):
            async for event in events:
                on_the_way.put_nowait((now(), event))
    except Exception as error:  # raised again where somebody waits
        end = error
    on_the_way.put_nowait((now(), end))
