"""Randomness is injected and named, so that two runs differ only where they should.

`generator` gives a whole generator to one consumer ("balancer", "arrivals"). `uniform` and `number` give a single
number to one *event* (this seed, this token index), whatever happened before it and on any machine. All use blake2b,
because Python's own `hash()` differs from process to process.
"""

from __future__ import annotations

import hashlib
from random import Random

_TWO_53 = 1 << 53  # a float has 53 bits of mantissa


def _digest(parts: tuple[object, ...]) -> int:
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def generator(seed: int, name: str) -> Random:
    """Return this seed's generator called `name`; generators with different names are independent."""
    return Random(_digest((seed, name)))


def uniform(*key: object) -> float:
    """Return the number in [0, 1) for `key`: same key, same number, everywhere."""
    return (_digest(key) >> 11) / _TWO_53


def number(*key: object) -> int:
    """Return the 64-bit number for `key`, for example to seed another generator."""
    return _digest(key)


def bucket(*key: object, buckets: int) -> int:
    """Return the bucket in [0, buckets) that `key` always falls into."""
    return _digest(key) % buckets
