"""Takes a code exercise's solution, the library's own class or function, from its file: with and without bodies.

    miniserve/policies/routing/balancer.py::LeastQueue.choose   one method of a class (more: `.choose+observe`)
    miniserve/observe/percentiles.py::exact                     a function

The learner gets the same text with each named body replaced by `raise NotImplementedError`. Everything else (bases,
decorators, other methods, comments) stays unchanged.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from miniserve.course.notebook.source import function_head
from miniserve.errors import SetupError

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Taken:
    """The text of one definition, solved and for the learner, and the bodies that differ."""

    solved: str
    stub: str
    bodies: tuple[str, ...]


def take(target: str, exercise: str, root: Path) -> Taken:
    """Take `path::Symbol.method` out of the library below `root`. Raises: SetupError; the caller adds the place."""
    file, _, symbols = target.partition("::")
    path = root / file
    if not symbols or not path.is_file():
        raise SetupError(f"the target {target!r} names no file; it should be like miniserve/x.py::Class.method")
    text = path.read_text(encoding="utf-8")
    parts = symbols.split("+")
    name = parts[0].partition(".")[0]
    node = _find(ast.parse(text).body, name, f"{file} has no class or function {name!r}")
    lines = text.splitlines()
    functions = _functions(node, parts, file)
    return _cut(lines, node, functions, f'raise NotImplementedError("Exercise {exercise}: write the body")')


def _find(body: list[ast.stmt], name: str, problem: str) -> Definition:
    found = [node for node in body if isinstance(node, Definition) and node.name == name]
    if not found:
        there = ", ".join(node.name for node in body if isinstance(node, Definition))
        raise SetupError(f"{problem}; it has {there or 'none'}")
    return found[-1]


def _functions(node: Definition, parts: list[str], file: str) -> list[Function]:
    if not isinstance(node, ast.ClassDef):
        return [node]
    names = [part.rpartition(".")[2] for part in parts if part != node.name]
    if not names:
        raise SetupError(f"{file}::{node.name} is a class: name the methods to write, as in {node.name}.choose")
    found = [_find(node.body, name, f"{file}::{node.name} has no method {name!r}") for name in names]
    methods = [item for item in found if not isinstance(item, ast.ClassDef)]
    assert len(methods) == len(found), f"{names} of {node.name} should all be methods"
    return methods


def _cut(lines: list[str], node: Definition, functions: list[Function], raises: str) -> Taken:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    last = node.end_lineno or node.lineno
    stub, bodies, at = [], [], first - 1
    for function in sorted(functions, key=lambda function: function.lineno):
        head = function_head(function, lines)
        start = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)]) - 1
        end = function.end_lineno or function.lineno
        stub += [*lines[at:start], *head, " " * (function.col_offset + 4) + raises]
        bodies.append("\n".join(lines[start + len(head) : end]))
        at = end
    stub += lines[at:last]
    return Taken("\n".join(lines[first - 1 : last]), "\n".join(stub), tuple(bodies))
