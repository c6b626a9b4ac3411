"""Weighs what was handed in before anything parses it: some JSON would fill the memory."""

from __future__ import annotations

# A byte of JSON can become 40 bytes in memory. What counts is how many things it holds, and each has a sign of its own.
_MOST_SIGNS = {
    b"{": ("objects", 300_000),
    b"[": ("lists", 300_000),
    b",": ("commas", 3_000_000),
    b'"': ("quotes", 3_000_000),
}


def too_heavy(raw: bytes) -> str:
    """Return why JSON is not parsed, as a sentence; empty if it is small enough."""
    for sign, (what, most) in _MOST_SIGNS.items():
        if (count := raw.count(sign)) > most:
            return f"It has {count:,} {what}; the limit is {most:,}. Its outputs may be huge."
    return ""
