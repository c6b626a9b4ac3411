"""Fills sketches, merges some of them, and says what each tells before and after. Contains no answers.

This module's text goes to where the answer is (`course/grade/tell.py`).
"""

from __future__ import annotations

from miniserve.course.check.ask import Json


def drive_sketch(answer: Json, asked: Json) -> Json:
    """Fill a sketch with each part, merge some of them, and return what each says before and after."""
    makes = asked.get("makes") or [{"alpha": asked["alpha"]}] * len(asked["parts"])
    sketches = [answer(**make) for make in makes]
    for sketch, values in zip(sketches, asked["parts"], strict=True):
        for value in values:
            sketch.add(value)
    return {
        "before": [_seen(sketch, asked["ps"]) for sketch in sketches],
        "refused": [_refused(sketches[0], bad) for bad in asked.get("bad", ())],
        "mixed": [_mixed(sketches[one], sketches[other]) for one, other in asked["merges"]],
        "after": [_seen(sketch, asked["ps"]) for sketch in sketches],
        "buckets": getattr(sketches[0], "num_buckets", 0),
        "held": sum(_held(value) for value in vars(sketches[0]).values()),
    }


def _tried(call: Json, *arguments: Json) -> Json:
    try:
        value = call(*arguments)
    except ValueError:
        return "ValueError"
    if isinstance(value, float):
        return float(value)  # even numpy's
    return value if type(value) is int else {"type": type(value).__name__}


def _seen(sketch: Json, ps: Json) -> Json:
    ends = [getattr(sketch, name, "") for name in ("_min", "_max")]
    return {
        "len": len(sketch),
        "at": [_tried(sketch.percentile, p) for p in ps],
        "left": _tried(len, sketch),  # asking may not change it
        "ends": [str(end) if isinstance(end, int | float) else "" for end in ends],
    }


def _refused(sketch: Json, bad: Json) -> str:
    try:
        sketch.add(float(bad))
        return "nothing"
    except Exception as error:
        return type(error).__name__


def _mixed(one: Json, other: Json) -> str:
    try:
        one.merge(other)
        return ""
    except ValueError:
        return "ValueError"


def _held(thing: Json, depth: int = 3) -> int:
    """Return how many values `thing` holds, down to three levels."""
    if isinstance(thing, str) or not hasattr(thing, "__len__") or not hasattr(thing, "__iter__"):
        return 1
    inner = list(thing.values()) if hasattr(thing, "values") else list(thing)
    return len(inner) + (sum(_held(item, depth - 1) - 1 for item in inner) if depth else 0)
