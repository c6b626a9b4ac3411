"""Randomness is injected and named, so that two runs differ only where they are meant to.

`generator` gives a whole generator to one consumer ("balancer", "arrivals"). `uniform` and `number` give a single
number to one *event* (this seed, this token index), whatever happened before it and whichever machine asks. All go
through blake2b: Python's own `hash()` differs from process to process.
"""

from __future__ import annotations

import hashlib
from random import Random

_TWO_53 = 1 << 53  # a float has 53 bits of mantissa


def _digest(parts: tuple[object, ...]) -> int:
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def generator(seed: int, name: str) -> Random:
    """Return the generator called `name` of this seed; streams of different names are independent."""
    return Random(_digest((seed, name)))


def uniform(*key: object) -> float:
    """Return the number in [0, 1) that belongs to `key`: same key, same number, everywhere."""
    return (_digest(key) >> 11) / _TWO_53


def number(*key: object) -> int:
    """Return the 64-bit number that belongs to `key`: a key for somebody else's generator."""
    return _digest(key)


def bucket(*key: object, buckets: int) -> int:
    """Return a sticky bucket number in [0, buckets) for `key`."""
    return _digest(key) % buckets
