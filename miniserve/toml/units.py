"""Units at the end of a key: `timeout_s` is in seconds."""

from __future__ import annotations

UNITS = {
    "s": "seconds", "ms": "milliseconds", "us": "microseconds", "min": "minutes", "h": "hours",
    "per_s": "per second", "per_ms": "per millisecond", "per_min": "per minute", "per_h": "per hour",
    "tokens": "tokens", "bytes": "bytes", "kb": "kilobytes", "mb": "megabytes", "gb": "gigabytes", "usd": "US dollars",
    "fraction": "a fraction, 0 to 1", "percent": "per cent", "pct": "per cent", "ratio": "a ratio", "": "no unit",
}  # fmt: skip


def split_unit(key: str) -> tuple[str, str]:
    """Return the key without its unit, and the unit: `timeout_ms` is ("timeout", "ms")."""
    for unit in sorted(UNITS, key=len, reverse=True):
        if unit and key.endswith(f"_{unit}"):
            return key.removesuffix(f"_{unit}"), unit
    return key, ""
