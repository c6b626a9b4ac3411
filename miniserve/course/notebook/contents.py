"""The twenty exercises in order, and a learner's progress, read from the notebooks in a folder.

Knows titles and files. Minutes and difficulty come from each chapter's questions, progress from the verdicts in a
notebook's outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from miniserve.course import chapters
from miniserve.course.check.question import Question
from miniserve.course.tables import table
from miniserve.errors import SetupError

PEN, CODE = "pen and paper", "code"
TITLES: dict[int, tuple[str, str]] = {
    1: ("Why serving at scale is a systems problem", PEN),
    2: ("Why streaming is essential", PEN),
    3: ("Stateless against stateful", PEN),
    4: ("Round robin fails", PEN),
    5: ("Cold starts and prediction", PEN),
    6: ("Percentiles, not averages", PEN),
    7: ("Cache-aware and model routing", PEN),
    8: ("Canary, blue-green, shadow", PEN),
    9: ("A/B tests and offline benchmarks", PEN),
    10: ("Retry storms", PEN),
    11: ("A streaming endpoint", CODE),
    12: ("A balancer that knows about load", CODE),
    13: ("An autoscaler", CODE),
    14: ("Percentiles from a stream", CODE),
    15: ("A cache-aware router", CODE),
    16: ("A model router", CODE),
    17: ("An A/B test", CODE),
    18: ("Retries", CODE),
    19: ("A cost dashboard", CODE),
    20: ("Capstone: the whole stack", CODE),
}


@dataclass(frozen=True, slots=True)
class ChapterProgress:
    """One chapter, and how much of it its notebook has solved."""

    number: int
    title: str
    form: str
    minutes: int  # of its questions, without the reading
    difficulty: int  # of 5: its hardest question's; 0 if there is no chapter yet
    questions: int
    solved: int


def progress(folder: Path = Path()) -> list[ChapterProgress]:
    """Return all twenty, with the progress that the notebooks in `folder` show."""
    return [_progress(number, title, form, folder) for number, (title, form) in TITLES.items()]


def _progress(number: int, title: str, form: str, folder: Path) -> ChapterProgress:
    asked = _questions(number)
    minutes, hardest = sum(question.minutes for question in asked), max((q.difficulty for q in asked), default=0)
    told = _states(number, folder)
    solved = sum(told.get(question.id) in ("CORRECT", "NOTED") for question in asked)
    return ChapterProgress(number, title, form, minutes, hardest, len(asked), solved)


def _questions(number: int) -> tuple[Question, ...]:
    try:
        found: tuple[Question, ...] = import_module(f"{chapters.folder(number)}.questions").QUESTIONS
    except LookupError:
        return ()
    return found


def _states(number: int, folder: Path) -> dict[str, str]:
    from miniserve.course.notebook.notebooks import loads, states

    for path in sorted(folder.glob(f"{number:02}_*.ipynb")):
        if ".old" not in path.stem:
            try:
                return states(loads(path))
            except SetupError:
                return {}
    return {}


def contents(folder: Path = Path()) -> None:
    """Display the twenty exercises, with the progress in the notebooks of `folder` as they were last saved."""
    rows = progress(folder)
    table(
        {
            "exercise": [f"{row.number:2}  {row.title}" for row in rows],
            "form": [row.form for row in rows],
            "difficulty": [f"{row.difficulty} of 5" if row.questions else "not there yet" for row in rows],
            "minutes": [str(row.minutes) if row.questions else "-" for row in rows],
            "solved": [f"{row.solved} of {row.questions}" if row.questions else "-" for row in rows],
        },
        "The twenty exercises, in their order",
    )
