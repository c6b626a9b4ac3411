"""Asks and judges the sketches of chapter 14, by the exact percentiles of what went into them.

The driver fills some sketches, merges some of those, and asks each before and after. The first mistake that would have
given all of the same answers explains a wrong one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from miniserve.course.check.ask import Json, Told
from miniserve.course.check.verdict import Problem
from miniserve.observe.buckets import Buckets
from miniserve.observe.percentiles import percentile, percentiles, rank
from miniserve.seeds import generator

PS = (0, 1, 25, 50, 75, 90, 95, 99, 100)
TAIL = (50, 95, 99, 99.9, 100)
_ROUNDING = 1 + 1e-9
_ALPHA = 0.01
LENDS = (rank, Buckets.gamma, Buckets.key, Buckets.middle)  # what a sketch builds on


# --- what is asked -------------------------------------------------------------------------------------------------


def _latencies(rng: Random, count: int) -> list[float]:
    """Return values over several powers of ten, with zeros and repeats."""
    values = [rng.choice((0.0, 0.25, 10 ** rng.uniform(-3, 2), 10 ** rng.uniform(-3, 2))) for _ in range(count)]
    return [float(f"{value:.4g}") for value in values]


def _of(parts: Sequence[Sequence[float]], merges: Sequence[tuple[int, int]] = (), ps: Sequence[float] = PS) -> Json:
    return {
        "alpha": _ALPHA,
        "parts": [list(part) for part in parts],
        "merges": list(map(list, merges)),
        "ps": list(ps),
    }


def sketch_contract(seed: int) -> Sequence[Json]:
    different = [{"alpha": 0.01}, {"alpha": 0.02}]
    sizes = [{"alpha": 0.01, "max_buckets": 9}, {"alpha": 0.01}]
    return [
        _of([[0.3]]),
        _of([[]]),
        {**_of([[0.505, 2.0]]), "bad": ["-0.5", "inf", "nan"]},
        {**_of([[1.0], [2.0]], [(0, 1)]), "makes": different},
        {**_of([[1.0], [2.0]], [(0, 1)]), "makes": sizes},
        _of([[1.0]], ps=(50, 101, -1)),
    ]


def sketch_examples(seed: int) -> Sequence[Json]:
    return [
        _of([[0.3, 0.5, 0.4, 15.0]]),
        _of([[0.0, 0.0, 0.3]]),
        _of([[0.2, 0.2, 0.2, 0.2, 8.0]]),
        _of([[0.3, 0.5, 0.4], [9.0, 11.0]], [(0, 1)]),
        _of([[9.0, 11.0, 0.4], [0.3, 0.4, 0.4, 0.4]], [(0, 1)]),
        _of([[0.3, 0.5], [], [0.0]], [(0, 1), (0, 2)]),
    ]


def sketch_properties(seed: int) -> Sequence[Json]:
    """Return random parts, merged in a row and as a tree; a part may be empty."""
    rng = generator(seed, "14 sketches")
    orders = ([(0, 1), (0, 2)], [(1, 2), (0, 1)], [(0, 2), (0, 1)])
    alone = [_of([_latencies(rng, rng.randint(1, 80))]) for _ in range(4)]
    merged = [_of([_latencies(rng, rng.randint(0, 50)) for _ in range(3)], order) for order in orders for _ in range(2)]
    return [*alone, *merged]


def sketch_differential(seed: int) -> Sequence[Json]:
    """Return a heavy tail on three replicas, one of them slow; then the same with a bound on the buckets."""
    rng = generator(seed, "14 tail")

    def latency(slow: float) -> float:
        return round(slow * (rng.lognormvariate(-0.7, 0.5) if rng.random() < 0.97 else rng.paretovariate(1.2)), 4)

    parts = [[latency(slow) for _ in range(count)] for slow, count in ((1, 500), (1, 700), (12, 300))]
    free = _of(parts, [(0, 1), (0, 2)], TAIL)
    return [_of([parts[0]], ps=TAIL), free, _bounded(free, 200), *_full(rng)]


def _full(rng: Random) -> Sequence[Json]:
    """Return sketches of at most 20 buckets, of values that would fill 40: alone, merged upwards, merged downwards."""
    starts = rng.uniform(1, 2), rng.uniform(5, 9)
    low, high = ([round(start * 1.0203**i, 5) for i in range(40)] for start in starts)
    upwards, downwards = _of([low, high], [(0, 1)]), _of([high, low], [(0, 1)])
    return [_bounded(asked, 20) for asked in (_of([high]), upwards, downwards)]


def _bounded(asked: Json, max_buckets: int) -> Json:
    return {**asked, "makes": [{"alpha": _ALPHA, "max_buckets": max_buckets}] * len(asked["parts"])}


def sketch_cost(seed: int) -> Sequence[Json]:
    rng = generator(seed, "14 many")
    return [_of([[round(rng.lognormvariate(0, 0.8), 6) for _ in range(n)] for n in (4000, 1000)], [(0, 1)], (50, 99))]


def fewer_values(asked: Json) -> Sequence[Json]:
    """Propose each part without a half, without a quarter, and so on to all but one value."""
    if asked.get("bad"):
        return []
    cuts = []
    for place, part in enumerate(asked["parts"]):
        size = max(1, len(part) // 2)
        while part and size:
            for at in range(0, len(part), size):
                rest = part[:at] + part[at + size :]
                cuts.append({**asked, "parts": [*asked["parts"][:place], rest, *asked["parts"][place + 1 :]]})
            size //= 2
    return cuts


# --- how it is judged ----------------------------------------------------------------------------------------------

Parts = Sequence[Sequence[float]]
Guess = Callable[[Parts, float], float]


def _together(parts: Parts) -> list[float]:
    return sorted(value for part in parts for value in part)


def _at(parts: Parts, p: float, shift: int) -> float:
    values = _together(parts)
    return values[min(max(rank(p, len(values)) - 1 + shift, 0), len(values) - 1)]


def _floor(parts: Parts, p: float) -> float:
    values = _together(parts)
    return values[max(0, math.floor(p * len(values) / 100) - 1)]


def _mean(parts: Parts, p: float) -> float:
    each = [percentile(part, p) for part in parts if part]
    return sum(each) / len(each)


def _weighted(parts: Parts, p: float) -> float:
    return sum(len(part) * percentile(part, p) for part in parts if part) / len(_together(parts))


def _counters(parts: Parts) -> list[Counter[int]]:
    buckets = Buckets(_ALPHA)
    return [Counter(-(10**6) if value == 0 else buckets.key(value) for value in part) for part in parts]


def _of_counts(counts: Counter[int], p: float) -> float:
    key = percentile(counts.elements(), p)
    return 0.0 if key == -(10**6) else Buckets(_ALPHA).middle(int(key))


def _once(parts: Parts, p: float) -> float:
    return _of_counts(Counter(set().union(*_counters(parts))), p)


def _larger(parts: Parts, p: float) -> float:
    largest: Counter[int] = Counter()
    for counts in _counters(parts):
        largest |= counts
    return _of_counts(largest, p)


def _as_filled(parts: Parts, p: float) -> float:
    """Walk through the buckets in the dictionary's order, after the zeros."""
    counts: Counter[int] = sum(_counters(parts), Counter())
    zeros = counts.pop(-(10**6), 0)
    filled = [0.0] * zeros + [Buckets(_ALPHA).middle(key) for key in counts for _ in range(counts[key])]
    return filled[rank(p, len(filled)) - 1]


_RULES: Sequence[tuple[str, str, str, Guess]] = (
    (
        "unsorted",
        "You went through the buckets in the order in which they were filled.",
        "Sort the keys, smallest first.",
        lambda parts, p: _as_filled(parts, p),
    ),
    (
        "drops-zeros",
        "You left out the zeros, but an answer from a cache takes 0 s, and counts.",
        "Which places do the zeros take?",
        lambda parts, p: percentile([v for v in _together(parts) if v] or [0.0], p),
    ),
    (
        "averages-percentiles",
        "That is the mean of the parts' percentiles, which is no request's percentile.",
        "Add counts; compute the percentile at the end.",
        _mean,
    ),
    (
        "averages-percentiles",
        "That is a weighted mean of the parts' percentiles, which is not the percentile of all either.",
        "Add counts; compute the percentile at the end.",
        _weighted,
    ),
    (
        "worst-part",
        "That is the largest of the parts' percentiles: the slowest replica's, not the fleet's.",
        "Add counts; compute the percentile at the end.",
        lambda parts, p: max(percentile(part, p) for part in parts if part),
    ),
    ("counts-once", "You counted each bucket once, however many values are in it.", "Add up the counts.", _once),
    ("larger-count", "Where both have a bucket, you kept the larger count.", "Counts of two replicas add up.", _larger),
    (
        "one-too-far",
        "You went one place too far.",
        "Stop as soon as you have passed enough values: `<=` or `<`?",
        lambda parts, p: _at(parts, p, 1),
    ),
    (
        "one-too-few",
        "You stopped one place too early.",
        "You must pass at least p %.",
        lambda parts, p: _at(parts, p, -1),
    ),
    ("one-too-few", "You rounded the place down.", "`percentiles.rank` gives the place.", _floor),
    (
        "largest-only",
        "Whatever p is, you return the largest value.",
        "Go through the buckets from the lowest, and stop in time.",
        lambda parts, p: max(_together(parts)),
    ),
    (
        "from-above",
        "You went through the buckets from the largest down.",
        "Sort the keys, smallest first.",
        lambda parts, p: _together(parts)[-rank(p, len(_together(parts)))],
    ),
)


def judge_sketch(asked: Json, told: Json) -> Problem | None:
    """Check that each sketch's answers fit what went into it, before and after merging."""
    parts: list[list[list[float]]] = [[part] for part in asked["parts"]]
    for own, seen in zip(parts, told["before"], strict=True):
        if (problem := _judge_one(asked, own, seen, seen["len"])) is not None:
            return problem
    if (problem := _judge_refusals(asked, told)) is not None:
        return problem
    if _made_differently(asked):
        return None
    for one, other in asked["merges"]:
        parts[one] = parts[one] + parts[other]
    for place, (own, seen) in enumerate(zip(parts, told["after"], strict=True)):
        was = told["before"][place]
        if asked.get("bad") and not _alike(seen, was):
            return _half_counted(asked["ps"], was, seen, _where(own))
        if len(own) == 1 and not _alike(seen, was):
            why = "The merge changed the other sketch, and its replica goes on counting with it."
            seen_text = f"it held {was['len']} values, then {seen['len']}"
            return Problem("changes-other", seen_text, why, "Change `self` only, and share no counter.", _where(own))
        if (problem := _judge_one(asked, own, seen, was["len"])) is not None:
            return problem
    return _judge_size(asked, told)


def _alike(seen: Json, was: Json) -> bool:
    return bool(seen["len"] == was["len"] and seen["at"] == was["at"])


def _half_counted(ps: Sequence[float], was: Json, seen: Json, where: str) -> Problem:
    """Explain that a refused value has left something behind."""
    changes = [(p, a, b) for p, a, b in zip(ps, was["at"], seen["at"], strict=True) if a != b]
    text = f"len was {was['len']} and is {seen['len']}"
    if changes:
        p, before, after = changes[0]
        text = f"percentile({p:g}) was {before:.5g} and is {after:.5g}" if before != "ValueError" else text
    why = "A value that you refused has changed the sketch: percentiles that were right have moved."
    next_ = "Refuse first; update `_min` and `_max` only then."
    return Problem("half-counted", text, why, next_, f"{where}, then add(-0.5)")


def _where(parts: Parts) -> str:
    shown = [", ".join(f"{value:g}" for value in part[:8]) + (" ..." if len(part) > 8 else "") for part in parts]
    return " merged with ".join(f"[{text}]" for text in shown)


def _judge_one(asked: Json, parts: Parts, seen: Json, before: int) -> Problem | None:
    values, where = _together(parts), _where(parts)
    if seen["len"] != len(values):
        return _judge_count(parts, seen["len"], before, where)
    if seen["left"] != len(values):
        why = "Asking for a percentile changed the counts, so the next answer is wrong."
        text = f"len was {seen['len']}; after some percentiles: {seen['left']}"
        return Problem("asking-changes", text, why, "Count down in a variable, and leave `self._buckets` alone.", where)
    pairs = list(zip(asked["ps"], seen["at"], strict=True))
    for p, value in pairs:
        if (problem := _judge_answer(p, value, bool(values), where)) is not None:
            return problem
    found = [(p, value) for p, value in pairs if value != "ValueError"]
    found = [(p, value) for p, value in found if _is_promised(asked, values, p)]
    return _judge_values(asked["alpha"], parts, found, seen["ends"], where) if found else None


def _judge_answer(p: float, value: Json, filled: bool, where: str) -> Problem | None:
    """Check for a number where there is a percentile, and ValueError where there is none."""
    refused, valid = value == "ValueError", filled and 0 <= p <= 100
    if refused and valid:
        return Problem("refuses", f"percentile({p:g}): ValueError", "It does exist.", "When must it raise?", where)
    told = {"NoneType": "None"}.get(value["type"], f"a {value['type']}") if isinstance(value, dict) else str(value)
    if not refused and not valid:
        why = "There is no such percentile: p goes from 0 to 100."
        why = why if filled else "There is no percentile of nothing, and 0 would look like a very good one."
        return Problem("no-error", f"percentile({p:g}) = {told}", why, "Raise ValueError.", where)
    if isinstance(value, dict):
        next_ = "Return it, even after the loop." if told == "None" else "Return a float."
        return Problem("no-number", f"percentile({p:g}) = {told}", "The contract asks for a number.", next_, where)
    return None


def _is_promised(asked: Json, values: Sequence[float], p: float) -> bool:
    """Return whether the percentile lies in the buckets that a bound keeps; the buckets below them were folded."""
    most = _most_buckets(asked)
    return most is None or percentile(values, p) > values[-1] / Buckets(_ALPHA).gamma() ** (most - 1)


def _most_buckets(asked: Json) -> int | None:
    most: int | None = (asked.get("makes") or [{}])[0].get("max_buckets")
    return most


def _made_differently(asked: Json) -> bool:
    makes = asked.get("makes") or [{}]
    return any(make != makes[0] for make in makes)


def _judge_count(parts: Parts, count: int, before: int, where: str) -> Problem | None:
    values = _together(parts)
    seen = f"len is {count}, and {len(values)} values were added"
    lost = len(values) - count
    if len(parts) > 1 and lost and lost == sum(part.count(0) for part in parts[1:]):
        why = "You left out the other's zeros, but an answer from a cache takes 0 s, and counts."
        return Problem("drops-zeros", seen, why, "merge must add `_zeros` as well.", where)
    if count == sum(value > 0 for value in values):
        why = "You left out the zeros, but an answer from a cache takes 0 s, and counts."
        return Problem("drops-zeros", seen, why, "Count zeros without a logarithm.", where)
    if len(parts) > 1 and count == before:
        return Problem("merge-forgets", seen, "`self` is as it was.", "merge must change `self` in place.", where)
    if len(parts) > 1 and count == sum(max(each[key] for each in _counters(parts)) for key in _keys(parts)):
        why = "Where both have a bucket, you kept the larger count."
        return Problem("larger-count", seen, why, "Counts of two replicas add up.", where)
    if len(parts) > 1 and count == len(parts[-1]):
        why = "Only the other's counts are left: they replaced the counts of `self`."
        return Problem("overwrites", seen, why, "Add to what is there.", where)
    if len(parts) > 1 and count in _once_in_merge(parts):
        why = "You counted each bucket of the other once, however many values are in it."
        return Problem("counts-once", seen, why, "Hand its count to `self._count(key, count)`.", where)
    if count == len(set(_keys(parts))):
        why = "You counted each bucket once, however many values are in it."
        return Problem("counts-once", seen, why, "`self._count(key, count)` adds.", where)
    return Problem("miscounts", seen, "Each value counts once.", "Follow one value through your code.", where)


def _once_in_merge(parts: Parts) -> tuple[int, int]:
    """Return how many values there are if a merge adds 1 per bucket: part by part, or all others together."""
    others = [counts - Counter({-(10**6): 10**9}) for counts in _counters(parts[1:])]
    known = len(parts[0]) + sum(part.count(0) for part in parts[1:])
    return known + sum(map(len, others)), known + len(set().union(*others))


def _keys(parts: Parts) -> list[int]:
    return sorted(set().union(*_counters(parts)))


def _judge_values(
    alpha: float, parts: Parts, found: Sequence[tuple[float, float]], ends: Sequence[str], where: str
) -> Problem | None:
    values = _together(parts)
    rights = percentiles(values, [p for p, _ in found])
    wrong = [(p, v, r) for (p, v), r in zip(found, rights, strict=True) if abs(v - r) > alpha * r * _ROUNDING]
    if wrong:
        p, value, right = wrong[0]
        seen = f"percentile({p:g}) = {value:.5g}; the exact one is {right:.5g}"
        if (problem := _judge_ends(values, ends, seen, where)) is not None:
            return problem
        if not value and values[0]:
            why = "That is the answer for a zero, but no value is 0. Places count from 1."
            return Problem("from-zero", seen, why, "Which place does `percentiles.rank` give to the first?", where)
        if len(values) >= 100 and all(_rank_error(values, q, v) < 0.03 for q, v in found):
            why = f"The place is right to within 3 %, and the value is off by {abs(value / right - 1):.0%}, not 1 %."
            next_ = "Bound the error of the value, not of the place: a few places are the whole tail."
            return Problem("rank-error", seen, why, next_, where)
        if all(abs(v - r) <= 3 * alpha * r for (_, v), r in zip(found, rights, strict=True)):
            why = f"That is off by {abs(value / right - 1):.1%}; {alpha:.0%} is allowed."
            return Problem("bound", seen, why, "Count it under its key, and answer with `middle` of that key.", where)
        for id_, why, next_, guess in _RULES:
            if (id_ != "drops-zeros" or values[0] == 0) and all(_near(guess(parts, q), v, alpha) for q, v in found):
                return Problem(id_, seen, why, next_, where)
        if not right and value < min((v for v in values if v), default=math.inf):
            why = "You put a zero in a bucket, but a bucket's middle is never 0."
            return Problem("zero", seen, why, "Count zeros separately, in `self._zeros`; they come first.", where)
        off = f"off by {abs(value / right - 1):.1%}" if right else "not 0"
        why = f"That is {off}; {alpha:.0%} is allowed."
        return Problem("too-far", seen, why, "Work this case by hand, bucket by bucket.", where)
    outside = [(p, v) for p, v in found if not values[0] <= v <= values[-1]]
    if outside:
        seen = f"percentile({outside[0][0]:g}) = {outside[0][1]:.6g}; all values lie from {values[0]} to {values[-1]}"
        why = "No request was as slow, or as fast, as that."
        return Problem(
            "outside", seen, why, "Keep `_min` and `_max`, in add and in merge, and stay between them.", where
        )
    return None


def _judge_ends(values: Sequence[float], ends: Sequence[str], seen: str, where: str) -> Problem | None:
    """Explain that `_min` or `_max` is not what was seen; a sketch may keep them under other names."""
    for name, end, right in zip(("_min", "_max"), ends, (values[0], values[-1]), strict=True):
        if end and float(end) != right:
            which = "smallest" if name == "_min" else "largest"
            why = f"`{name}` is {end}, and the {which} value is {right:g}; answers stay between `_min` and `_max`."
            return Problem("ends", seen, why, "Update both in add and in merge, even for the first value.", where)
    return None


def _near(guess: float, value: float, alpha: float) -> bool:
    return abs(guess - value) <= 2.1 * alpha * guess


def _rank_error(values: Sequence[float], p: float, value: float) -> float:
    """Return how far a value's places are from the right one, as a share of all."""
    low, high = sum(v < value for v in values), sum(v <= value * 1.001 for v in values)
    place = rank(p, len(values))
    return max(low - place, place - high, 0) / len(values)


def _judge_refusals(asked: Json, told: Json) -> Problem | None:
    for bad, result in zip(asked.get("bad", ()), told["refused"], strict=True):
        if result != "ValueError":
            why = "No request takes that long, and counting it would spoil every percentile."
            where = f"after adding {_where(asked['parts'])}"
            return Problem("takes-bad", f"add({bad}) raised {result}", why, "First raise ValueError.", where)
    different = _made_differently(asked)
    if different and told["mixed"] != ["ValueError"]:
        why = "Their buckets have different bounds, so equal keys mean different values."
        return Problem(
            "mixes", "a merge without an error", why, "Compare alpha and max_buckets first.", str(asked["makes"])[:80]
        )
    if not different and "ValueError" in told["mixed"]:
        why = "Both were made alike, so you can add them."
        return Problem("refuses", "merge: ValueError", why, "When must it raise?", _where(asked["parts"]))
    return None


def _judge_size(asked: Json, told: Json) -> Problem | None:
    most, where = _most_buckets(asked), _where(asked["parts"])
    if most is not None and told["buckets"] > most:
        seen = f"{told['buckets']} buckets; {most} are allowed"
        next_ = "`self._count` folds; use it in merge as well."
        return Problem("grows", seen, "You bypassed the bound.", next_, where)
    count = sum(map(len, asked["parts"]))
    if told["held"] > 1000 and count > 2000:
        seen = f"it holds {told['held']:,} numbers after {count:,} values"
        why = "The size of a sketch must not grow with the requests."
        return Problem("keeps-all", seen, why, "Keep one count per bucket.", where)
    return None


def sketch_broke(asked: Json, told: Told) -> Problem | None:
    """Explain the exceptions that many learners meet."""
    adding = f"adding {_where(asked['parts'])}"
    where = told.line or adding
    if told.error.startswith("ValueError: math domain") or "expected a positive" in told.error:
        why = "Zero has no logarithm, so it has no bucket."
        return Problem("zero", told.error, why, "Count zeros separately, in `self._zeros`.", where)
    if "__len__" in told.error:
        why = "`len` adds up the counts, and their sum is negative."
        return Problem("miscounts", told.error, why, "`self._count(key, count)`: first the key.", adding)
    if told.error.startswith("ValueError") and any(0 in part for part in asked["parts"]):
        why = "You refused a zero, but an answer from a cache takes 0 s, and counts."
        return Problem("zero", told.error, why, "Refuse values below 0; count zeros in `self._zeros`.", adding)
    if _made_differently(asked) and not told.error.startswith(("NotImplementedError", "TimeUp")):
        why = "A caller can pass a sketch with other buckets, and expects ValueError."
        return Problem("mixes", told.error, why, "Compare alpha and max_buckets first, and raise ValueError.", where)
    if "changed size during iteration" in told.error:
        why = "A dictionary must not grow while you iterate over it."
        return Problem("changes-while", told.error, why, "Iterate over the other's, or over a copy.", where)
    if told.error.startswith(("IndexError", "ZeroDivisionError", "UnboundLocalError")) and not all(asked["parts"]):
        why = "A sketch may be empty, even one that you merge."
        return Problem("empty", told.error, why, "Raise ValueError in percentile if there are no values.", where)
    return None
