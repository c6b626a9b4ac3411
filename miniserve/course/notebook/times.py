"""How long each notebook takes: a build measures it, one file keeps it, and learners read it in round numbers.

A build records a notebook's time if there is none yet, or if asked (`--times`): the machine's load must not change a
notebook's bytes.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

FILE = Path("data/results/course_times.json")
_ROUND_S = (5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 300)
_ABOUT = {
    "seconds": "that `python -m miniserve course build` took to execute a solved notebook, kernel start included",
    "peak_mib": "peak resident memory of the kernel and all processes that it started, sampled every 0.1 s",
    "checks_s": "seconds of each cell that checks an answer, longest first",
}


@dataclass(slots=True)
class Took:
    """What one run of a notebook took."""

    seconds: float = 0.0
    peak_mib: float = 0.0
    checks_s: list[float] = field(default_factory=list)


def read_times(root: Path) -> dict[str, float]:
    """Return the seconds that each measured notebook took."""
    return dict(_read(root).get("seconds", {}))


def note_times(root: Path, name: str, took: Took) -> None:
    """Record what a notebook took."""
    rows = {
        "seconds": round(took.seconds, 1),
        "peak_mib": round(took.peak_mib),
        "checks_s": sorted((round(seconds, 2) for seconds in took.checks_s), reverse=True),
    }
    kept = _read(root)
    noted = {what: dict(sorted({**kept.get(what, {}), name: row}.items())) for what, row in rows.items()}
    path = root / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"about": _ABOUT, **noted}, indent=1) + "\n", encoding="utf-8")


def _read(root: Path) -> dict[str, Any]:
    path = root / FILE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


@contextlib.contextmanager
def watched_memory(took: Took) -> Iterator[None]:
    """Record in `took` the most memory held by the processes that this one starts inside the block."""
    over, before = threading.Event(), {child.pid for child in psutil.Process().children()}

    def watch() -> None:
        while not over.wait(0.1):
            took.peak_mib = max(took.peak_mib, held_mib(before))

    thread = threading.Thread(target=watch, name="watched-memory")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def held_mib(but: set[int]) -> float:
    """Return the memory of this process's children and their children, without the children `but`."""
    held = 0
    with contextlib.suppress(psutil.Error):  # one that ended just now
        for child in psutil.Process().children():
            if child.pid not in but:
                held += sum(one.memory_info().rss for one in (child, *child.children(recursive=True)))
    return held / (1 << 20)


def label(seconds: float | None) -> str:
    """Return the time in words, to the nearest round number: `about 20 s`."""
    if seconds is None:
        return "not measured yet"
    nearest = min(_ROUND_S, key=lambda round_s: abs(math.log(max(seconds, 1.0) / round_s)))
    return f"about {nearest} s" if nearest < 120 else f"about {nearest // 60} min"
