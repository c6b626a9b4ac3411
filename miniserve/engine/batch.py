"""What one step computes: a list of works, each a stretch of one sequence's tokens.

Made by the scheduler, computed by the runner (or timed by `step_time`), booked by the scheduler again. Pure Python.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from miniserve.engine.sequence import Sequence


class Work(NamedTuple):
    """Compute tokens `[start, start + num_tokens)` of `seq` in this step."""

    seq: Sequence
    start: int
    num_tokens: int
    samples: bool  # the last token of the sequence is among them, so a new one comes out

    @property
    def end(self) -> int:
        return self.start + self.num_tokens


class Batch:
    """One step's work, rows of a single token first, and what its duration depends on.

    decode_rows      works of a single token
    context_tokens   cached tokens that these attend to, themselves included
    prefill_tokens   tokens in all larger works (chunks of prompts)
    prefill_pairs    (query, key) pairs that the chunks attend over
    """

    __slots__ = ("context_tokens", "decode_rows", "prefill_pairs", "prefill_tokens", "works")

    def __init__(self, works: Iterable[Work] = ()) -> None:
        works = list(works)
        rows = [work for work in works if work.num_tokens == 1]
        chunks = [work for work in works if work.num_tokens > 1]
        self.works = (*rows, *chunks)
        self.decode_rows = len(rows)
        self.context_tokens = sum([work.start for work in rows]) + len(rows)
        self.prefill_tokens = sum([work.num_tokens for work in chunks])
        self.prefill_pairs = sum([num * (2 * start + num + 1) // 2 for _, start, num, _ in chunks])

    def __bool__(self) -> bool:
        return bool(self.works)

    @property
    def num_tokens(self) -> int:
        return self.decode_rows + self.prefill_tokens
