"""Questions that ask for a number, or for a formula of named parameters.

The truth is computed from the parameters. Named misconceptions explain wrong answers: each is a function of the same
parameters that returns what you get by that mistake.
"""

from __future__ import annotations

import dis
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from types import CodeType
from typing import Any, ClassVar

from miniserve.course.check.ask import Drive, Json, Told, drive_call
from miniserve.course.check.printed import returned_nothing
from miniserve.course.check.question import Case, Question
from miniserve.course.check.verdict import Problem

Params = dict[str, Any]
Draw = Callable[[Random], Params]


@dataclass(frozen=True, slots=True)
class Misconception:
    """A named mistake: `value` computes its result, `why` explains it, `next` says what to look at."""

    id: str
    why: str
    value: Callable[..., float]
    next: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(Question):
    """N: one number, for parameters that the text prints (`params`) or that are drawn for each learner (`draw`)."""

    kind: ClassVar[str] = "N"
    truth: Callable[..., float]
    params: Params = field(default_factory=dict)
    draw: Draw | None = None
    unit: str = ""
    rtol: float = 0.01
    misconceptions: tuple[Misconception, ...] = ()

    def given(self, learner: str) -> Params:
        """Return the parameters that this learner works with."""
        return {**self.params, **(self.draw(self.rng("given", learner)) if self.draw is not None else {})}

    def judge(self, case: Case, told: Json, learner: str) -> Problem | None:
        value = in_unit(told, self.unit)
        if isinstance(value, Problem):
            return value
        given = self.given(learner)
        return explain_number(value, given, self.truth, self.misconceptions, self.rtol, self.unit)


def explain_number(
    value: float,
    given: Params,
    truth: Callable[..., float],
    misconceptions: Sequence[Misconception],
    rtol: float,
    unit: str = "",
) -> Problem | None:
    """Compare with the truth; if they differ, find the mistake that gives this number."""
    right = truth(**given)
    if close(value, right, rtol):
        return None
    seen, where = f"{_shown(value)} {unit}".strip(), _where(given)
    for mistake in misconceptions:
        if close(value, mistake.value(**given), rtol):
            next_ = mistake.next or "Write the formula down and check its units."
            return Problem(mistake.id, seen, mistake.why, next_, where)
    next_ = "Write the formula down, one factor for each thing that you count."
    return Problem("off", seen, _how_far(value, right), next_, where)


def _shown(value: float) -> str:
    """Return a number as people write it: 4,480,000 and not 4.48e+06."""
    return f"{value:,.0f}" if 1e6 <= abs(value) < 1e12 else f"{value:,.6g}"


def _how_far(value: float, right: float, nearly: str = "give three digits") -> str:
    if right == 0 or value == 0 or (value < 0) != (right < 0):
        return "The sign or the zero is wrong." if right else "The answer isn't zero."
    ratio = value / right
    for power in (10, 100, 1000, 1024, 8, 60, 3600, 1024**2, 10**6, 1024**3, 10**9):
        for factor, word in ((power, "large"), (1 / power, "small")):
            if close(ratio, factor, 0.02):
                return f"It is {power:,} times too {word}: check the units."
    if 0.95 < ratio < 1.05:
        return f"It is a little too {'large' if ratio > 1 else 'small'}: {nearly}, or look for a small term."
    if 0.5 < ratio < 2:
        return f"It is too {'large' if ratio > 1 else 'small'}, but of the right order of magnitude."
    size = "large" if ratio > 1 else "small"
    if not 1e-5 < ratio < 1e5:
        times = max(ratio, 1 / ratio)
        return f"It is {times:.0e} times too {size}: something divides that should multiply, or vice versa."
    return f"It is too {size} by more than a factor of two: a whole term is missing or extra."


def _ratio(value: float, right: float) -> float:
    """Return how many times too large or too small a value is; for a wrong sign or zero, 1."""
    return max(value / right, right / value) if value * right > 0 else 1.0


def round_between(rng: Random, low: float, high: float) -> float:
    """Return a random number with two digits, so that a counterexample can be worked out on paper."""
    return two_digits(rng.uniform(low, high))


def two_digits(value: float) -> float:
    return float(f"{value:.1e}")


def close(value: float, right: float, rtol: float) -> bool:
    return math.isclose(value, right, rel_tol=rtol, abs_tol=1e-12)


_UNITS: dict[str, tuple[str, float]] = {  # unit -> (dimension, size in the dimension's own unit)
    "": ("number", 1.0),
    "%": ("number", 0.01),
    "s": ("time", 1.0),
    "ms": ("time", 1e-3),
    "min": ("time", 60.0),
    "h": ("time", 3600.0),
    "B": ("data", 1.0),
    "kB": ("data", 1e3),
    "MB": ("data", 1e6),
    "GB": ("data", 1e9),
    "KiB": ("data", 2.0**10),
    "MiB": ("data", 2.0**20),
    "GiB": ("data", 2.0**30),
    "USD": ("money", 1.0),
    "cent": ("money", 0.01),
    "req/s": ("requests per time", 1.0),
    "req/min": ("requests per time", 1 / 60),
    "tok/s": ("tokens per time", 1.0),
}


_QUANTITY = re.compile(  # 1,234.5 GiB; not 1,5 GiB, which may mean 1.5
    r"\s*([-+]?(?:\d{1,3}(?:,\d{3})+|\d[\d_]*)(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*([^\d\s.,_+-]\S*)\s*", re.ASCII
)


def in_unit(told: Json, unit: str) -> float | Problem:
    """Return a number, or a text such as "31.25 GiB", in `unit`; or what is wrong with its form."""
    if type(told) in (int, float):
        return float(told)
    found = _QUANTITY.fullmatch(told) if type(told) is str else None
    if found is None:  # "42" is no quantity: a text must be a number with its unit
        seen = f"{told!r} ({type(told).__name__})"
        example = f', or text such as "1.5 {unit}"' if unit else ""
        return Problem("no-number", seen[:80], "The answer is a number.", f"Give a plain number{example}.")
    number, own = float(found[1].replace(",", "").replace("_", "")), found[2]
    if own == unit:
        return number
    if own not in _UNITS or unit not in _UNITS or _UNITS[own][0] != _UNITS[unit][0]:
        why = f"The answer is in {unit}." if unit else "The answer is a plain number."
        return Problem("wrong-unit", f"{told!r}"[:80], why, "Convert it." if unit else "Leave the unit out.")
    return number * _UNITS[own][1] / _UNITS[unit][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula(Question):
    """F: a function of named parameters, compared on 64 random sets of them."""

    kind: ClassVar[str] = "F"
    truth: Callable[..., float]
    draw: Draw
    rtol: float = 1e-6
    misconceptions: tuple[Misconception, ...] = ()

    def cases(self, seed: int, learner: str) -> Sequence[Case]:
        rng = self.rng("formula", seed)
        return (Case([self.draw(rng) for _ in range(64)]),)

    @property
    def drive(self) -> Drive:
        return drive_call

    def not_tried(self, answer: object) -> bool:
        return is_blank_formula(answer)

    def failed(self, case: Case, told: Told) -> Problem:
        if told.error.startswith("TypeError") and ("argument" in told.error or "not callable" in told.error):
            names = ", ".join(case.asked[0])
            why, next_ = f"The answer is a function of {names}.", f"Write: def {self.name}({names}): return ..."
            return Problem("signature", _no_function(told.error) or told.error, why, next_)
        if told.error.startswith("NotImplementedError"):
            return Problem("not-written", told.error, "The function is not written yet.", "Replace the raise.")
        if told.line:
            alone = f"Run it alone, for example as {self.name}({_where(case.asked[0])})."
            return Problem("raises", told.error, "Your code raised this error.", alone, told.line)
        return Question.failed(self, case, told)

    def judge(self, case: Case, told: Json, learner: str) -> Problem | None:
        if not isinstance(told, list) or len(told) != len(case.asked):  # only from a kernel that was tampered with
            return Problem("no-number", repr(told)[:80], "The answer is one number for each set.", "Return a number.")
        for given, value in zip(case.asked, told, strict=True):
            if value is None:
                return returned_nothing(_where(given))
            if type(value) not in (int, float):
                return _no_number(value, _where(given))
        wrong = [
            (given, value)
            for given, value in zip(case.asked, told, strict=True)
            if not close(value, self.truth(**given), self.rtol)
        ]
        if not wrong:
            return None
        given, value = max(wrong, key=lambda pair: _ratio(pair[1], self.truth(**pair[0])))  # shows the mistake best
        for mistake in self.misconceptions:
            if all(close(v, mistake.value(**g), self.rtol) for g, v in zip(case.asked, told, strict=True)):
                return Problem(
                    mistake.id,
                    _shown(value),
                    mistake.why,
                    mistake.next or "Try it with pen and paper.",
                    _where(given),
                )
        sometimes = f"It is right for {64 - len(wrong)} of 64 sets of parameters. " if len(wrong) < 64 else ""
        why = sometimes + _how_far(value, self.truth(**given), nearly="round nothing")
        return Problem("off", _shown(value), why, "Work this case with pen and paper, factor by factor.", _where(given))


def _no_number(value: Json, where: str) -> Problem:
    text = f"{value!r} ({type(value).__name__})"[:80]
    nexts = {
        str: "Return the number itself, without str(), quotation marks or a unit.",
        bool: "Return the number itself, not whether something holds.",
        list: "Return one number, not a list or tuple of them.",
        dict: "Return one number, not a dictionary.",
    }
    return Problem("no-number", text, "The function must return a number.", nexts[type(value)], where)


def _no_function(error: str) -> str:
    """Return the type of an answer that can't be called; "" if that is not the error."""
    found = re.fullmatch(r"TypeError: '(.*)' object is not callable", error)
    return f"{found[1]}, not a function; did a later line give the name another value?" if found else ""


def is_blank_formula(answer: object) -> bool:
    """Return whether an answer that should be a function is still the placeholder."""
    return answer is ... or is_placeholder(answer)


def is_placeholder(answer: object) -> bool:
    """Return whether a function uses nothing and returns nothing or `...`, or just raises NotImplementedError."""
    code = getattr(answer, "__code__", None)
    if not isinstance(code, CodeType):
        return False
    steps = [step for step in dis.get_instructions(code) if step.opname not in _IDLE]
    names = {*code.co_names, *(step.argrepr for step in steps if step.opname == "LOAD_COMMON_CONSTANT")}
    if names == {"NotImplementedError"}:
        return not any(step.opname.startswith(("LOAD_FAST", "LOAD_DEREF", "LOAD_CLOSURE")) for step in steps)
    return all("CONST" in step.opname and (step.argval is None or step.argval is ...) for step in steps)


_IDLE = {"RESUME", "NOP", "CACHE", "POP_TOP", "RETURN_VALUE", "COPY_FREE_VARS", "MAKE_CELL", "RETURN_GENERATOR"}


def _where(given: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name}={f'{value:.6g}'.replace('e+0', 'e').replace('e+', 'e')}"
        if isinstance(value, float)
        else f"{name}={value}"
        for name, value in given.items()
    )
