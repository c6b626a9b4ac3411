"""Reads what a question is worth, and a person's marks: two files that the instructor writes.

weights.toml    `[weights]` with lines such as `"6.3" = 2.0`; other questions keep their own weight
marks.csv       the exported `free_text.csv` filled in, or any table with the columns `learner`, `question` and `mark`
                (0 to 1, in place of what a check says), and perhaps `bonus` (points) and `comment`
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from miniserve.course.grade.spreadsheet import read_spreadsheet, unquoted
from miniserve.course.grade.trusted import ROOT, TrustedChapter
from miniserve.errors import SetupError

WEIGHTS_FILE = ROOT / "data" / "course" / "weights.toml"


@dataclass(frozen=True, slots=True)
class Mark:
    """A person's judgement of one answer, whatever a check says of it."""

    credit: float | None  # None: the check's stands
    comment: str = ""
    bonus: float = 0.0  # points
    where: str = field(default="", compare=False)  # file and line
    title: str = field(default="", compare=False)  # of the question, if the file has it


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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SetupError(f"{path}: {error}") from None
    if not isinstance(weights, dict):
        raise SetupError(f"{path}: [weights] should be a table of questions and numbers")
    return weights


def read_marks(*paths: Path) -> dict[tuple[str, str], Mark]:
    """Return what the instructor filled in, without the empty lines. Raises: SetupError."""
    found: dict[tuple[str, str], Mark] = {}
    for path in paths:
        for line, row in read_spreadsheet(path):
            if not {"learner", "question", "mark"} <= row.keys() or not row["learner"] or not row["question"]:
                raise SetupError(f"{path}, line {line}: the file needs the columns learner, question and mark")
            key, mark = (unquoted(row["learner"]), row["question"].strip()), _mark(row, path, line)
            if mark == Mark(None):
                continue
            if found.setdefault(key, mark) != mark:
                raise SetupError(f"{mark.where}: {key[0]} has another mark for {key[1]} in {found[key].where}")
    return found


def _mark(row: Mapping[str, str], path: Path, line: int) -> Mark:
    where = f"{path}, line {line}"
    mark, bonus = _decimal(row.get("mark", "")), _decimal(row.get("bonus", ""))
    if mark is not None and not 0 <= mark <= 1:
        raise SetupError(f"{where}: the mark is {row['mark']!r}; it should be from 0 to 1")
    if bonus is not None and not math.isfinite(bonus):
        raise SetupError(f"{where}: the bonus is {row['bonus']!r}; it should be a number of points")
    return Mark(mark, unquoted(row.get("comment", "")), bonus or 0.0, where, row.get("title", ""))


def _decimal(text: str) -> float | None:
    """Return a number, with a decimal point or comma; nan for another text, None for an empty one."""
    if not text.strip():
        return None
    try:
        return float(text.strip().replace(",", ".", 1))
    except ValueError:
        return math.nan


def fitting(
    marks: Marks, learners: Collection[str], course: Mapping[int, TrustedChapter]
) -> tuple[dict[tuple[str, str], Mark], list[str]]:
    """Return the marks that are for someone and something here, and a sentence for each that is not.

    A spreadsheet turns learner 007 into 7 and question 10.10 into 10.1: the mark would get lost, or land elsewhere.
    """
    questions = {id_: question for chapter in course.values() for id_, question in chapter.questions.items()}
    fit, problems = {}, []
    for (learner, id_), mark in marks.items():
        if learner not in learners:
            problems.append(f"{mark.where}: there is no learner {learner!r}{meant(learner, learners)}")
        elif id_ not in questions:
            problems.append(f"{mark.where}: there is no question {id_!r}{meant(id_, questions)}")
        elif mark.title and unquoted(mark.title) != questions[id_].title:
            same = [other for other, question in questions.items() if question.title == unquoted(mark.title)]
            hint = f"; did you mean {same[0]}?" if same else "."
            problems.append(f"{mark.where}: question {id_} is not called {mark.title!r}{hint}")
        else:
            fit[learner, id_] = mark
    return fit, problems


def meant(name: str, names: Collection[str]) -> str:
    """Return what somebody may have meant, as the end of a sentence."""
    same = [one for one in names if _loose(one) == _loose(name)]
    near = same or get_close_matches(name, list(names), 1, 0.75)
    return f"; did you mean {near[0]!r}?" if near else "."


def _loose(name: str) -> str:
    """Return a name without what spreadsheets and people change: zeros around a number, case, spaces."""
    plain = name.strip().casefold()
    if re.fullmatch(r"\d+\.\d+", plain):
        return plain.lstrip("0").rstrip("0")
    return plain.lstrip("0") if plain.isdigit() else plain
