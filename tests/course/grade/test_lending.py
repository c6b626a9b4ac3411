"""No text that answers a question enters a kernel before that question has its verdict."""

from __future__ import annotations

import json
from importlib import import_module

import pytest

from miniserve.course.check.code import Code, lend
from miniserve.course.check.question import Question
from miniserve.course.grade.tell import source_of
from miniserve.course.grade.worker import lends
from miniserve.course.notebook.build import Course
from miniserve.course.notebook.source import read_source

CHAPTERS = [source.number for source in map(read_source, Course().sources()) if source.number]


def answered_by(question: Question) -> set[tuple[str, str]]:
    """Return the functions that a question asks for, by module and name."""
    if not isinstance(question, Code):
        return set()
    path = question.target.partition("::")[0]
    names = [f"{question.symbol}.{name}" for name in question.methods] or [question.symbol]
    return {(path.removesuffix(".py").replace("/", "."), name) for name in names}


@pytest.mark.parametrize("number", CHAPTERS)
def test_what_a_question_lends_was_asked_for_before(number: int) -> None:
    questions = list(Course().questions(number).values())
    asked = sorted(questions, key=lends)
    for place, question in enumerate(asked):
        lent = {(f.__module__, f.__qualname__) for f in question.lends} if isinstance(question, Code) else set()
        assert not lent & answered_by(question), f"{question.id} lends its own answer"
        for later in asked[place + 1 :]:
            assert not lent & answered_by(later), f"{question.id} lends the answer of {later.id}, which comes later"


@pytest.mark.parametrize("number", CHAPTERS)
def test_no_case_and_no_driver_holds_a_reference(number: int) -> None:
    """Only `lends` may: it is what the order of asking goes by."""
    questions = [question for question in Course().questions(number).values() if isinstance(question, Code)]
    references = [lend(_function(*place))[0]["text"] for question in questions for place in answered_by(question)]
    bodies = [text.partition("\n")[2].strip() for text in references]
    for question in questions:
        sent = json.dumps([case.asked for case in question.cases(1, "ann")]) + json.dumps(source_of(question.drive))
        assert not [body for body in bodies if len(body) > 40 and json.dumps(body)[1:-1] in sent], question.id


def _function(module: str, name: str) -> object:
    found: object = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
