"""Checks that a source and its chapter's questions agree: each is asked once, answered by its own name, and checked.

Reports everything that is wrong at once, with file and line. Sees texts and questions; runs nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from miniserve.course.check.code import Code
from miniserve.course.check.question import Question
from miniserve.course.notebook.source import Cell, Source


def problems(source: Source, questions: Mapping[str, Question]) -> list[str]:
    """Return the disagreements, each as `file:line: what`; empty if all is well."""
    return [
        *_answers(source, questions),
        *_checks(source, questions),
        *_never(source, questions),
    ]


def _answers(source: Source, questions: Mapping[str, Question]) -> Iterator[str]:
    seen: dict[str, Cell] = {}
    for cell in source.cells:
        is_answer, where = "answer" in cell.tags, source.at(cell)
        if is_answer and not cell.question:
            yield f'{where}: an answer cell needs question="..."'
        elif cell.question and not is_answer:
            yield f'{where}: question="{cell.question}" belongs on a cell with tags=["answer"]'
        elif is_answer:
            yield from _answer(cell, where, questions)
            if cell.question in seen:
                yield f"{where}: {cell.question} has an answer cell already, in line {seen[cell.question].line}"
            seen[cell.question] = cell


def _answer(cell: Cell, where: str, questions: Mapping[str, Question]) -> Iterator[str]:
    question = questions.get(cell.question)
    if question is None:
        yield f"{where}: question {cell.question!r} is not in QUESTIONS; there are {', '.join(questions)}"
    elif cell.id != f"answer-{cell.question.replace('.', '-')}":
        yield f'{where}: the answer cell of {cell.question} is called id="answer-{cell.question}"'
    elif isinstance(question, Code) and cell.target != question.target:
        yield f"{where}: target={cell.target!r}, but question {question.id} has {question.target!r}"
    elif cell.target and not isinstance(question, Code):
        yield f"{where}: target= is for code questions; {question.id} is of kind {question.kind}"


def _checks(source: Source, questions: Mapping[str, Question]) -> Iterator[str]:
    for cell in source.cells:
        if "check" not in cell.tags:
            continue
        calls = list(check_calls(cell.text))
        if len(calls) != 1:
            yield f"{source.at(cell)}: a check cell holds one ch.check(...); this one has {len(calls)}"
        for id_, name in calls:
            if id_ not in questions:
                yield f"{source.at(cell)}: it checks {id_!r}, which is not in QUESTIONS"
            elif name != questions[id_].name:
                yield f"{source.at(cell)}: it checks {name}, but the answer to {id_} is called {questions[id_].name}"


def _never(source: Source, questions: Mapping[str, Question]) -> Iterator[str]:
    answered = {cell.question for cell in source.cells if "answer" in cell.tags}
    checked = {id_ for cell in source.cells if "check" in cell.tags for id_, _ in check_calls(cell.text)}
    for id_ in questions:
        if id_ not in answered:
            yield f'{source.path}:1: question {id_} is never asked: no answer cell with question="{id_}"'
        if id_ not in checked:
            yield f'{source.path}:1: question {id_} is never checked: no cell with tags=["check"] for it'


def check_calls(text: str) -> Iterator[tuple[str, str]]:
    """Yield (question, name of the answer) for each `something.check("6.1", name)` in a cell's text."""
    try:
        tree = ast.parse(text)
    except SyntaxError:  # a magic: such a cell checks nothing
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "check":
            arguments = [ast.unparse(argument) for argument in node.args]
            if len(arguments) >= 2:
                yield arguments[0].strip("'\""), arguments[1]
