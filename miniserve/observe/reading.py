"""How a reader experiences an answer that arrives in pieces: when each is read, and how long the reader waited for it.

A reader takes the pieces in order, needs the same time for each, and cannot read what has not arrived. That is a queue
with one server (Lindley's recursion), seen from the server's side: what counts is how long the reader has nothing to
do. Knows only arrival times; no HTTP and no model. Used by chapter 2.

Sources: 238 words per minute is the mean for adults reading silently in English (Brysbaert, Journal of Memory and
Language 109, 2019, a review of 190 studies); 0.75 words per token is OpenAI's rule of thumb for English text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

WORDS_PER_MIN = 238.0
WORDS_PER_TOKEN = 0.75
READ_S = 60.0 * WORDS_PER_TOKEN / WORDS_PER_MIN  # seconds per token


@dataclass(frozen=True, slots=True)
class ReadPiece:
    """When a piece is read, and how long the reader had nothing to read before it."""

    begins_s: float
    ends_s: float
    waited_s: float


def read_pieces(arrivals_s: Iterable[float], read_s: float = READ_S) -> list[ReadPiece]:
    """Return how each piece is read. The reader is ready at 0 and needs `read_s` per piece; arrivals never decrease."""
    read, free_s = [], 0.0
    for arrived_s in arrivals_s:
        begins_s = max(arrived_s, free_s)
        read.append(ReadPiece(begins_s, begins_s + read_s, begins_s - free_s))
        free_s = begins_s + read_s
    return read


def perceived_wait_s(arrivals_s: Iterable[float], read_s: float = READ_S) -> float:
    """Return how long in total the reader of these pieces has nothing to read."""
    return sum(piece.waited_s for piece in read_pieces(arrivals_s, read_s))
