"""Finds and weighs what was handed in before anything parses it: nested folders, JSON that would fill the memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FILE_LIMIT_BYTES = 100_000_000
_DEEPEST = 20  # folders inside one another, in one learner's folder
# A byte of JSON can become 40 bytes in memory. What counts is how many things it holds, and each has a sign of its own.
_MOST_SIGNS = {
    b"{": ("objects", 300_000),
    b"[": ("lists", 300_000),
    b",": ("commas", 3_000_000),
    b'"': ("quotes", 3_000_000),
}


def notebooks_below(folder: Path) -> Iterator[Path]:
    """Yield the notebooks below a folder in order, not through links, and not from what nobody could have meant."""
    waiting = [(folder, 0)]
    while waiting:
        at, depth = waiting.pop()
        entries: list[os.DirEntry[str]] = []
        with suppress(OSError), os.scandir(at) as found:
            entries = sorted((one for one in found if not one.name.startswith(".")), key=lambda one: one.name)
        yield from (Path(one.path) for one in entries if one.name.endswith(".ipynb"))
        if depth < _DEEPEST:
            inner = [Path(one.path) for one in entries if one.is_dir(follow_symlinks=False)]
            waiting += [(one, depth + 1) for one in reversed(inner)]


def read_bytes(path: Path) -> tuple[bytes, str]:
    """Return what a file holds, or nothing and a sentence that says why it wasn't read."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return b"", "It is a link or no ordinary file, so it was not read."
        if status.st_size > FILE_LIMIT_BYTES:
            return b"", _huge(f"{status.st_size:,} bytes", FILE_LIMIT_BYTES)
        with path.open("rb") as file:
            return file.read(FILE_LIMIT_BYTES), ""
    except OSError as error:
        return b"", f"It can't be read: {error.strerror}."


def too_heavy(raw: bytes) -> str:
    """Return why JSON is not parsed, as a sentence; empty if it is small enough."""
    for sign, (what, most) in _MOST_SIGNS.items():
        if (count := raw.count(sign)) > most:
            return _huge(f"{count:,} {what}", most)
    return ""


def _huge(what: str, most: int) -> str:
    return f"It has {what}; the limit is {most:,}. Its outputs may be huge."
