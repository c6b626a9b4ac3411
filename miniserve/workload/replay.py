"""A recorded trace as demand: its rows give times and lengths; anything else is drawn as for other demand.

The whole file is read once when it is opened, so a bad row is found before anything runs, and again row by row during a
run. Prompts of rows with block ids have equal tokens where their ids are equal, so the engine's own prefix cache finds
what the recorded service's could have found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import overload

from miniserve.errors import SetupError
from miniserve.types import TokenIds
from miniserve.workload.traces import MOST_TOKENS, TraceRow, read_trace

_TOKENS_PER_ROW = MOST_TOKENS


@dataclass(frozen=True, slots=True)
class RecordedTrace:
    """A checked file; as arrivals it ends with its last row. `speed` 2 replays it in half the time."""

    path: Path
    format: str
    rows: int
    duration_s: float  # of the file, from the first row to the last
    speed: float = 1.0
    unused: tuple[str, ...] = ()  # keys of the file that say nothing here

    @classmethod
    def open(cls, path: Path, format: str, speed: float = 1.0) -> RecordedTrace:
        """Check every row of a file. Raises: SetupError with file, line and reason."""
        rows, last_s = 0, 0.0
        unused: set[str] = set()
        for row in read_trace(path, format, unused):
            rows, last_s = rows + 1, row.time_s
        if rows == 0:
            raise SetupError(f"{path} has no rows")
        return cls(path, format, rows, last_s, speed, tuple(sorted(unused)))

    @property
    def rate_per_s(self) -> float:
        """Mean number of rows per second; a file with a single moment counts as one second."""
        return self.rows / (self.duration_s or 1.0) * self.speed

    def rate_at(self, time_s: float) -> float:
        return self.rate_per_s

    def times(self, rng: Random) -> Iterator[float]:
        return (row.time_s / self.speed for row in self.read())

    def read(self) -> Iterator[TraceRow]:
        """Yield the rows, with the file's own times."""
        return read_trace(self.path, self.format)


def prompt_of(row: TraceRow, number: int) -> TokenIds:
    """Return the prompt of the row with this number: its blocks' tokens where it has ids, its own elsewhere."""
    base = number * _TOKENS_PER_ROW
    if not row.hash_ids:
        return range(base, base + row.prompt_tokens)
    return BlockTokens(row.hash_ids, row.block_tokens, row.prompt_tokens, own=-base - _TOKENS_PER_ROW)


class BlockTokens(Sequence[int]):
    """Tokens made from block ids: block b has the numbers from b * block_tokens on. The rest are the row's own.

    A handful of ids stands for a hundred thousand tokens; the numbers are made as they are read.
    """

    __slots__ = ("_block_tokens", "_ids", "_length", "_own")

    def __init__(self, ids: tuple[int, ...], block_tokens: int, length: int, own: int) -> None:
        self._ids, self._block_tokens, self._length, self._own = ids, block_tokens, length, own

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [self._token(i) for i in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return self._token(index % self._length)

    def _token(self, place: int) -> int:
        block, offset = divmod(place, self._block_tokens)
        return self._ids[block] * self._block_tokens + offset if block < len(self._ids) else self._own + place
