"""What a gateway's parts say in `GET /status`, in a line each: the load, a rollout, limits, costs, alerts.

Pure, and content with whatever it is given: a part that is not there has no line, and of one that it does not know it
shows the single figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

KNOWN = ("load", "rollout", "experiments", "slo", "quality", "cost", "alerts", "degradation", "flags")
MOST_FIGURES = 6  # of one part, in its line


def section_lines(status: Mapping[str, Any]) -> list[str]:
    """Return the lines of the parts that have something to say."""
    lines = []
    for name in KNOWN:
        try:
            said = _SPECIAL.get(name, _figures)(status[name])
        except (LookupError, TypeError, ValueError, AttributeError):  # absent, or of another version's shape
            continue
        if said:
            lines.append(f"{name}: {said}")
    return lines


def _load(load: Mapping[str, Any]) -> str:
    good = load["good_fraction"]
    right = "" if good is None else f", {good:.1%} of them right"
    factor = "" if load["factor"] == 1 else f" (times {load['factor']:g}, by hand)"
    return (
        f"{load['rate_per_s']:.1f} questions/s{factor}; {load['answered']:,} answered{right}, {load['failed']:,} failed"
    )


def _rollout(rollout: Mapping[str, Any]) -> str:
    stages, stage = rollout["stages"], rollout["stage"]
    text = f"{rollout['new']} after {rollout['old']}, {rollout['strategy']}, {rollout['phase']}"
    if rollout.get("reason"):
        return f"{text}: {rollout['reason']}"
    place = f"stage {stage + 1} of {len(stages)}" if isinstance(stage, int) else "before its first stage"
    answers = f"{rollout['answers_in_stage']} of {rollout['min_answers']} answers"
    return f"{text}; {place}, {rollout['share']:.0%} of the users, {answers}"


def _alerts(alerts: Any) -> str:
    """Return the names of those that fire."""
    rows = alerts.get("firing", ()) if isinstance(alerts, Mapping) else alerts
    firing = [row for row in rows if not isinstance(row, Mapping) or row.get("state", "firing") == "firing"]
    names = [str(row.get("name", row.get("text", row))) if isinstance(row, Mapping) else str(row) for row in firing]
    return ", ".join(names) if names else "none"


def _figures(section: Any) -> str:
    pairs = [f"{name} {value}" for name, value in _single(section)]
    more = len(pairs) - MOST_FIGURES
    return ", ".join(pairs[:MOST_FIGURES]) + (f" and {more} more (--json has all)" if more > 0 else "")


def _single(section: Any, above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the single figures of a section with their names, those one level below included."""
    if not isinstance(section, Mapping):
        return
    for name, value in section.items():
        label = f"{above} {name}".strip().replace("_", " ")
        if isinstance(value, Mapping) and not above:
            yield from _single(value, str(name))
        elif isinstance(value, bool | int | str):
            yield label, str(value)
        elif isinstance(value, float):
            yield label, f"{value:.4g}"


_SPECIAL: Mapping[str, Callable[[Any], str]] = {"load": _load, "rollout": _rollout, "alerts": _alerts}
