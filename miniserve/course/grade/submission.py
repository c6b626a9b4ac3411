"""Reads submissions: a folder of folders, one per learner, or notebooks named LEARNER__anything.ipynb.

Reads defensively: a file may be huge, broken, not a notebook, or a link to somewhere else. Such a file is `unreadable`,
with a sentence for the instructor, and never raises. A notebook's cells say which chapter it is, so renaming the file
doesn't matter.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniserve.course.grade.cells import too_much
from miniserve.course.grade.reading import notebooks_below, read_bytes, too_heavy
from miniserve.course.grade.spelling import readable
from miniserve.course.grade.trusted import TrustedChapter
from miniserve.course.notebook.source import chapter_number
from miniserve.errors import SetupError

CELL_LIMIT_CHARACTERS = 200_000


@dataclass(frozen=True, slots=True)
class Handed:
    """One code or text cell of a submission."""

    id: str
    is_code: bool
    text: str


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


def read_submissions(folder: Path, course: Mapping[int, TrustedChapter]) -> list[Submission]:
    """Read the submissions in `folder`, one notebook per learner and chapter. Raises: SetupError if there are none."""
    if not folder.is_dir():
        raise SetupError(f"{folder} is not a folder")
    found = [_read(learner, path, folder, course) for learner, path in _files(folder)]
    if not found:
        raise SetupError(f"{folder} holds no notebooks: it should be {folder.name}/<learner>/<chapter>.ipynb")
    return sorted(_one_each(found), key=lambda one: (one.learner, one.chapter, one.file))


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            for file in notebooks_below(path):
                yield readable(path.name), file
        elif path.suffix == ".ipynb" and "__" in path.stem:
            yield readable(path.stem.partition("__")[0]), path


def _read(learner: str, path: Path, folder: Path, course: Mapping[int, TrustedChapter]) -> Submission:
    file = readable(path.relative_to(folder))
    by_name = chapter_number(path.stem.rpartition("__")[2])

    def unreadable(problem: str, sha256: str = "") -> Submission:
        return Submission(learner, by_name if by_name in course else 0, file, sha256=sha256, problem=problem)

    raw, problem = read_bytes(path)
    sha256 = "" if problem else hashlib.sha256(raw).hexdigest()
    if problem := problem or too_heavy(raw):
        return unreadable(problem, sha256)
    try:
        cells = _cells(json.loads(raw.decode("utf-8-sig")))
    except (ValueError, RecursionError, MemoryError) as error:
        return unreadable(f"It is not a notebook: {type(error).__name__}: {str(error)[:120]}", sha256)
    if much := too_much([cell.text for cell in cells if cell.is_code]):
        return unreadable(much, sha256)
    number = _recognise(cells, by_name, course)
    if number == 0:
        return unreadable("No chapter matches it, neither by its cells nor by its name.", sha256)
    notes = [] if by_name == number else [f"The file is called {path.name}; its cells are from chapter {number}."]
    return Submission(learner, number, file, cells, sha256, notes=tuple(notes))


def _cells(notebook: Any) -> tuple[Handed, ...]:
    """Return the cells of parsed JSON, skipping anything that isn't a cell. Raises: ValueError."""
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError("it has no list of cells (it should be notebook format 4)")
    found = []
    for cell in notebook["cells"]:
        if isinstance(cell, dict) and (text := _text(cell.get("source"))) is not None:
            id_, is_code = cell.get("id"), cell.get("cell_type") == "code"
            found.append(Handed(id_ if isinstance(id_, str) else "", is_code, text if is_code else ""))
    return tuple(found)


def _text(source: Any) -> str | None:
    text = "".join(source) if isinstance(source, list) and all(isinstance(s, str) for s in source) else source
    if not isinstance(text, str):
        return None
    return text.encode("utf-8", "replace").decode("utf-8")  # a file can't hold a lone surrogate


def _recognise(cells: tuple[Handed, ...], by_name: int, course: Mapping[int, TrustedChapter]) -> int:
    ids = {cell.id for cell in cells}
    shared = {number: len(ids & chapter.own_ids) for number, chapter in course.items()}
    best = max(shared, key=lambda number: (shared[number], -number))
    if shared[best]:
        return best
    return by_name if by_name in course else 0


def _one_each(found: list[Submission]) -> Iterator[Submission]:
    """Keep one file per learner and chapter: a readable one if any, then no copy, then the first by name."""
    groups: dict[tuple[str, int], list[Submission]] = {}
    for one in found:
        groups.setdefault((one.learner, one.chapter), []).append(one)
    for (_, chapter), group in groups.items():
        if chapter == 0:
            yield from group
            continue
        best = min(group, key=lambda one: (bool(one.problem), bool(_copy(one.file)), one.file))
        others = tuple(f"{one.file} is the same chapter and was left out." for one in group if one is not best)
        yield Submission(
            best.learner, best.chapter, best.file, best.cells, best.sha256, best.problem, best.notes + others
        )


def _copy(file: str) -> bool:
    """Return whether a name looks like a copy: `12 (1).ipynb`, `12-Copy1.ipynb`."""
    return re.search(r"(\(\d+\)|copy\s*\d*|\.old)\.ipynb$", file, re.IGNORECASE) is not None
