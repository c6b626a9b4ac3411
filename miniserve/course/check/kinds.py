"""The other kinds of pen-and-paper questions: trace, classify, witness, predict, kill, free text.

Each judges a plain value, and says what is wrong with a wrong one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar

from miniserve.course.check.ask import Json
from miniserve.course.check.numbers import close
from miniserve.course.check.question import Case, Question
from miniserve.course.check.verdict import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace(Question):
    """T: a table, judged row by row; it names and explains the first wrong row."""

    kind: ClassVar[str] = "T"
    truth: Callable[[], Sequence[Sequence[Json]]]
    columns: tuple[str, ...]
    explain: Callable[[int, str, Json, Json], tuple[str, str]]  # row, column, seen, right -> (problem id, why)

    def judge(self, case: Case, told: Json, learner: str) -> Problem | None:
        rows = [list(row) for row in self.truth()]
        if not isinstance(told, list) or not all(isinstance(row, list) for row in told):
            return Problem(
                "no-table", repr(told)[:80], f"The answer is a list of {len(rows)} rows.", "Write one list per row."
            )
        for i, right in enumerate(rows):
            if i >= len(told) or told[i] == ["..."]:
                return Problem(
                    "rows-missing",
                    f"{min(i, len(told))} rows are filled in",
                    f"The table has {len(rows)} rows.",
                    "Go on with this row.",
                    f"row {i + 1}",
                )
            if len(told[i]) != len(right):
                why = f"A row has {len(right)} columns: {', '.join(self.columns)}."
                return Problem("columns", repr(told[i])[:80], why, "Give one value for each.", f"row {i + 1}")
            for column, seen, wanted in zip(self.columns, told[i], right, strict=True):
                if isinstance(wanted, int | float) and type(seen) not in (int, float):
                    return _no_number_in(f"{column} = {seen!r}", f"row {i + 1}, {column}")
                if not _same(seen, wanted):
                    id_, why = self.explain(i, column, seen, wanted)
                    next_ = f"{'The rows before are right; r' if i else 'R'}eplay this one step by step."
                    named = (
                        f" (the row with {self.columns[0]} {told[i][0]!r})"[:40] if column != self.columns[0] else ""
                    )
                    return Problem(id_, f"{column} = {seen!r}"[:80], why, next_, f"row {i + 1}{named}, {column}")
        if len(told) > len(rows):
            return Problem("rows-extra", f"{len(told)} rows", f"Only {len(rows)} things happen.", "Drop the last rows.")
        return None


def _no_number_in(seen: str, where: str) -> Problem:
    """Return the problem of a cell that should hold a number and holds text, say, or nothing."""
    why = "This column holds numbers: 2 is one, '2' is a text."
    return Problem("no-number", seen[:80], why, "Write the number alone, without quotation marks.", where)


def _same(seen: Json, right: Json) -> bool:
    if isinstance(right, float) and type(seen) in (int, float):
        return close(seen, right, 0.01)
    return bool(type(seen) is type(right) and seen == right) or (
        type(seen) in (int, float) and type(right) in (int, float) and seen == right
    )


def locked(question_id: str, item: str, option: str) -> str:
    """Return the keyed hash that stands for a right option. It is a speed bump, not a safe."""
    salt = f"{question_id}/{item}".encode()
    return hashlib.pbkdf2_hmac("sha256", option.encode(), salt, 2_000).hex()[:24]


def locked_all(question_id: str, **right: str) -> dict[str, str]:
    """Return the right option of each item, `locked`: what a question shows when it is printed tells nothing."""
    return {item: locked(question_id, item, option) for item, option in right.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Classify(Question):
    """C: a dictionary from items to options; all must be right. Each item has its own explanation."""

    kind: ClassVar[str] = "C"
    items: Mapping[str, str]  # key -> text
    options: tuple[str, ...]
    keys: Mapping[str, str]  # key -> `locked` right option
    because: Mapping[str, str]  # key -> why, shown only if the choice was wrong

    def judge(self, case: Case, told: Json, learner: str) -> Problem | None:
        if not isinstance(told, dict):
            return Problem("no-dict", repr(told)[:80], "The answer is a dictionary.", 'Write {"a": "...", "b": "..."}.')
        for key, text in self.items.items():
            if key not in told or told[key] in (None, "..."):
                seen, why = f"no choice for {key!r}", "Every item needs a choice, under its printed letter."
                return Problem("items-missing", seen, why, "Choose one of the options.", text)
            choice = told[key]
            if choice not in self.options:
                allowed = f"The options are {', '.join(map(repr, self.options))}."
                return Problem("no-option", f"{key}: {choice!r}"[:80], allowed, self._next_to(choice), text)
        if unknown := [key for key in told if key not in self.items]:
            why = f"The items are {', '.join(map(repr, self.items))}, and no others."
            return Problem("items-unknown", f"a choice for {unknown[0]!r}"[:80], why, "Remove it.")
        wrong = [key for key in self.items if locked(self.id, key, told[key]) != self.keys[key]]
        if not wrong:
            return None
        key = wrong[0]
        seen = f"{key}: {told[key]!r}; {len(self.items) - len(wrong)} of {len(self.items)} are right"
        return Problem(f"item-{key}", seen, self.because[key], self.hints[0], self.items[key])

    def _next_to(self, choice: Json) -> str:
        """Return what to do about a choice that is not an option: a typo, or another word."""
        near = get_close_matches(choice.strip().lower(), self.options, 1, 0.8) if isinstance(choice, str) else []
        return f"Write {near[0]!r}, letter for letter, if that is what you mean." if near else "Choose one of them."


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness(Question):
    """W: an object with a property. `judge_value` simulates it and says what is missing; there is no key."""

    kind: ClassVar[str] = "W"
    judge_value: Callable[[Json], Problem | None]

    def judge(self, case: Case, told: Json, learner: str) -> Problem | None:
        return self.judge_value(told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predict(Question):
    """P: an interval [low, high] for the result of an experiment that runs afterwards.

    It is right if it covers the result and high / low is at most `widest`. `experiment` must be repeatable: a
    simulation, or a recorded measurement. A wrong prediction is not told the result, or nothing is left to predict.
    """

    kind: ClassVar[str] = "P"
    experiment: Callable[[], float]
    widest: float = 3.0
    unit: str = ""
    too_low: str  # what you overlook if you expect less
    too_high: str  # ... and if you expect more

    def judge(self, case: Case, told: Json, learner: str) -> Problem | None:
        if not (isinstance(told, list) and len(told) == 2 and all(type(v) in (int, float) for v in told)):
            return Problem(
                "no-interval", repr(told)[:80], "The answer is two numbers: low and high.", "Write (low, high)."
            )
        low, high = told
        if not 0 < low <= high:
            why = "Both must be above 0, and low at most high."
            return Problem("no-interval", f"({low:g}, {high:g})", why, "Write (low, high).")
        seen = f"({low:g}, {high:g}) {self.unit}".strip()
        if high / low > self.widest:
            why = f"It spans a factor of {high / low:.3g}; a prediction spans at most {self.widest:g}."
            return Problem("too-wide", seen, why, "Which number in the text narrows it down?", "low and high together")
        result = self.experiment()
        next_ = f"{_unit_slip(low, high, result)}Which factor did you take otherwise? Predict again, then run it."
        if low <= result <= high or close(low, result, 1e-3) or close(high, result, 1e-3):
            return None
        if high < result:
            return Problem("too-low", seen, f"The result is larger. {self.too_low}", next_, "the upper end")
        return Problem("too-high", seen, f"The result is smaller. {self.too_high}", next_, "the lower end")


def _unit_slip(low: float, high: float, result: float) -> str:
    """Return that an interval would fit the result in another unit; empty if it wouldn't."""
    for factor in (100, 1000, 60):
        if low <= factor * result <= high:
            return f"It would fit {factor} times the result: is that the unit? "
        if low <= result / factor <= high:
            return f"It would fit the result over {factor}: is that the unit? "
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill(Question):
    """K: an input on which every buggy version differs from the correct one."""

    kind: ClassVar[str] = "K"
    admissible: Callable[[Json], Problem | None]  # is it an input at all?
    correct: Callable[[Json], Json]
    buggy: Mapping[str, tuple[Callable[[Json], Json], str]]  # id -> (version, what kind of input exposes it)

    def judge(self, case: Case, told: Json, learner: str) -> Problem | None:
        if (problem := self.admissible(told)) is not None:
            return problem
        right = self.correct(told)
        alive = [id_ for id_, (version, _) in self.buggy.items() if _outcome(version, told) == right]
        if not alive:
            return None
        seen = f"your input tells {len(self.buggy) - len(alive)} of {len(self.buggy)} wrong versions from the right one"
        why = f"On your input {alive[0]!r} agrees with the right version. {self.buggy[alive[0]][1]}"
        next_ = "Change the input so that this mistake shows."
        return Problem(f"alive-{alive[0]}", seen, why, next_, f"the version {alive[0]!r}")


def _outcome(version: Callable[[Json], Json], asked: Json) -> Json:
    try:
        return version(asked)
    except Exception as error:
        return f"raises {type(error).__name__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeText(Question):
    """A text that a person reads. Grading exports it with the rubric and a model answer; here it is only noted."""

    kind: ClassVar[str] = "free text"
    graded_by_hand: ClassVar[bool] = True
    rubric: tuple[str, ...]
    model_answer: str
    at_least_words: int = 20

    def judge(self, case: Case, told: Json, learner: str) -> Problem | None:
        if not isinstance(told, str):
            return Problem("no-text", repr(told)[:80], "The answer is a text.", "Write it between quotes.")
        if (words := len(told.split())) < self.at_least_words:
            seen = f"{words} word{'s' * (words != 1)}"
            why = f"At least {self.at_least_words} are needed to make a point."
            return Problem("too-short", seen, why, "Say what follows, and from which numbers.")
        if (different := len({word.lower() for word in told.split()})) < min(10, (self.at_least_words + 1) // 2):
            why = "The same few words over and over make no point."
            seen = f"{words} words, {different} different ones"
            return Problem("repeats", seen, why, "Say what follows, and from which numbers.")
        return None
