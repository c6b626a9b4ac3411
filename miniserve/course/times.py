"""How long each notebook takes: measured by a build, kept in one file, told to learners in round numbers.

A build notes the time of a notebook that has none, and of others only when asked (`--times`): how busy a machine is
must not change a notebook's bytes.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

FILE = Path("data/results/course_times.json")
_ROUND_S = (5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 300)


def read_times(root: Path) -> dict[str, float]:
    """Return the seconds of each notebook that was measured."""
    path = root / FILE
    return dict(json.loads(path.read_text(encoding="utf-8"))["seconds"]) if path.is_file() else {}


def note_time(root: Path, name: str, seconds: float) -> None:
    """Keep a notebook's time."""
    times = {**read_times(root), name: round(seconds, 1)}
    about = (
        "seconds that `python -m miniserve.course.build` took to execute each solved notebook, kernel start included"
    )
    path = root / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"about": about, "seconds": dict(sorted(times.items()))}, indent=1) + "\n", encoding="utf-8"
    )


def label(seconds: float | None) -> str:
    """Return the time in words, to the nearest round number: `about 20 s`."""
    if seconds is None:
        return "not measured yet"
    nearest = min(_ROUND_S, key=lambda round_s: abs(math.log(max(seconds, 1.0) / round_s)))
    return f"about {nearest} s" if nearest < 120 else f"about {nearest // 60} min"
