"""Is a version good enough to be shown to anybody? What `miniserve eval --record` wrote about it says so."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from miniserve.errors import Conflict

RESULTS = Path(__file__).resolve().parents[2] / "data" / "results"


@dataclass(frozen=True, slots=True)
class EvalScores:
    """The shares of right answers of both versions. None: there is no record."""

    old: float | None
    new: float | None


def names_in_records(version: str, folder: Path) -> tuple[str, ...]:
    """Return what a record may call a version: by its files, or by its name."""
    return (folder.name, version.replace("@", "-"))


def recorded_score(names: Collection[str], results: Path = RESULTS) -> float | None:
    """Return the share of right answers in the newest record of a model; None if there is no readable one."""
    found = [path for name in names for path in results.glob(f"*-eval-{name}.json")]
    for path in sorted(found, key=lambda path: path.name[:10], reverse=True):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))["result"]
            (score,) = [row for row in result["scores"] if (row["difficulty"], row["task"]) == ("all", "all")]
            if result["model"] in names:
                return float(score["accuracy"])
        except (OSError, ValueError, TypeError, LookupError):
            continue
    return None


def require_score(old: str, new: str, scores: EvalScores, harm: float) -> None:
    """Raises: Conflict unless the records say that `new` is worse than `old` by less than `harm`."""
    missing = [name for name, score in ((old, scores.old), (new, scores.new)) if score is None]
    if missing:
        raise Conflict(
            f"there is no recorded eval of {' and '.join(missing)}: run `python -m miniserve eval MODEL --record`, or "
            "start the rollout with --without-eval"
        )
    assert scores.old is not None
    assert scores.new is not None
    if scores.old - scores.new > harm - 1e-9:
        raise Conflict(
            f"{new} scored {scores.new:.1%} in its recorded eval and {old} {scores.old:.1%}: worse by "
            f"{100 * (scores.old - scores.new):.1f} points, and the guardrail allows less than {100 * harm:g}. To see "
            "what a canary makes of it, start the rollout with --without-eval"
        )
