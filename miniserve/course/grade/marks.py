"""Reads what a question is worth, and a person's marks for free text: two files that the instructor writes.

weights.toml    `[weights]` with lines such as `"6.3" = 2.0`; other questions keep their own weight
marks.csv       the exported `free_text.csv` with its column `mark` filled in, 0 to 1
"""

from __future__ import annotations

import csv
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from miniserve.course.grade.trusted import ROOT, TrustedChapter
from miniserve.errors import SetupError

WEIGHTS_FILE = ROOT / "data" / "course" / "weights.toml"


@dataclass(frozen=True, slots=True)
class Mark:
    """A person's judgement of one text."""

    credit: float
    comment: str = ""


Marks = Mapping[tuple[str, str], Mark]  # by learner and question


def read_weights(path: Path, course: Mapping[int, TrustedChapter]) -> dict[str, float]:
    """Return every question's weight. Raises: SetupError for an unknown question or a weight below 0."""
    weights = {id_: question.weight for chapter in course.values() for id_, question in chapter.questions.items()}
    for id_, weight in _toml(path).items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise SetupError(f"{path}: the weight of {id_} is {weight!r}; it should be a number, 0 or more")
        number = int(id_.partition(".")[0]) if id_.partition(".")[0].isdigit() else 0
        if number in course and id_ not in weights:
            raise SetupError(f"{path}: chapter {number} has no question {id_!r}")
        if id_ in weights:
            weights[id_] = float(weight)
    return weights


def _toml(path: Path) -> dict[str, object]:
    try:
        weights = tomllib.loads(path.read_text(encoding="utf-8")).get("weights", {})
    except FileNotFoundError:
        raise SetupError(f"{path} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{path}: {error}") from None
    if not isinstance(weights, dict):
        raise SetupError(f"{path}: [weights] should be a table of questions and numbers")
    return weights


def read_marks(path: Path | None) -> dict[tuple[str, str], Mark]:
    """Return the marks that the instructor filled in, without the empty ones. Raises: SetupError."""
    if path is None:
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise SetupError(f"{path} does not exist") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise SetupError(f"{path}: {error}") from None
    found = {}
    for line, row in enumerate(rows, 2):
        learner, question, mark = (row.get(name) or "" for name in ("learner", "question", "mark"))
        if not learner or not question:
            raise SetupError(f"{path}, line {line}: the file needs the columns learner, question and mark")
        if mark.strip():
            found[unquoted(learner), question] = Mark(_credit(mark, path, line), row.get("comment") or "")
    return found


def _credit(mark: str, path: Path, line: int) -> float:
    try:
        credit = float(mark)
    except ValueError:
        credit = math.nan
    if not 0 <= credit <= 1:
        raise SetupError(f"{path}, line {line}: the mark is {mark!r}; it should be from 0 to 1")
    return credit


def quoted(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return "'" + text if text[:1] in "=+-@\t\r" and text else text


def unquoted(text: str) -> str:
    """Undo `quoted`."""
    return text[1:] if text[:1] == "'" and text[1:2] in "=+-@\t\r" and text[1:] else text
