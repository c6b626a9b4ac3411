"""Sequences with made-up tokens: each token is followed by the next number.

A simulation cares which texts share a beginning, not what they say. If a conversation owns a stretch of numbers and its
text is `range(first, first + n)`, then a longer text of the same conversation continues a shorter one, two
conversations never share, and a block is identified by where its text begins and by its position: no token lists and no
hashing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Seq
from functools import lru_cache

from miniserve.engine.sequence import BlockKey, Sequence
from miniserve.types import Request

# No text has more blocks than this: 2**21 over the golden ratio, made odd. Python hashes an integer to itself, so with
# a power of two all texts would start at the same slot of a dict and collide block by block.
_KEYS_PER_TEXT = 0x13C6EF
_TOKENS_PER_TEXT = 1 << 20  # a text usually begins at a multiple of it


def make_sequence(request: Request, queued_s: float) -> SimSequence:
    """Return the lightest sequence that can hold `request`."""
    kind = RangeSequence if isinstance(request.prompt_ids, range) else CountingSequence
    return kind(request, queued_s)


class SimSequence(Sequence):
    """A sequence that makes up its own tokens, whatever it is told was sampled."""

    __slots__ = ()

    def extend(self, count: int) -> None:
        """Add the tokens of `count` steps."""
        raise NotImplementedError


class CountingSequence(SimSequence):
    """Any prompt; what is sampled counts on from its last token."""

    __slots__ = ()

    def append(self, token: int) -> None:
        super().append(self._tokens[-1] + 1)

    def extend(self, count: int) -> None:
        first = self._tokens[-1] + 1
        self._tokens.extend(range(first, first + count))
        self.num_tokens += count


class RangeSequence(SimSequence):
    """`tokens` is a range. The prompt's step is 1, its first number at least 0; resumed tokens continue it."""

    __slots__ = ("_first_key",)

    def _read(self, request: Request) -> list[int]:
        self._first_key = _first_key(request.prompt_ids[0] if request.prompt_ids else 0, request.tenant)
        return []

    @property
    def tokens(self) -> Seq[int]:
        first = self.request.prompt_ids[0]
        return range(first, first + self.num_tokens)

    def append(self, token: int) -> None:
        self.num_tokens += 1

    def extend(self, count: int) -> None:
        self.num_tokens += count

    def block_keys(self, block_size: int) -> Seq[BlockKey]:
        return range(self._first_key, self._first_key + self.num_tokens // block_size)


def _first_key(first_token: int, tenant: str) -> int:
    """Return the key of a text's first block: different for each beginning, and small where possible, for speed."""
    number, rest = divmod(first_token, _TOKENS_PER_TEXT)
    key = (number + (rest << 64)) * _KEYS_PER_TEXT
    return key + _tenant_key(tenant) if tenant else key


@lru_cache(maxsize=4096)
def _tenant_key(tenant: str) -> int:
    """Return a number that keeps tenants apart. (The nameless tenant has 0, so its keys stay small integers.)"""
    return int.from_bytes(hashlib.blake2b(tenant.encode(), digest_size=8).digest(), "big") << 128
