"""The asynchronous plumbing of one request: one task for each generator, bounded queues, and nothing left behind.

A generator lives its whole life, `aclose` included, in one task; whoever starts a task here also awaits its end, on
every way out. Knows nothing of tokens or HTTP shapes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

T = TypeVar("T")


class SourceEnd:
    """What a pump puts last into its queue."""


END: Final = SourceEnd()
Items = asyncio.Queue[T | Exception | SourceEnd]


async def pump(source: AsyncGenerator[T, None], queue: Items[T]) -> None:
    """Move all items of `source` into `queue`, then its exception or `END`; close `source` in any case."""
    try:
        async with aclosing(source) as items:
            async for item in items:
                await queue.put(item)
    except Exception as error:
        await queue.put(error)
    else:
        await queue.put(END)


async def stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks and wait until they have cleaned up; what they raise on the way is of no interest any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def merge_streams(sources: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """Yield the items of all sources as they come; the first error ends them all."""
    queue: Items[T] = asyncio.Queue(maxsize=len(sources))
    tasks = [asyncio.create_task(pump(source, queue)) for source in sources]
    try:
        running = len(tasks)
        while running:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if isinstance(item, SourceEnd):
                running -= 1
            else:
                yield item
    finally:
        await stop(*tasks)


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone. Call it only after the whole body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Return what `work` returns, but cancel it as soon as the client goes.

    A server cancels no handler of its own accord when a client leaves, so generation has to race with that.

    Raises: ClientDisconnect when the client was first; whatever `work` raises.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(disconnected(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect()
    finally:
        await stop(working, leaving)
