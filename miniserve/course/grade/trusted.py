"""The chapters as the project gives them: cells, questions, and what identifies each.

The project's own notebooks in `chapters/` decide, not what learners hand in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from miniserve.course.chapters import folder
from miniserve.course.check.question import Question
from miniserve.course.notebook.consistency import check_calls
from miniserve.course.notebook.notebooks import loads
from miniserve.course.notebook.source import chapter_number
from miniserve.errors import SetupError

ROOT = Path(__file__).resolve().parents[3]
CHAPTERS = "miniserve.course.chapters"


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that one cell, and one run of a notebook, may take."""

    cell_s: float = 30.0
    notebook_s: float = 120.0


CHAPTER_LIMITS = {20: Limits(180.0, 400.0)}  # the capstone drives a whole stack


@dataclass(frozen=True, slots=True)
class Given:
    """One code cell of a chapter as given. `question` is set for an answer cell."""

    id: str
    text: str
    tags: frozenset[str] = frozenset()
    question: str = ""

    @property
    def runs(self) -> bool:
        """True if grading may run it: not a check, and nothing that measures this machine."""
        return not self.tags & {"check", "measured"}


@dataclass(frozen=True, slots=True)
class TrustedChapter:
    """One chapter: its code cells in order, and its questions by id."""

    number: int
    name: str
    cells: tuple[Given, ...]
    questions: Mapping[str, Question]
    module: str
    sha256: str

    @property
    def answer_cells(self) -> dict[str, Given]:
        """The answer cells by question."""
        return {cell.question: cell for cell in self.cells if cell.question}

    @property
    def check_cells(self) -> dict[str, str]:
        """The ids of the check cells by question."""
        checks = [cell for cell in self.cells if "check" in cell.tags]
        return {question: cell.id for cell in checks for question, _ in check_calls(cell.text)}

    @property
    def own_ids(self) -> frozenset[str]:
        """Ids of cells that no other chapter has: answers and checks contain the question's number."""
        return frozenset(cell.id for cell in self.cells if cell.question or "check" in cell.tags)

    @property
    def limits(self) -> Limits:
        return CHAPTER_LIMITS.get(self.number, Limits())


def read_course(
    chapters: Path = ROOT / "chapters", wanted: Sequence[int] = (), package: str = CHAPTERS
) -> dict[int, TrustedChapter]:
    """Read the chapters by number. Raises: SetupError if a wanted one, or all, are missing."""
    paths = {number: path for path in sorted(chapters.glob("[0-9][0-9]_*.ipynb")) if (number := _number(path))}
    if missing := [number for number in wanted if number not in paths]:
        raise SetupError(f"there is no chapter {missing[0]} in {chapters.name}/; there are {sorted(paths) or 'none'}")
    if not paths:
        raise SetupError(f"{chapters} holds no chapters; make them with `python -m miniserve course build`")
    return {number: _read(paths[number], number, package) for number in sorted(wanted or paths)}


def _number(path: Path) -> int:
    return 0 if path.stem.endswith(".old") else chapter_number(path.stem)


def _read(path: Path, number: int, package: str) -> TrustedChapter:
    module = f"{folder(number, package)}.questions"
    questions: tuple[Question, ...] = import_module(module).QUESTIONS
    cells = tuple(
        Given(
            cell["id"],
            cell["source"],
            frozenset(cell["metadata"].get("tags", ())),
            cell["metadata"].get("question", ""),
        )
        for cell in loads(path)["cells"]
        if cell["cell_type"] == "code"
    )
    chapter = TrustedChapter(number, path.stem, cells, {q.id: q for q in questions}, module, _sha256(path, module))
    if missing := chapter.questions.keys() - chapter.answer_cells.keys():
        raise SetupError(f"{path.name} has no answer cell for {', '.join(sorted(missing))}")
    return chapter


def _sha256(path: Path, module: str) -> str:
    """Return a hash of what decides verdicts: the chapter as given, and its questions."""
    file = import_module(module).__file__
    assert file is not None, f"{module} is a file"
    sources = sorted(Path(file).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in [path, *sources])).hexdigest()
