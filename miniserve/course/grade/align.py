"""Finds out which of a learner's cells is which of the chapter's: by id, or else by what it says or binds.

Colab and older editors drop ids, others draw new ones, and copying a cell may copy its id. So a cell without a known id
counts as the chapter's own if it has the same code, calls the same check, or binds the answer's name; and of several
cells with one id, one is the chapter's and the others are the learner's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from miniserve.course.grade.cells import CELL_LIMIT_CHARACTERS, Handed, code_of, names, same_code
from miniserve.course.grade.trusted import TrustedChapter

_CHECK = re.compile(r"""^[^#\n]*\.check\(\s*["'](\d+\.\d+)["']\s*,\s*(\w*)""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Aligned:
    """One of the learner's cells; `id` is the chapter's cell that it is, "" for one of the learner's own."""

    cell: Handed
    id: str = ""

    @property
    def is_extra(self) -> bool:
        """True for code of the learner's own that runs where it stands."""
        text = self.cell.text
        return not self.id and self.cell.is_code and bool(text.strip()) and len(text) <= CELL_LIMIT_CHARACTERS


def align(cells: Sequence[Handed], chapter: TrustedChapter) -> list[Aligned]:
    """Return the learner's cells in their order, each with its place in the chapter; no place is taken twice."""
    taken: dict[int, str] = {}
    claims = _claims(cells, chapter)
    for given in chapter.cells:
        if not given.question and (places := claims[given.id]):
            taken[_given_one(cells, places, given.text)] = given.id
    at = {id_: place for place, id_ in taken.items()}
    for id_, given in chapter.answer_cells.items():
        check = at.get(chapter.check_cells[id_], len(cells)) if id_ in chapter.check_cells else len(cells)
        places = claims[given.id] or list(_binding(cells, chapter.questions[id_].name, taken, chapter))
        if places:
            taken[_answer(cells, places, given.text, check)] = given.id
    known = {given.id: given.text for given in chapter.cells}
    return [
        Aligned(cell, taken.get(place, ""))
        for place, cell in enumerate(cells)
        if place in taken or cell.id not in known or not _repeats(cell, known, cells, taken)
    ]


def answers_in(cells: Sequence[Handed], chapter: TrustedChapter) -> dict[str, str]:
    """Return the answers that differ from the given cell, by question."""
    by_id = {one.id: one.cell.text for one in align(cells, chapter) if one.id}
    return {
        question: by_id[given.id]
        for question, given in chapter.answer_cells.items()
        if given.id in by_id and not same_code(by_id[given.id], given.text)
    }


def questions_checked(text: str) -> dict[str, str]:
    """Return the questions that a cell checks, each with the name it gives: `ch.check("6.1", name)`."""
    return dict(_CHECK.findall(text))


def _claims(cells: Sequence[Handed], chapter: TrustedChapter) -> dict[str, list[int]]:
    """Return the places of the cells that may be each of the chapter's cells."""
    claims: dict[str, list[int]] = defaultdict(list)
    ids = {cell.id for cell in chapter.cells}
    answers = {cell.id for cell in chapter.answer_cells.values()}
    for place, cell in enumerate(cells):
        if cell.id in ids and len(cell.text) <= CELL_LIMIT_CHARACTERS and (cell.is_code or cell.id not in answers):
            claims[cell.id].append(place)
    same = defaultdict(list)
    for given in chapter.cells:
        if not claims[given.id]:
            same[code_of(given.text)].append(given.id)
    for place, cell in enumerate(cells):
        if not cell.is_code or cell.id in ids or len(cell.text) > CELL_LIMIT_CHARACTERS:
            continue
        if waiting := same.get(code_of(cell.text)):
            claims[waiting.pop(0)].append(place)
        elif ".check(" in cell.text and len(checked := questions_checked(cell.text)) == 1:
            id_ = chapter.check_cells.get(next(iter(checked)), "")
            if id_ and not claims[id_] and not names(cell.text).binds:
                claims[id_].append(place)
    return claims


def _given_one(cells: Sequence[Handed], places: list[int], text: str) -> int:
    """Return which of several cells is the chapter's own: the one with its code, or else the first."""
    return next((place for place in places if same_code(cells[place].text, text)), places[0])


def _answer(cells: Sequence[Handed], places: list[int], text: str, check: int) -> int:
    """Return which of several cells is the answer: the last changed one before the check, or else after it."""
    changed = [place for place in places if not same_code(cells[place].text, text)]
    before = [place for place in changed if place < check]
    return (before or changed or places)[-1]


def _binding(cells: Sequence[Handed], name: str, taken: dict[int, str], chapter: TrustedChapter) -> Iterator[int]:
    """Yield the places of cells without a place in the chapter that bind an answer's name."""
    ids = {cell.id for cell in chapter.cells}
    for place, cell in enumerate(cells):
        fits = cell.is_code and place not in taken and cell.id not in ids and len(cell.text) <= CELL_LIMIT_CHARACTERS
        if fits and name in names(cell.text).binds:
            yield place


def _repeats(cell: Handed, known: dict[str, str], cells: Sequence[Handed], taken: dict[int, str]) -> bool:
    """Return whether a cell only repeats what its namesake says, as given or as answered: it need not run twice."""
    chosen = [cells[place].text for place, id_ in taken.items() if id_ == cell.id]
    return any(same_code(cell.text, text) for text in (known[cell.id], *chosen))
