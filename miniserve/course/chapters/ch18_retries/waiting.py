"""Asks and judges the waits of chapter 18: the bare wait by its number, the random ones by their distribution.

Any way to draw will do, if the waits are equally likely all over the right range. The first rule that would have given
the same waits explains a wrong answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from miniserve.course.check.ask import Json, Told
from miniserve.course.check.printed import returned_nothing
from miniserve.course.check.verdict import Problem
from miniserve.seeds import generator

MANY = 2000  # draws, enough to tell their range
MOST_STEPS = 2000  # interpreter steps for four waits; ours take about 30
_APART = 0.07  # two distributions farther apart differ by more than chance (p about 10^-8)
Row = dict[str, Json]


def drive_waits(answer: Json, asked: Json) -> Json:
    """Make `Waits` for each row, with a seed of its own, and draw as often as the row says, in the row's way."""
    import sys
    from random import Random

    steps = 0

    def count(frame, event, _):  # type: ignore[no-untyped-def]
        nonlocal steps
        steps += 1
        return count

    drawn = []
    for row in asked["rows"]:
        waits = answer(Random(row["seed"]), row["base_s"], row["cap_s"])
        way = getattr(waits, row["way"])
        before = sys.gettrace()
        if asked.get("counted"):
            sys.settrace(count)
        try:
            values = [way(row["failures"], row["previous_s"]) for _ in range(row["draws"])]
        finally:
            sys.settrace(before)
        drawn.append([value if type(value) in (int, float) else {"type": type(value).__name__} for value in values])
    return {"drawn": drawn, "steps": steps}


# --- what is asked -------------------------------------------------------------------------------------------------


def _row(
    way: str, failures: int, previous_s: float, base_s: float = 0.5, cap_s: float = 20.0, draws: int = 1, seed: int = 1
) -> Row:
    return {
        "way": way,
        "failures": failures,
        "previous_s": previous_s,
        "base_s": base_s,
        "cap_s": cap_s,
        "draws": draws,
        "seed": seed,
    }


WAYS = ("bare", "full", "equal", "decorrelated")


def waits_contract(seed: int) -> Sequence[Json]:
    """Ask every way for a number, and test that `rng` alone makes it random."""
    luck = [[_row(way, 4, 3.0, draws=20, seed=number) for number in (seed, seed, seed + 1)] for way in WAYS[1:]]
    return [*({"rows": [_row(way, 1, 0.7)]} for way in WAYS), *({"rows": rows, "about": "luck"} for rows in luck)]


def waits_examples(seed: int) -> Sequence[Json]:
    """Ask for bare waits that you can work out by hand."""
    slow = [_row("bare", failures, 0.7) for failures in range(1, 9)]
    return [{"rows": [*slow, *(_row("bare", failures, 0.3, 0.1, 1.0) for failures in range(1, 7))]}]


def waits_properties(seed: int) -> Sequence[Json]:
    """Draw each random way below the cap, at the cap, and where the count and the last wait disagree."""
    places = ((3, 4.0), (7, 15.0), (5, 1.5))
    return [
        {"rows": [_row(way, *place, draws=MANY, seed=seed + i) for i, place in enumerate(places)]} for way in WAYS[1:]
    ]


def waits_differential(seed: int) -> Sequence[Json]:
    rng = generator(seed, "18 waits")

    def settings() -> tuple[int, float, float, float]:
        base_s = round(rng.uniform(0.05, 2), 3)
        cap_s = round(base_s * rng.uniform(3, 40), 3)
        return rng.randint(1, 9), round(rng.uniform(base_s, cap_s), 3), base_s, cap_s

    bare = [_row("bare", *settings()) for _ in range(40)]
    others = [_row(way, *settings(), draws=MANY, seed=rng.randrange(10**6)) for way in WAYS[1:]]
    return [{"rows": bare}, *({"rows": [row]} for row in others)]


def waits_cost(seed: int) -> Sequence[Json]:
    return [{"rows": [_row(way, 100_000, 20.0) for way in WAYS], "counted": True}]


# --- the right ranges, and common wrong ones -----------------------------------------------------------------------

Range = tuple[float, float, float]  # equally likely from the first to the second, then cut down to the third
Rule = tuple[str, str, str, Callable[[Row], Range]]


def _endless(row: Row) -> float:
    """Return the exponential without a cap."""
    return float(row["base_s"] * 2.0 ** min(row["failures"] - 1, 60))


def _bare(row: Row) -> float:
    return float(min(row["cap_s"], _endless(row)))


def _later(row: Row) -> float:
    return float(min(row["cap_s"], 2 * _endless(row)))


_RIGHT: dict[str, Callable[[Row], Range]] = {
    "full": lambda row: (0.0, _bare(row), math.inf),
    "equal": lambda row: (_bare(row) / 2, _bare(row), math.inf),
    "decorrelated": lambda row: (row["base_s"], 3 * row["previous_s"], row["cap_s"]),
}
_ON_TOP = "You add a random amount on top of the full wait, so no client comes earlier, and the cap no longer caps."
_NO_CAP = "It grows beyond the cap. After a night's fault some clients would wait for hours."
_PILES = "You cap after the draw, so many clients wait exactly the cap, and come back together."
_DOUBLED = "You double once too often: the first wait is the base."
_INSIDE = "The random amount replaces the wait, or half of it."
_RULES: dict[str, Sequence[Rule]] = {
    "full": (
        ("jitter-on-top", _ON_TOP, _INSIDE, lambda row: (_bare(row), 2 * _bare(row), math.inf)),
        ("jitter-on-top", _ON_TOP, _INSIDE, lambda row: (_bare(row), 1.1 * _bare(row), math.inf)),
        ("jitter-on-top", _ON_TOP, _INSIDE, lambda row: (_bare(row), _bare(row) + row["base_s"], math.inf)),
        ("jitter-on-top", _ON_TOP, _INSIDE, lambda row: (_bare(row), _bare(row) + 1, math.inf)),
        (
            "around",
            "It falls around the bare wait: clients still come nearly together, some beyond the cap.",
            "From 0 to the bare wait.",
            lambda row: (_bare(row) / 2, 1.5 * _bare(row), math.inf),
        ),
        (
            "from-half",
            "It never falls into the lower half, so this is equal jitter.",
            "From 0 to the bare wait.",
            lambda row: (_bare(row) / 2, _bare(row), math.inf),
        ),
        ("no-cap", _NO_CAP, "Draw below the bare wait, which is capped.", lambda row: (0.0, _endless(row), math.inf)),
        ("piles-up", _PILES, "Cap first, then draw.", lambda row: (0.0, _endless(row), row["cap_s"])),
        ("one-doubling-more", _DOUBLED, "Draw below the bare wait.", lambda row: (0.0, _later(row), math.inf)),
        (
            "from-base",
            "It never falls below the base; full jitter may come back at once.",
            "From 0 to the bare wait.",
            lambda row: (row["base_s"], _bare(row), math.inf),
        ),
    ),
    "equal": (
        ("jitter-on-top", _ON_TOP, _INSIDE, lambda row: (_bare(row), 2 * _bare(row), math.inf)),
        ("jitter-on-top", _ON_TOP, _INSIDE, lambda row: (_bare(row), 1.5 * _bare(row), math.inf)),
        (
            "equal-is-full",
            "It also falls into the lower half, so this is full jitter.",
            "One half is fixed, the other random.",
            lambda row: (0.0, _bare(row), math.inf),
        ),
        (
            "half-forgotten",
            "The fixed half is missing.",
            "One half is fixed, the other random.",
            lambda row: (0.0, _bare(row) / 2, math.inf),
        ),
        ("no-cap", _NO_CAP, "Halve the bare wait.", lambda row: (_endless(row) / 2, _endless(row), math.inf)),
        ("piles-up", _PILES, "Halve the bare wait.", lambda row: (_endless(row) / 2, _endless(row), row["cap_s"])),
        ("one-doubling-more", _DOUBLED, "Halve the bare wait.", lambda row: (_later(row) / 2, _later(row), math.inf)),
    ),
    "decorrelated": (
        (
            "grows-with-count",
            "It grows with the number of failures, but here the wait before decides.",
            "Which of the two arguments matters?",
            lambda row: (row["base_s"], 3 * _bare(row), row["cap_s"]),
        ),
        (
            "from-zero",
            "It may come back at once, but the base is the minimum.",
            "Draw from the base up.",
            lambda row: (0.0, 3 * row["previous_s"], row["cap_s"]),
        ),
        (
            "no-cap",
            _NO_CAP,
            "A draw above the cap becomes the cap.",
            lambda row: (row["base_s"], 3 * row["previous_s"], math.inf),
        ),
        (
            "from-previous",
            "It is never shorter than the wait before, so it only grows.",
            "Draw from the base up.",
            lambda row: (row["previous_s"], 3 * row["previous_s"], row["cap_s"]),
        ),
        (
            "three-bases",
            "It doesn't grow: it never exceeds three times the *base*.",
            "Use three times the wait before.",
            lambda row: (row["base_s"], 3 * row["base_s"], row["cap_s"]),
        ),
        (
            "cap-inside",
            "The range ends at the cap, so all waits below the cap are likelier than they should be.",
            "Draw first, then cap.",
            lambda row: (row["base_s"], min(row["cap_s"], 3 * row["previous_s"]), row["cap_s"]),
        ),
    ),
}
_BARE_RULES: Sequence[tuple[str, str, str, Callable[[Row], float]]] = (
    ("no-cap", _NO_CAP, "No wait is longer than `cap_s`.", _endless),
    ("one-doubling-more", _DOUBLED, "After one failure it is base * 2**0.", _later),
    (
        "linear",
        "It grows by the same step each time; doubling backs off much faster.",
        "Each wait is twice the one before.",
        lambda row: min(row["cap_s"], row["base_s"] * row["failures"]),
    ),
    (
        "previous-doubled",
        "You double the wait before, but the bare wait depends on the count alone.",
        "Use `failures`.",
        lambda row: min(row["cap_s"], 2 * row["previous_s"]),
    ),
    ("never-grows", "It is always the base.", "Each wait is twice the one before.", lambda row: row["base_s"]),
    ("always-cap", "It is always the cap.", "min, or max?", lambda row: max(row["cap_s"], _endless(row))),
)

# --- how it is judged ----------------------------------------------------------------------------------------------


def judge_waits(asked: Json, told: Json) -> Problem | None:
    """Judge the types first, then the randomness, the bare waits, the ranges, and the work."""
    pairs: list[tuple[Row, list[Json]]] = list(zip(asked["rows"], told["drawn"], strict=True))
    for row, drawn in pairs:
        wrong = next((value for value in drawn if isinstance(value, dict)), None)
        if wrong == {"type": "NoneType"}:
            return returned_nothing(_where(row))
        if wrong is not None:
            why = "A wait is a number of seconds."
            return Problem("no-number", f"a {wrong['type']}", why, "Return it.", _where(row))
    if asked.get("about") == "luck":
        return _judge_luck(pairs)
    return (
        _judge_bare([(row, drawn[0]) for row, drawn in pairs if row["way"] == "bare"])
        or _judge_ranges([(row, drawn) for row, drawn in pairs if row["draws"] == MANY])
        or _judge_steps(pairs, told["steps"])
    )


def _where(row: Row) -> str:
    return (
        f"{row['way']}(failures={row['failures']}, previous_s={row['previous_s']:g}), "
        f"base_s={row['base_s']:g}, cap_s={row['cap_s']:g}"
    )


def _judge_luck(pairs: Sequence[tuple[Row, list[float]]]) -> Problem | None:
    (row, first), (_, again), (_, other) = pairs
    if max(first) - min(first) < 1e-9 and first == other:
        why = "It is always the same, so clients that failed together come back together."
        return Problem("constant", f"{first[0]:.3g} s, twenty times", why, "Draw with `self.rng`.", _where(row))
    if first != again:
        seen = f"{first[0]:.4g} s, then {again[0]:.4g} s from the same seed"
        why = "The randomness doesn't come from `self.rng`, so you can never repeat a run."
        return Problem("not-repeatable", seen, why, "Draw with `self.rng`, and nothing else.", _where(row))
    if first == other:
        why = "Two generators gave the same waits, so all clients would draw alike."
        return Problem("same-luck", f"{first[0]:.4g} s from both", why, "Draw with `self.rng`.", _where(row))
    return None


def _judge_bare(found: Sequence[tuple[Row, float]]) -> Problem | None:
    wrong = [(row, wait_s) for row, wait_s in found if not math.isclose(wait_s, _bare(row), rel_tol=1e-9)]
    if not wrong:
        return None
    row, wait_s = wrong[0]
    seen = f"{wait_s:.6g} s; it should be {_bare(row):.6g} s"
    for id_, why, next_, rule in _BARE_RULES:
        if all(math.isclose(value, rule(one), rel_tol=1e-9) for one, value in found):
            return Problem(id_, seen, why, next_, _where(row))
    if min(value for _, value in found) < 0:
        return _negative(seen, row)
    why = "The waits are base, 2 base, 4 base, ..., and none exceeds the cap."
    return Problem("bare", seen, why, "Work this case out by hand.", _where(row))


def _judge_ranges(found: Sequence[tuple[Row, list[float]]]) -> Problem | None:
    wrong = [(row, drawn) for row, drawn in found if not _fits(_RIGHT[row["way"]](row), drawn)]
    if not wrong:
        return None
    row, drawn = wrong[0]
    low, high, cap = _RIGHT[row["way"]](row)
    high = min(high, cap)
    seen = f"{MANY} waits from {min(drawn):.3g} to {max(drawn):.3g} s, {sum(drawn) / MANY:.3g} s on average"
    for id_, why, next_, rule in _RULES[row["way"]]:
        if all(_fits(rule(one), values) for one, values in found):
            return Problem(id_, seen, why, next_, _where(row))
    return _unlike(row, drawn, low, high, seen)


def _unlike(row: Row, drawn: Sequence[float], low: float, high: float, seen: str) -> Problem:
    """Explain waits that no rule gives."""
    if min(drawn) < 0:
        return _negative(seen, row)
    if all(value == int(value) for value in drawn):
        why = "You draw whole seconds only, so many clients come back at the same moment."
        return Problem("whole-seconds", seen, why, "A wait may be any fraction of a second.", _where(row))
    chained = max(drawn) > 3 * min(drawn) and all(b <= 3 * a + 1e-9 for a, b in pairwise(drawn))
    if row["way"] == "decorrelated" and chained:
        why = "It builds on its own last draw, but one `Waits` serves many requests."
        return Problem("remembers", seen, why, "Take the wait before from `previous_s`.", _where(row))
    edge = 0.1 * (high - low)
    if low - 1e-9 <= min(drawn) < low + edge and high - edge < max(drawn) <= high + 1e-9:
        why = f"They fall between {low:.3g} and {high:.3g} s, as they should, but are not equally likely there."
        return Problem("uneven", seen, why, "One number from `self.rng` is enough for one wait.", _where(row))
    why = f"They should fall between {low:.3g} and {high:.3g} s, equally likely everywhere there."
    return Problem("range", seen, why, "Which two numbers does it lie between?", _where(row))


def _negative(seen: str, row: Row) -> Problem:
    return Problem("negative", seen, "No client can wait for less than 0 s.", "Look for a minus.", _where(row))


def _fits(wanted: Range, drawn: Sequence[float]) -> bool:
    """Return whether waits fall as wanted: none outside, and their distribution close to the right one."""
    low, high, cap = wanted
    slack = 1e-9 * max(1.0, high)
    if min(drawn) < low - slack or max(drawn) > min(high, cap) + slack:
        return False
    ordered, count = sorted(drawn), len(drawn)

    def below(value: float) -> float:
        return 1.0 if value >= cap - slack else (value - low) / (high - low) if high > low else 1.0

    steps = [(place, value) for place, value in enumerate(ordered) if value < cap - slack]
    return all(max((place + 1) / count - below(v), below(v) - place / count) < _APART for place, v in steps) and (
        abs(len(steps) / count - min(1.0, (cap - low) / (high - low) if high > low else 1.0)) < _APART
    )


def _judge_steps(pairs: Sequence[tuple[Row, list[float]]], steps: int) -> Problem | None:
    if steps <= MOST_STEPS:
        return None
    why = "You double once for each failure, even long after the cap is reached."
    seen = f"{steps:,} steps for {len(pairs)} waits"
    return Problem("counts-through", seen, why, "A power gets there at once.", _where(pairs[0][0]))


def waits_broke(asked: Json, told: Told) -> Problem | None:
    """Explain the exceptions that many learners meet."""
    row = asked["rows"][0]
    if told.error.startswith("OverflowError"):
        why = "After 100,000 failures the power is larger than any Python float."
        return Problem("overflows", told.error, why, "Bound the exponent before the power.", _where(row))
    if "'float' object is not callable" in told.error or "has no attribute" in told.error:
        why = "The four ways are methods, and __init__ keeps `rng`, `base_s` and `cap_s`."
        return Problem("no-such", told.error, why, "Leave __init__ as it was.", _where(row))
    return None
