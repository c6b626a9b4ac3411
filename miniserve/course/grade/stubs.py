"""Copies the package for a learner's kernel, without the questions and without the code that the chapter asks for.

In the copy the body of each target and of each forbidden name raises, with a kind message. So whatever a submission
imports, by whatever trick, the reference isn't there. Knows nothing of processes.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterable
from pathlib import Path

from miniserve.course.check.code import Code
from miniserve.course.check.question import Question
from miniserve.course.notebook.source import function_head
from miniserve.course.notebook.targets import Function

PACKAGE = Path(__file__).resolve().parents[2]
_LEFT_OUT = {"__pycache__", "course/grade"}
_OF_A_CHAPTER = {"__init__.py", "lab.py"}  # all else in its folder knows answers
SIGN = "it is not here while your notebook is graded"


def write_stubbed(folder: Path, questions: Iterable[Question], package: Path = PACKAGE) -> None:
    """Copy `package` into `folder`, an entry of the kernel's PYTHONPATH; `data/` is linked beside it."""
    copy = folder / package.name

    def left_out(folder: str, names: list[str]) -> list[str]:
        inside = Path(folder).relative_to(package)
        if inside.parent == Path("course/chapters"):
            return [name for name in names if name not in _OF_A_CHAPTER]
        return [name for name in names if {name, (inside / name).as_posix()} & _LEFT_OUT]

    shutil.copytree(package, copy, ignore=left_out)
    denied = {question.id: question for question in questions if isinstance(question, Code)}
    for file in sorted(copy.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        relative = file.relative_to(folder).as_posix()
        stubbed = text
        for id_, question in denied.items():  # targets first, so that the message names the exercise that asks for them
            stubbed = stub(stubbed, _methods(question, relative), frozenset(), id_)
        for id_, question in denied.items():
            stubbed = stub(stubbed, frozenset(), frozenset(question.forbidden), id_)
        if stubbed != text:
            file.write_text(stubbed, encoding="utf-8")


def _methods(question: Code, file: str) -> frozenset[str]:
    """Return the `Symbol.method` or `function` names of a question's target in this file."""
    path, _, symbols = question.target.partition("::")
    if path != file:
        return frozenset()
    methods = [f"{question.symbol}.{name}" for name in question.methods]
    return frozenset(methods or [symbols])


def stub(text: str, methods: frozenset[str], whole: frozenset[str], exercise: str) -> str:
    """Return a module's text in which the bodies of `methods`, and every body in the definitions `whole`, raise."""
    if not any(name.rpartition(".")[2] in text for name in methods | whole):
        return text
    lines, found = text.splitlines(), []
    for node in ast.parse(text).body:
        if isinstance(node, Function) and node.name in methods | whole:
            found.append(node)
        if isinstance(node, ast.ClassDef):
            inside = [item for item in node.body if isinstance(item, Function)]
            found += [i for i in inside if node.name in whole or f"{node.name}.{i.name}" in methods]
    for function in reversed([one for one in found if SIGN not in ast.unparse(one.body[-1])]):
        start = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)]) - 1
        says = f"This is what exercise {exercise} asks you to write; {SIGN}."
        body = f'{" " * (function.col_offset + 4)}raise NotImplementedError("{says}")'
        lines[start : function.end_lineno] = [*function_head(function, lines), body]
    return "\n".join(lines) + "\n"
