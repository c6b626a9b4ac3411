"""Code questions: the learner writes a piece of miniserve, and five layers check it.

    contract ──> examples ──> properties ──> differential ──> cost

The solution of such a question *is* the library's function (`target`), so course and framework cannot drift apart. For
the same reason an answer may not use it: the check refuses `forbidden` names, wherever they come from.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import ClassVar

from miniserve.course.check.ask import Drive, Json, Told
from miniserve.course.check.numbers import is_placeholder
from miniserve.course.check.question import Case, Question
from miniserve.course.check.verdict import Problem

LAYERS = ("contract", "examples", "properties", "differential", "cost")
Smaller = Callable[[Json], Sequence[Json]]  # a case that failed -> simpler versions of it


@dataclass(frozen=True, slots=True)
class CheckLayer:
    """Cases of one kind, and their judge. `smaller` proposes simpler versions of a failed case."""

    name: str  # one of LAYERS
    cases: Callable[[int], Sequence[Json]]  # seed -> what to ask
    judge: Callable[[Json, Json], Problem | None]  # asked, told
    smaller: Smaller | None = None
    on_error: Callable[[Json, Told], Problem | None] | None = None  # explains an exception that is expected


def five_layers(
    module: ModuleType, name: str, smaller: Smaller | None = None, shrunk: Sequence[str] = LAYERS
) -> tuple[CheckLayer, ...]:
    """Return the layers made of `NAME_contract` to `NAME_cost`, `judge_NAME` and `NAME_broke` of `module`.

    `smaller` simplifies failed cases of the layers that are `shrunk`.
    """
    judge, broke = getattr(module, f"judge_{name}"), getattr(module, f"{name}_broke")
    return tuple(
        CheckLayer(layer, getattr(module, f"{name}_{layer}"), judge, smaller if layer in shrunk else None, broke)
        for layer in LAYERS
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Code(Question):
    """A function or class. `target` is `path/in/repository.py::Symbol.method`; + separates several methods."""

    kind: ClassVar[str] = "code"
    target: str
    driver: Drive
    layers: tuple[CheckLayer, ...]
    forbidden: tuple[str, ...] = ()  # names in the library that do the work, besides the target itself
    lends: tuple[Callable[..., object], ...] = ()  # other exercises' targets that an answer builds on; asked last

    def cases(self, seed: int, learner: str) -> Sequence[Case]:
        return [Case(asked, layer.name, layer.smaller) for layer in self.layers for asked in layer.cases(seed)]

    @property
    def drive(self) -> Drive:
        return self.driver

    def not_tried(self, answer: object) -> bool:
        """Return whether every method to write is a stub, which does nothing but raise NotImplementedError."""
        return not_written(answer, self.methods)

    @property
    def in_parts(self) -> bool:
        return len(self.methods) > 1

    def explain_here(self, answer: object, problem: Problem) -> Problem:
        if problem.id != "not-written" or not self.in_parts:
            return problem
        left = [name for name in self.methods if is_stub(getattr(answer, name, None))]
        done = [name for name in self.methods if name not in left]
        if not left or not done:
            return problem
        what = f"{', '.join(done)}: nothing wrong so far; {', '.join(left)}: not written"
        why = f"The check asks everything of {self.symbol} only when all its methods are written."
        return replace(problem, what=what, why=why, next=f"Go on with `{left[0]}`.", where=f"{self.symbol}.{left[0]}")

    def judge(self, case: Case, told: Json, learner: str) -> Problem | None:
        return self._layer(case).judge(case.asked, told)

    def failed(self, case: Case, told: Told) -> Problem:
        layer = self._layer(case)
        better = layer.on_error(case.asked, told) if layer.on_error is not None else None
        return better or self._not_there(told) or self._not_called_so(told) or Question.failed(self, case, told)

    def _not_there(self, told: Told) -> Problem | None:
        if told.error.startswith("NotImplementedError"):
            why = f"This part of {self.symbol} is not written yet."
            return Problem("not-written", told.error, why, "Write it in place of the `raise`.", told.line)
        lacking = [name for name in self.methods if told.error.endswith(f"has no attribute '{name}'")]
        if not told.error.startswith("AttributeError") or told.line or not lacking:
            return None
        why = f"The class {self.symbol} must have a method of exactly this name: {lacking[0]}."
        return Problem("method-missing", told.error, why, "Keep each `def` line as it was.", self.symbol)

    def _not_called_so(self, told: Told) -> Problem | None:
        """Explain a TypeError outside the learner's lines: the call itself did not fit the answer."""
        if not told.error.startswith("TypeError") or told.line:
            return None
        what = "class" if self.methods else "function"
        if "not callable" in told.error:
            why = f"Give the check the {what} {self.symbol} itself, not what it returns or something made from it."
            next_ = f'Write ch.check("{self.id}", {self.symbol}).'
            return Problem("signature", told.error, why, next_, f'what you gave to ch.check("{self.id}", ...)')
        if "argument" in told.error:
            why = f"The {what} doesn't take the arguments that the check passes."
            next_ = "Keep each `def` line as it was."
            return Problem(
                "signature", told.error, why, next_, f"the call of {' or '.join(self.methods) or self.symbol}"
            )
        return None

    def _layer(self, case: Case) -> CheckLayer:
        return next(layer for layer in self.layers if layer.name == case.layer)

    @property
    def symbol(self) -> str:
        """The class or function that the learner writes."""
        return self.target.partition("::")[2].partition("+")[0].partition(".")[0]

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods whose bodies the learner writes; none for a function."""
        parts = self.target.partition("::")[2].split("+")
        return tuple(part.rpartition(".")[2] for part in parts if "." in part or part != self.symbol)

    @property
    def denied(self) -> frozenset[str]:
        return frozenset((self.symbol, *self.forbidden))


def lend(*functions: Callable[..., object]) -> Json:
    """Return functions or methods of the library as texts that `ask.lent` restores in a kernel without them."""
    return [
        {"module": one.__module__, "name": one.__qualname__, "text": textwrap.dedent(inspect.getsource(one))}
        for one in functions
    ]


def not_written(answer: object, methods: Sequence[str]) -> bool:
    """Return whether an answer is blank: with methods to write, all of them; otherwise the function itself."""
    if answer is ...:
        return True
    return all(is_stub(getattr(answer, name, None)) for name in methods) if methods else is_stub(answer)


def is_stub(function: object) -> bool:
    """Return whether a function does nothing, or nothing but raise NotImplementedError."""
    return callable(function) and is_placeholder(inspect.unwrap(function))


_READS_SOURCE = ("getsource", "import_module", "__import__")


def forbidden_use(source: str, denied: frozenset[str], module: str = "miniserve") -> str | None:
    """Return how `source` reaches for a denied name of the library, as text; None if it doesn't.

    It may not import such a name, use it as an attribute of a module, or read the library's own source.
    """
    try:
        tree = ast.parse(textwrap.dedent(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == module:
            for alias in node.names:
                if alias.name in denied or alias.name == "*":
                    return f"from {node.module} import {alias.name}"
        if isinstance(node, ast.Attribute) and node.attr in denied and isinstance(node.value, ast.Name | ast.Attribute):
            return ast.unparse(node)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in _READS_SOURCE:
            return ast.unparse(node)[:60]
    return None


def comes_from_library(answer: object, methods: Sequence[str] = ()) -> bool:
    """Return whether a class or function, or one of the methods that it has or inherits, was defined in miniserve.

    Only the methods to write count, not the bases: a class may well derive from one of our Protocols.
    """
    pieces = [answer, *(getattr(answer, name, None) for name in methods)]
    return any(_in_library(getattr(piece, "func", piece)) for piece in pieces)  # .func: what a partial calls


def _in_library(thing: object) -> bool:
    return str(getattr(thing, "__module__", None) or "").partition(".")[0] == "miniserve"


def _by_another_name(answer: object, denied: frozenset[str]) -> str | None:
    """Return the name under which the answer's functions use something denied."""
    for function in [*vars(answer).values()] if inspect.isclass(answer) else [answer]:
        code, known = getattr(function, "__code__", None), getattr(function, "__globals__", {})
        for name in code.co_names if code is not None else ():
            thing = known.get(name)
            if _in_library(thing) and (own := getattr(thing, "__name__", "")) in denied:
                return name if name == own else f"{name}, which is {own}"
    return None


def reaches_for_library(question: Code, answer: object) -> Problem | None:
    """Refuse an answer that uses what it should build. `answer` lives in this process."""
    if comes_from_library(answer, question.methods):
        seen = f"{question.symbol} comes from {getattr(answer, '__module__', 'miniserve')}"
        return Problem("forbidden", seen, "You should write this piece, not import it.", "Write the body yourself.")
    use = _by_another_name(answer, question.denied) or _written_use(question, answer)
    if use is None:
        return None
    return Problem(
        "forbidden", use, "Here the library's own version does the work.", "Write it with what the text gives you."
    )


def _written_use(question: Code, answer: object) -> str | None:
    try:
        source = inspect.getsource(answer)  # type: ignore[arg-type]  # anything else raises TypeError
    except (OSError, TypeError):
        return None
    denied = question.denied - ({question.symbol} if inspect.isclass(answer) else set())
    return forbidden_use(source, denied)
