"""`PYTHONPATH=tests python -m course.submissions.make`: make the six sample submissions again.

perfect     every answer is the solution's
half-done   the first half of the answers, the rest untouched
wrong       for every question an answer from the bank of wrong ones
loop        perfect, but one answer never ends
cheating    imports the reference, hides errors, edits checks, claims points; the other answers are untouched
broken      files that were cut off

They are made from the chapters and their bank, and handed in as a learner would: the chapter's notebook with answers
typed in. A test says when they are stale.
"""

from __future__ import annotations

import json
import pprint
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from course import answers as bank

from miniserve.course.notebook.build import Course
from miniserve.course.notebook.notebooks import dumps, learner_notebook, solved_notebook

HERE = Path(__file__).resolve().parent
CHAPTERS = (6, 9, 12)
Notebook = dict[str, Any]
Answers = Mapping[str, str]


def solved(number: int) -> tuple[str, Notebook, Answers]:
    """Return a chapter's name, the learner's notebook, and the solved answers by question."""
    course = Course()
    source, cells = course.read(course.sources([str(number)])[0])
    answers = {
        cell["metadata"]["question"]: cell["source"]
        for cell in solved_notebook(source, cells, {})["cells"]
        if "question" in cell["metadata"]
    }
    return source.name, learner_notebook(source, cells), answers


def wrong(number: int, names: Mapping[str, str]) -> Answers:
    """Return a wrong answer for each question from the bank: the first that is a plain value, or a text."""
    found: dict[str, str] = {}
    for one in bank.answers(number):
        if one.problem not in ("", "forbidden"):
            found.setdefault(one.question_id, one.full_text())
    for question, answer, _ in runpy.run_path(str(bank.BANK / f"ch{number:02}" / "wrong.py"))["WRONG"]:
        if isinstance(answer, int | float | str | list | tuple | dict) and json_like(answer):
            found.setdefault(question, f"{names[question]} = {pprint.pformat(answer, width=100, compact=True)}")
    return found


def json_like(answer: object) -> bool:
    """Say whether a value can be written into a cell as it is."""
    try:
        json.dumps(answer, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def answered(notebook: Notebook, answers: Answers) -> Notebook:
    """Return the notebook with answers put in."""
    cells = [
        {**cell, "source": answers.get(cell["metadata"].get("question", ""), cell["source"])}
        for cell in notebook["cells"]
    ]
    return {**notebook, "cells": cells}


def endless(answers: Answers) -> Answers:
    """Return the answers with a loop in the second."""
    second = list(answers)[1]
    return {**answers, second: "while True:\n    pass\n\n" + answers[second]}


def cheated(number: int, notebook: Notebook) -> Notebook:
    """Return a notebook that tries what does not work."""
    text = """from IPython.core.interactiveshell import InteractiveShell
import math

InteractiveShell.showtraceback = lambda *a, **k: None
math.isclose = lambda *a, **k: True"""
    mine = {"cell_type": "code", "id": "mine", "metadata": {}, "source": text, "execution_count": None, "outputs": []}
    answers = {
        "12.1": "from miniserve.policies.routing.balancer import LeastOutstanding",
        "6.1": "latencies_s = Always()",
    }
    cells = [mine, *answered(notebook, answers)["cells"]]
    for cell in cells:
        if "check" in cell["metadata"].get("tags", ()):
            cell["source"] = 'print("6.1  CORRECT")'
            cell["metadata"] = {"points": 100}
    return {**notebook, "cells": cells}


def texts() -> dict[str, str]:
    """Return all files, by path below this folder."""
    made: dict[str, str] = {}
    for number in CHAPTERS:
        name, empty, right = solved(number)
        names = {q: question.name for q, question in Course().questions(number).items()}
        half = dict(list(right.items())[: len(right) // 2])
        learners: dict[str, Callable[[], Notebook]] = {
            "perfect": lambda e=empty, r=right: answered(e, r),
            "half-done": lambda e=empty, h=half: answered(e, h),
            "wrong": lambda e=empty, n=number, m=names: answered(e, wrong(n, m)),
            "loop": lambda e=empty, r=right: answered(e, endless(r)),
            "cheating": lambda e=empty, n=number: cheated(n, json.loads(json.dumps(e))),
        }
        for learner, make in learners.items():
            made[f"{learner}/{name}.ipynb"] = dumps(make())
        made[f"broken/{name}.ipynb"] = dumps(empty)[:2000]
    return made


if __name__ == "__main__":
    for path, text in texts().items():
        (HERE / path).parent.mkdir(exist_ok=True)
        (HERE / path).write_text(text, encoding="utf-8")
    print(f"wrote {len(texts())} notebooks below {HERE.name}/")
