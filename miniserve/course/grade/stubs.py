"""Copies the package for a learner's kernel, without the questions and without the code that the chapter asks for.

In the copy the body of each target and of each forbidden name raises, with a kind message. So whatever a submission
imports, by whatever trick, the reference isn't there. Knows nothing of processes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from miniserve.course.check.code import Code
from miniserve.course.check.question import Question
from miniserve.course.notebook.source import function_head
from miniserve.course.notebook.targets import Function

PACKAGE = Path(__file__).resolve().parents[2]
_LEFT_OUT = {"__pycache__", "course/grade"}
_OF_A_CHAPTER = {"__init__.py", "lab.py"}  # all else in its folder knows answers
SIGN = "it is not here while your notebook is graded"


Files = Mapping[str, bytes]  # by their place below a folder


def stubbed(questions: Iterable[Question], package: Path = PACKAGE) -> dict[str, bytes]:
    """Return the files of a stubbed `package`. They stay in memory: without a sandbox, no disk can be trusted."""
    files = {path.relative_to(package.parent).as_posix(): path.read_bytes() for path in _kept(package)}
    denied = {question.id: question for question in questions if isinstance(question, Code)}
    for name in sorted(files):
        if not name.endswith(".py"):
            continue
        text = files[name].decode("utf-8")
        for id_, question in denied.items():  # targets first, so that the message names the exercise that asks for them
            text = stub(text, _methods(question, name), frozenset(), id_)
        for id_, question in denied.items():
            text = stub(text, frozenset(), frozenset(question.forbidden), id_)
        files[name] = text.encode("utf-8")
    return files


def _kept(package: Path) -> Iterator[Path]:
    """Yield the files that a learner's kernel may have."""
    for path in sorted(package.rglob("*")):
        inside = path.relative_to(package)
        if any(part in _LEFT_OUT for part in inside.parts) or any(p.as_posix() in _LEFT_OUT for p in inside.parents):
            continue
        of_a_chapter = len(inside.parts) > 3 and inside.parts[:2] == ("course", "chapters")
        if path.is_file() and (not of_a_chapter or (len(inside.parts) == 4 and inside.name in _OF_A_CHAPTER)):
            yield path


def write_package(files: Files, folder: Path) -> None:
    """Write a package into `folder`, an entry of the kernel's PYTHONPATH."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


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
