"""Asks and judges the ranks and buckets of chapter 14, by exact arithmetic.

The first rule that would have given all of the same answers explains a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache

from miniserve.course.check.ask import Json, Told
from miniserve.course.check.verdict import Problem
from miniserve.seeds import generator

MOST_STEPS = 2000  # interpreter steps for one answer; ours take about 50


def drive_rank(answer: Json, asked: Json) -> Json:
    """Call `rank(p, n)` for each pair; return each place, or the type of a wrong one, or that it raised ValueError."""
    import sys

    steps = 0

    def count(frame, event, _):  # type: ignore[no-untyped-def]
        nonlocal steps
        if frame.f_globals.get("__name__") in ("fractions", "decimal", "_pydecimal", "numbers", "re"):
            return None
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return count

    told: list[Json] = []
    before = sys.gettrace()
    for p, n in asked["pairs"]:
        try:
            if asked.get("counted"):
                sys.settrace(count)
            place = answer(float(p) if type(p) is str else p, n)
        except ValueError as error:
            place = {"raises": str(error)}
        finally:
            sys.settrace(before)
        told.append(place if type(place) in (int, dict) else {"type": type(place).__name__})
    return {"places": told, "steps": steps}


def right_place(p: float, n: int) -> int:
    """Return the place by whole numbers alone; `p` means exactly the decimal it is written as."""
    share = Fraction(str(p))
    whole, rest = divmod(share.numerator * n, 100 * share.denominator)
    return max(1, whole + bool(rest))


def _exact(p: float, n: int) -> Fraction:
    return Fraction(str(p)) * n / 100


Place = Callable[[float, int], int]
_VAST = 10**12
_RETURN = "Return what you found, even after the last `if`; print returns nothing."
_BINARY = "In binary floating point the product is a hair above this whole number, so rounding up goes one too far."
_RANK_RULES: Sequence[tuple[str, str, str, Place]] = (
    (
        "rounds-down",
        "You round down, so fewer than p % of the values lie at or before this place.",
        "Round up.",
        lambda p, n: max(1, math.floor(_exact(p, n))),
    ),
    (
        "rounds",
        "You round to the nearest place; half of the time too few values lie at or before it.",
        "Round up, always.",
        lambda p, n: max(1, round(_exact(p, n))),
    ),
    (
        "one-too-far",
        "Where p/100 n is a whole number, that place is enough; yours is the next one.",
        "Round up, and add nothing.",
        lambda p, n: min(n, math.floor(_exact(p, n)) + 1),
    ),
    ("from-zero", "Places count from 1 here.", "The caller takes 1 off.", lambda p, n: right_place(p, n) - 1),
    ("share", "p is a percentage: 99, not 0.99.", "Divide by 100.", lambda p, n: max(1, math.ceil(_exact(p, n) * 100))),
    (
        "no-minimum",
        "p = 0 means the smallest value, which is at place 1.",
        "Never go below 1.",
        lambda p, n: math.ceil(_exact(p, n)),
    ),
    (
        "between",
        "You spread p over n - 1 gaps, as interpolation does. Here you want one of n places.",
        "Which share of n is it?",
        lambda p, n: 1 + math.floor(_exact(p, n - 1)),
    ),
    (
        "between",
        "You spread p over n - 1 gaps, as interpolation does. Here you want one of n places.",
        "Which share of n is it?",
        lambda p, n: 1 + round(_exact(p, n - 1)),
    ),
    ("binary", _BINARY, "Fraction(str(p)) is p exactly.", lambda p, n: max(1, math.ceil(p / 100 * n))),
    ("binary", _BINARY, "Fraction(str(p)) is p exactly.", lambda p, n: max(1, math.ceil(p * n / 100))),
    (
        "binary",
        "Fraction(p) is the binary number nearest to p, which may lie above p.",
        "Fraction(str(p)) takes p as written.",
        lambda p, n: max(1, math.ceil(Fraction(p) * n / 100)),
    ),
)


def judge_rank(asked: Json, told: Json) -> Problem | None:
    """Check that every place is right, and that a p outside 0 to 100 is refused."""
    pairs = [(float(p) if type(p) is str else p, n) for p, n in asked["pairs"]]
    for (p, n), place in zip(pairs, told["places"], strict=True):
        where, valid = f"p={p:g}, n={n}", 0 <= p <= 100
        if isinstance(place, dict):
            if "type" in place:
                none = place["type"] == "NoneType"
                why, next_ = "A place is a whole number, an int: it indexes a list.", "math.ceil gives an int."
                return Problem(
                    "no-int", "None" if none else f"a {place['type']}", why, _RETURN if none else next_, where
                )
            if valid:
                seen, next_ = f"ValueError: {place['raises']}"[:90], "Raise only outside 0 to 100: 0 and 100 are valid."
                return Problem("refuses", seen, "This percentile exists, and it has a place.", next_, where)
        elif not valid:
            why = "There is no such percentile, and a caller would believe a silent answer."
            return Problem("no-error", str(place), why, "Raise ValueError unless 0 <= p <= 100.", where)
    valid_ones = [(p, n, place) for (p, n), place in zip(pairs, told["places"], strict=True) if 0 <= p <= 100]
    wrong = [(p, n, place) for p, n, place in valid_ones if place != right_place(p, n)]
    if wrong:
        p, n, place = wrong[0]
        seen, where = f"place {place}; {right_place(p, n)} is the first place that is enough", f"p={p}, n={n}"
        if n == _VAST:
            why = "A margin hides the error of binary floating point only until n is large."
            return Problem("binary", seen, why, "Fraction(str(p)) is p exactly, and needs no margin.", where)
        for id_, why, next_, rule in _RANK_RULES:
            if all(rule(p, n) == place for p, n, place in valid_ones):
                return Problem(id_, seen, why, next_, where)
        why = "At least p % of the n values must be at this place or before it, and one place less must not be enough."
        return Problem("wrong-place", seen, why, "Work this case with pen and paper.", where)
    if told["steps"] > MOST_STEPS:
        why = "You go through the places one by one, and a service has millions of requests."
        return Problem(
            "counts-through", f"{told['steps']:,} steps", why, "One division finds the place.", f"n={pairs[0][1]:,}"
        )
    return None


def rank_broke(asked: Json, told: Told) -> Problem | None:
    """Explain an exception where the contract asks for ValueError."""
    if all(0 <= float(p) <= 100 for p, _ in asked["pairs"]) or told.error.startswith(("NotImplementedError", "TimeUp")):
        return None
    why = "A caller can cause this with a wrong p, and expects ValueError."
    where = "p=-0.1, p=100.1 or p=nan" + (f"; {told.line}" if told.line else "")
    return Problem("no-error", told.error, why, "Raise ValueError unless 0 <= p <= 100.", where)


def rank_contract(seed: int) -> Sequence[Json]:
    ends = [[0, 5], [100, 5], [0, 1], [100, 1], [50, 1]]
    return [{"pairs": [[99, 200]]}, {"pairs": ends}, {"pairs": [[-0.1, 5], [100.1, 5], ["nan", 5]]}]


def rank_examples(seed: int) -> Sequence[Json]:
    pairs = [[50, 4], [50, 5], [90, 10], [95, 10], [95, 20], [99, 100], [99, 101], [99, 10], [99.9, 500], [1, 10]]
    return [{"pairs": pairs}]


def rank_properties(seed: int) -> Sequence[Json]:
    rng = generator(seed, "14 places")
    pairs = [[round(rng.uniform(0, 100), rng.randrange(4)), rng.randint(1, 2000)] for _ in range(200)]
    return [{"pairs": pairs}]


@lru_cache(maxsize=1)
def _treacherous() -> Sequence[tuple[float, int]]:
    """Return pairs whose place is exactly a whole number, but for which binary arithmetic finds another."""
    pairs = [(thousandths / 1000, n) for thousandths in range(11, 100_000, 37) for n in (1000, 7000, 100_000)]
    rules = [rule for id_, _, _, rule in _RANK_RULES if id_ == "binary"]
    return [pair for rule in rules for pair in [p for p in pairs if rule(*p) != right_place(*p)][:60]]


def rank_differential(seed: int) -> Sequence[Json]:
    rng = generator(seed, "14 treacherous")
    hard = [[p, 100] for p in (7, 14, 28, 29, 55, 56, 57)] + [[99.9, 1000], [99.99, 10_000]]
    return [{"pairs": [*hard, *(list(pair) for pair in rng.sample(_treacherous(), 100))]}]


def rank_cost(seed: int) -> Sequence[Json]:
    vast = [[thousandths / 1000, _VAST] for thousandths in range(2_047, 2_247, 8)]
    return [{"pairs": [[99.9, 20_000]], "counted": True}, {"pairs": vast}]


# --- buckets -------------------------------------------------------------------------------------------------------


def drive_buckets(answer: Json, asked: Json) -> Json:
    """Make buckets with `alpha`; return gamma, the key of each value and the middle of each key."""
    import sys

    steps = 0

    def count(frame, event, _):  # type: ignore[no-untyped-def]
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return count

    def number(value: Json) -> Json:
        if isinstance(value, float):
            return float(value)  # even numpy's
        return value if type(value) is int else {"type": type(value).__name__}

    def each(method: Json, values: Json) -> Json:
        try:
            return [method(value) for value in values]
        except NotImplementedError:
            return []

    made = answer(asked["alpha"])
    before = sys.gettrace()
    if asked.get("counted"):
        sys.settrace(count)
    try:
        keys = each(made.key, asked["values"])
        key_steps = steps
        middles = each(made.middle, asked["keys"])
    finally:
        sys.settrace(before)
    return {
        "gamma": number(made.gamma()),
        "keys": [number(key) for key in keys],
        "middles": [number(middle) for middle in middles],
        "steps": key_steps,
        "middle_steps": steps - key_steps,
    }


def _gamma(alpha: float) -> float:
    return (1 + alpha) / (1 - alpha)


_GAMMA_RULES: Sequence[tuple[str, str, Callable[[float], float]]] = (
    ("gamma-half", "You counted one side only: the middle is alpha from *each* bound.", lambda a: 1 + a),
    ("gamma-half", "You counted one side only: the middle is alpha from *each* bound.", lambda a: 1 / (1 - a)),
    ("gamma-sum", "That is close for small alpha only. Write both bounds in terms of the middle.", lambda a: 1 + 2 * a),
    ("gamma-inverse", "Gamma is the upper bound over the lower, so above 1.", lambda a: (1 - a) / (1 + a)),
    (
        "gamma-square",
        "From the middle up it is not 1 + alpha: alpha is relative to each bound.",
        lambda a: (1 + a) ** 2,
    ),
)
_KEY_RULES: Sequence[tuple[str, str, Callable[[float, float], float]]] = (
    (
        "key-down",
        "You round down, but bucket k *ends* at gamma^k.",
        lambda a, v: math.floor(math.log(v) / math.log(_gamma(a))),
    ),
    (
        "key-nearest",
        "You round to the nearest bound, so half of the values land in the next bucket.",
        lambda a, v: round(math.log(v) / math.log(_gamma(a))),
    ),
    (
        "key-toward-zero",
        "int(...) cuts towards zero, which is up for values below 1 and down above 1.",
        lambda a, v: int(math.log(v) / math.log(_gamma(a))),
    ),
    (
        "key-toward-zero",
        "int(...) cuts towards zero: below 1 it had already rounded up, so you added 1 too much.",
        lambda a, v: int(math.log(v) / math.log(_gamma(a))) + 1,
    ),
    (
        "key-bases",
        "You divided two logarithms of different bases.",
        lambda a, v: math.ceil(math.log10(v) / math.log(_gamma(a))),
    ),
    (
        "key-bases",
        "You divided two logarithms of different bases.",
        lambda a, v: math.ceil(math.log2(v) / math.log(_gamma(a))),
    ),
    (
        "key-sign",
        "A value below 1 has a key of 0 or less: you lost that sign.",
        lambda a, v: abs(math.ceil(math.log(v) / math.log(_gamma(a)))),
    ),
    (
        "key-sign",
        "A value below 1 has a key of 0 or less, but yours all share bucket 0.",
        lambda a, v: max(0, math.ceil(math.log(v) / math.log(_gamma(a)))),
    ),
    (
        "key-equal-width",
        "Your buckets are all equally wide, so a small value is far from its middle.",
        lambda a, v: math.ceil(v / a),
    ),
    (
        "key-alpha",
        "You divided the logarithm by alpha, but gamma is the factor between two bounds.",
        lambda a, v: math.ceil(math.log(v) / a),
    ),
)
_MIDDLE_RULES: Sequence[tuple[str, str, Callable[[float, int], float]]] = (
    ("middle-upper", "That is the upper bound, up to 2 alpha from the bucket's values.", lambda a, k: _gamma(a) ** k),
    (
        "middle-lower",
        "That is the lower bound, up to 2 alpha from the bucket's values.",
        lambda a, k: _gamma(a) ** (k - 1),
    ),
    (
        "middle-mean",
        "Halfway between the bounds is more than alpha above the lower one, relative to that bound.",
        lambda a, k: (_gamma(a) ** k + _gamma(a) ** (k - 1)) / 2,
    ),
    (
        "middle-geometric",
        "The geometric mean is more than alpha from the lower bound, and less from the upper one.",
        lambda a, k: _gamma(a) ** (k - 0.5),
    ),
    ("middle-next", "That is the middle of the next bucket.", lambda a, k: _gamma(a) ** k * (1 + a)),
)


def judge_buckets(asked: Json, told: Json) -> Problem | None:
    """Judge gamma first, then keys, then middles: each follows from the one before."""
    alpha = asked["alpha"]
    return (
        _judge_types(alpha, told)
        or _judge_gamma(alpha, told["gamma"])
        or _judge_keys(alpha, asked["values"], told["keys"])
        or _judge_middles(alpha, asked["keys"], told["middles"])
        or _judge_written(asked, told)
        or _judge_steps(asked, told)
    )


def _judge_written(asked: Json, told: Json) -> Problem | None:
    """Return the method that isn't written yet: the driver asked it, and has nothing to tell."""
    for method, values, results in (("key", asked["values"], told["keys"]), ("middle", asked["keys"], told["middles"])):
        if values and not results:
            why = f"`{method}` is not written yet."
            return Problem("not-written", "NotImplementedError", why, "Write it in place of the `raise`.", method)
    return None


def _judge_types(alpha: float, told: Json) -> Problem | None:
    for name, values in (("gamma", [told["gamma"]]), ("key", told["keys"]), ("middle", told["middles"])):
        for value in values:
            if isinstance(value, dict):
                seen = "None" if value["type"] == "NoneType" else f"a {value['type']}"
                why = "A key must be one of Python's own ints." if name == "key" else "The contract asks for a number."
                next_ = _RETURN if seen == "None" else "int(...) makes one." if name == "key" else "Return a float."
                return Problem("no-number", f"{name} gave {seen}", why, next_, f"alpha={alpha}")
            if name == "key" and type(value) is not int:
                why = "Keys are compared and counted: as an int, 3 is the same key everywhere."
                return Problem("no-int", f"{name} gave {value}", why, "math.ceil gives an int.", f"alpha={alpha}")
    return None


def _judge_gamma(alpha: float, gamma: float) -> Problem | None:
    if math.isclose(gamma, _gamma(alpha), rel_tol=1e-9):
        return None
    rules = [(id_, why) for id_, why, rule in _GAMMA_RULES if math.isclose(gamma, rule(alpha), rel_tol=1e-9)]
    id_, why = rules[0] if rules else ("gamma", "With it, some value is more than alpha from any possible middle.")
    next_ = "A middle m is alpha from both bounds: m = (1 + alpha) lower, and m = (1 - alpha) upper."
    return Problem(id_, f"gamma = {gamma:.6g}", why, next_, f"alpha={alpha}")


def _judge_keys(alpha: float, values: Sequence[float], keys: Sequence[int]) -> Problem | None:
    wrong = [(v, k) for v, k in zip(values, keys, strict=bool(keys)) if not _in_bucket(alpha, v, k)]
    if not wrong:
        return None
    value, key = wrong[0]
    place = math.log(value) / math.log(_gamma(alpha))
    seen = f"key({value:.6g}) = {key}; {value:.6g} is gamma^{place:.3f}"
    for id_, why, rule in _KEY_RULES:
        if all(rule(alpha, v) == k for v, k in zip(values, keys, strict=True)):
            return Problem(id_, seen, why, "Solve gamma^k >= value for the smallest whole k.", f"alpha={alpha}")
    why = "The value is not in the bucket of that number."
    return Problem("key", seen, why, "Solve gamma^k >= value for the smallest whole k.", f"alpha={alpha}")


def _in_bucket(alpha: float, value: float, key: int) -> bool:
    """Return whether a bucket holds the value; on the bound itself, either side will do."""
    place = math.log(value) / math.log(_gamma(alpha))
    return key - 1 - 1e-7 < place <= key + 1e-7


def _judge_middles(alpha: float, keys: Sequence[int], middles: Sequence[float]) -> Problem | None:
    rights = [_gamma(alpha) ** (key - 1) * (1 + alpha) for key in keys]
    wrong = [
        (k, m, r)
        for k, m, r in zip(keys, middles, rights, strict=bool(middles))
        if not math.isclose(m, r, rel_tol=1e-9)
    ]
    if not wrong:
        return None
    key, middle, _ = wrong[0]
    low, high = _gamma(alpha) ** (key - 1), _gamma(alpha) ** key
    seen = f"middle({key}) = {middle:.6g}; the bucket holds {low:.6g} to {high:.6g}"
    next_ = "Multiply the lower bound by the factor that takes it to the middle."
    for id_, why, rule in _MIDDLE_RULES:
        if all(math.isclose(m, rule(alpha, k), rel_tol=1e-9) for k, m in zip(keys, middles, strict=True)):
            return Problem(id_, seen, why, next_, f"alpha={alpha}")
    why = f"That is {abs(middle / low - 1):.3g} from the lower bound and {abs(middle / high - 1):.3g} from the upper."
    return Problem("middle", seen, why, next_, f"alpha={alpha}")


def _judge_steps(asked: Json, told: Json) -> Problem | None:
    steps = told["steps"]
    if told["middle_steps"] > MOST_STEPS:
        seen, where = f"{told['middle_steps']:,} steps for one key", f"key={asked['keys'][0]}, alpha={asked['alpha']}"
        return Problem("walks", seen, "You go from bucket to bucket.", "A power of gamma gets there at once.", where)
    if steps <= MOST_STEPS:
        return None
    why = "You go from bucket to bucket until one fits, and `key` runs once per request."
    where = f"value={asked['values'][0]:g}, alpha={asked['alpha']}"
    return Problem("walks", f"{steps:,} steps for one value", why, "A logarithm finds the bucket at once.", where)


def buckets_broke(asked: Json, told: Told) -> Problem | None:
    """Explain the exceptions that many learners meet."""
    if told.error.startswith("OverflowError") or "recursion" in told.error:
        why = "Values go from a nanosecond to a year, and the finest buckets are 0.2 % wide."
        where = told.line or f"alpha={asked['alpha']}"
        return Problem("walks", told.error, why, "A logarithm finds the bucket at once.", where)
    return None


def _asked(alpha: float, values: Sequence[float], keys: Sequence[int]) -> Json:
    return {"alpha": alpha, "values": list(values), "keys": list(keys)}


def buckets_contract(seed: int) -> Sequence[Json]:
    return [_asked(0.01, [0.5, 0.7, 1.3, 1.7], [1])]


def buckets_examples(seed: int) -> Sequence[Json]:
    """Ask with alpha = 0.2: gamma is 1.5, so you can work out the bounds by hand."""
    return [_asked(0.2, [0.3, 0.5, 0.9, 1.2, 1.6, 3.0, 10.0], [-2, -1, 0, 1, 2, 3])]


def buckets_properties(seed: int) -> Sequence[Json]:
    rng = generator(seed, "14 buckets")
    return [
        _asked(alpha, [10 ** rng.uniform(-6, 4) for _ in range(60)], [rng.randint(-60, 60) for _ in range(20)])
        for alpha in (0.01, 0.05, 0.3, round(rng.uniform(0.002, 0.5), 4))
    ]


def buckets_differential(seed: int) -> Sequence[Json]:
    rng = generator(seed, "14 bounds")
    alpha = round(rng.uniform(0.005, 0.2), 4)
    farthest = min(80, int(20 / math.log(_gamma(alpha))))  # from about a nanosecond on
    keys = [rng.randint(-farthest, farthest) for _ in range(40)]
    near = [_gamma(alpha) ** key * side for key in keys for side in (0.9999, 1.0001)]
    return [_asked(alpha, near, keys)]


def buckets_cost(seed: int) -> Sequence[Json]:
    return [{**_asked(0.001, [value], [key]), "counted": True} for value, key in ((3e7, 9_000), (1e-9, -9_000))]
