"""All choices of one call at once: their pieces come mixed, each with its choice's number.

Copies of a prompt (`n`) start when the first of them has its first token: by then the prompt's keys and values are in
the prefix cache, so a prompt of which sixteen answers are wanted is computed once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from miniserve.api.exchange import Exchange
from miniserve.api.flow import merge_streams
from miniserve.api.generation import Generation, TextPiece
from miniserve.api.parts import Parts
from miniserve.api.requests import MAX_PROMPTS
from miniserve.types import Request

Pieces = AsyncGenerator[TextPiece, None]
_AT_ONCE = MAX_PROMPTS  # as many as without copies: one call does not fill the queue


def all_pieces(parts: Parts, requests: Sequence[Request], exchange: Exchange, copies: int) -> Pieces:
    """Return the pieces of all choices; each prompt has `copies` requests, one behind the other."""
    exchange.request = requests[0]
    generations = [
        Generation(parts, request, exchange, index, is_copy=index % copies > 0)
        for index, request in enumerate(requests)
    ]
    sources = [generation.pieces() for generation in generations]
    if len(sources) == 1:
        return sources[0]
    if copies > 1:
        begun = [asyncio.Event() for _ in sources[::copies]]
        places = asyncio.Semaphore(_AT_ONCE)
        sources = [
            _in_turn(source, begun[index // copies], places, first=index % copies == 0)
            for index, source in enumerate(sources)
        ]
    return merge_streams(sources)


async def _in_turn(source: Pieces, begun: asyncio.Event, places: asyncio.Semaphore, *, first: bool) -> Pieces:
    async with aclosing(source) as pieces:
        if not first:
            await begun.wait()
        async with places:
            async for piece in pieces:
                begun.set()
                yield piece
