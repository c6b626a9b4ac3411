"""Code questions: a piece of miniserve that the learner writes, checked in five layers.

    contract ──> examples ──> properties ──> differential ──> cost

The solution of such a question *is* the library's function (`target`), so course and framework cannot drift apart. For
the same reason an answer may not use it: `forbidden` names are refused, wherever they come from.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from miniserve.course.ask import Drive, Json, Told
from miniserve.course.question import Case, Question
from miniserve.course.verdict import Problem


@dataclass(frozen=True, slots=True)
class Layer:
    """Cases of one kind, and their judge. `smaller` proposes simpler versions of a case that failed."""

    name: str  # contract, examples, properties, differential, cost
    cases: Callable[[int], Sequence[Json]]  # seed -> what to ask
    judge: Callable[[Json, Json], Problem | None]  # asked, told
    smaller: Callable[[Json], Sequence[Json]] | None = None
    on_error: Callable[[Json, Told], Problem | None] | None = None  # a better word for an exception that is expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Code(Question):
    """A function or class. `target` is `path/in/repository.py::Symbol.method`; several methods are separated by +."""

    kind: ClassVar[str] = "code"
    target: str
    driver: Drive
    layers: tuple[Layer, ...]
    forbidden: tuple[str, ...] = ()  # names of the library that do the work, beside the target itself

    def cases(self, seed: int, learner: str) -> Sequence[Case]:
        return [Case(asked, layer.name, layer.smaller) for layer in self.layers for asked in layer.cases(seed)]

    @property
    def drive(self) -> Drive:
        return self.driver

    def not_tried(self, answer: object) -> bool:
        """A stub raises NotImplementedError and nothing else, in every method that is to be written."""
        if answer is ...:
            return True
        return any(is_stub(getattr(answer, name, None)) for name in self.methods) or is_stub(answer)

    def judge(self, case: Case, told: Json, learner: str) -> Problem | None:
        return self._layer(case).judge(case.asked, told)

    def failed(self, case: Case, told: Told) -> Problem:
        layer = self._layer(case)
        better = layer.on_error(case.asked, told) if layer.on_error is not None else None
        return better or Question.failed(self, case, told)

    def _layer(self, case: Case) -> Layer:
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


def is_stub(function: object) -> bool:
    """Say whether a function does nothing but raise NotImplementedError."""
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    return code is not None and code.co_names == ("NotImplementedError",)


def forbidden_use(source: str, denied: frozenset[str], module: str = "miniserve") -> str | None:
    """Return how `source` reaches for a denied name of the library, as text; None if it does not.

    Refused are importing such a name, a module that holds it when it is then used by attribute, and reading the
    library's own source.
    """
    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == module:
            for alias in node.names:
                if alias.name in denied or alias.name == "*":
                    return f"from {node.module} import {alias.name}"
        if isinstance(node, ast.Attribute) and node.attr in denied and isinstance(node.value, ast.Name | ast.Attribute):
            return ast.unparse(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in (
            "getsource",
            "import_module",
            "__import__",
        ):
            return ast.unparse(node)[:60]
    return None


def comes_from_library(answer: object) -> bool:
    """Say whether a class or function, or a class that it builds on, was defined in miniserve."""
    made = [answer, *(getattr(answer, "__mro__", ()))]
    methods = [item for thing in made for item in vars(thing).values()] if inspect.isclass(answer) else [answer]
    modules = [getattr(item, "__module__", None) or "" for item in (*made, *methods) if callable(item)]
    return any(module.partition(".")[0] == "miniserve" for module in modules)


def reaches_for_library(question: Code, answer: object) -> Problem | None:
    """Refuse an answer that uses what it should build. `answer` lives in this process."""
    if comes_from_library(answer):
        seen = f"{question.symbol} comes from {getattr(answer, '__module__', 'miniserve')}"
        return Problem("forbidden", seen, "This piece is to be written here, not imported.", "Write the body yourself.")
    try:
        source = inspect.getsource(answer)  # type: ignore[arg-type]  # anything else raises TypeError
    except (OSError, TypeError):
        return None
    use = (
        forbidden_use(source, question.denied - {question.symbol})
        if inspect.isclass(answer)
        else forbidden_use(source, question.denied)
    )
    if use is None:
        return None
    return Problem(
        "forbidden", use, "The library's own version does the work here.", "Write it with what the text gives."
    )
