"""Reads one file that was handed in as a learner's notebook for a chapter.

Reads defensively: a file may be huge, broken, not a notebook, or a link to somewhere else. Such a file is `unreadable`,
with a sentence for the instructor, and never raises. A notebook's cells say which chapter it is, so renaming the file
doesn't matter.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from miniserve.course.grade.align import questions_checked
from miniserve.course.grade.cells import Handed, learn, names, too_much
from miniserve.course.grade.find import FILE_LIMIT_BYTES, Found
from miniserve.course.grade.reading import too_heavy
from miniserve.course.grade.trusted import TrustedChapter
from miniserve.course.notebook.source import chapter_number


@dataclass(frozen=True, slots=True)
class Submission:
    """One learner's notebook for one chapter. If `problem` is set, the file was unreadable and `cells` is empty."""

    learner: str
    chapter: int  # 0 if unknown
    file: str
    cells: tuple[Handed, ...] = ()
    sha256: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()
    drawn_for: str = ""  # whose numbers its questions draw; the learner's, if empty
    others: tuple[str, ...] = ()  # learner ids whose numbers a wrong answer may have been worked out for
    handed_in_s: float = 0.0  # when the file was last written, in seconds since 1970


def read_submission(found: Found, course: Mapping[int, TrustedChapter]) -> Submission:
    """Read one file."""
    by_name = chapter_number(found.name)

    def unreadable(problem: str, sha256: str = "") -> Submission:
        chapter = by_name if by_name in course else 0
        when_s = found.handed_in_s
        return Submission(found.learner, chapter, found.path, sha256=sha256, problem=problem, handed_in_s=when_s)

    raw, problem = found.read(FILE_LIMIT_BYTES)
    sha256 = "" if problem else hashlib.sha256(raw).hexdigest()
    if problem := problem or too_heavy(raw):
        return unreadable(problem, sha256)
    try:
        notebook = json.loads(raw.decode("utf-8-sig"))
        cells = _cells(notebook)
    except (ValueError, RecursionError, MemoryError) as error:
        return unreadable(f"It is not a notebook: {type(error).__name__}: {str(error)[:120]}", sha256)
    if much := too_much([cell.text for cell in cells if cell.is_code]):
        return unreadable(much, sha256)
    number = _recognise(cells, _source(notebook), by_name, course)
    if number == 0:
        return unreadable("No chapter matches it, neither by its cells nor by its name.", sha256)
    renamed = f"The file is called {found.path.rpartition('/')[2]}; its cells are from chapter {number}."
    notes = () if by_name == number else (renamed,)
    return Submission(found.learner, number, found.path, cells, sha256, notes=notes, handed_in_s=found.handed_in_s)


def _cells(notebook: Any) -> tuple[Handed, ...]:
    """Return the cells of parsed JSON, skipping anything that isn't a cell. Raises: ValueError."""
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError("it has no list of cells (it should be notebook format 4)")
    found = []
    for cell in notebook["cells"]:
        if isinstance(cell, dict) and (text := _text(cell.get("source"))) is not None:
            is_code = cell.get("cell_type") == "code"
            found.append(Handed(_id(cell), is_code, text if is_code else ""))
    return tuple(found)


def _id(cell: Mapping[str, Any]) -> str:
    """Return a cell's id; Colab keeps it among the metadata."""
    about = cell.get("metadata")
    ids = (cell.get("id"), about.get("id") if isinstance(about, dict) else None)
    return next((id_ for id_ in ids if isinstance(id_, str)), "")


def _text(source: Any) -> str | None:
    text = "".join(source) if isinstance(source, list) and all(isinstance(s, str) for s in source) else source
    if not isinstance(text, str):
        return None
    return text.encode("utf-8", "replace").decode("utf-8")  # a file can't hold a lone surrogate


def _source(notebook: Any) -> str:
    """Return the chapter that a notebook says it was made from: 06_percentiles."""
    about: Any = notebook
    for key in ("metadata", "miniserve", "source"):
        about = about.get(key) if isinstance(about, dict) else None
    return about if isinstance(about, str) else ""


def _recognise(cells: tuple[Handed, ...], source: str, by_name: int, course: Mapping[int, TrustedChapter]) -> int:
    """Return the chapter of a notebook: by ids of cells, by what it was made from, by what it checks and answers."""
    ids = {cell.id for cell in cells}
    checked = {question for cell in cells if cell.is_code for question in questions_checked(cell.text)}
    by_ids = {number: len(ids & chapter.own_ids) for number, chapter in course.items()}
    by_checks = {number: len(checked & chapter.questions.keys()) for number, chapter in course.items()}
    if best := _most(by_ids):
        return best
    if (made_from := chapter_number(source)) in course:
        return made_from
    if best := _most(by_checks):
        return best
    if by_name in course:
        return by_name
    learn(cell.text for cell in cells if cell.is_code)
    bound = frozenset[str]().union(*(names(cell.text).binds for cell in cells if cell.is_code))
    answered = {n: len(bound & {q.name for q in chapter.questions.values()}) for n, chapter in course.items()}
    best = _most(answered)
    return best if answered.get(best, 0) > 1 else 0  # one name may be chance


def _most(counts: Mapping[int, int]) -> int:
    """Return the chapter with the highest count, the first of several; 0 if all counts are 0."""
    best = max(counts, key=lambda number: (counts[number], -number), default=0)
    return best if best and counts[best] else 0


def is_copy(file: str) -> bool:
    """Return whether a name looks like a copy: `12 (1).ipynb`, `12-Copy1.ipynb`."""
    return re.search(r"(\(\d+\)|copy\s*\d*|\.old)\.ipynb$", file, re.IGNORECASE) is not None
