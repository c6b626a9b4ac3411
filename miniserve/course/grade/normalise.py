"""Makes a fresh notebook from a submission: the chapter's own cells, with the learner's answers put in.

`align.py` finds which cell is which. The learner's other code cells stay in place. Check cells, cells that measure,
experiments that no answer needs, outputs, tags, markers and metadata are gone before anything runs, so edits to them
can't matter. A question is asked where its check stands, since that is what the learner saw.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from miniserve.course.check.code import Code
from miniserve.course.check.verdict import Problem, Status, Verdict
from miniserve.course.grade.align import Aligned, align, questions_checked
from miniserve.course.grade.cells import (
    CELL_LIMIT_CHARACTERS,
    NBVAL_COMMENT,
    forbidden,
    keeps_no_names,
    learn,
    names,
    needed,
    odd,
    parameters,
    same_code,
)
from miniserve.course.grade.submission import Submission
from miniserve.course.grade.trusted import TrustedChapter

MOST_CHANCES = 4  # times that one question is asked in one run


@dataclass(frozen=True, slots=True)
class HandedCell:
    """One code cell to run. `question` for an answer cell; `own` if the text is the learner's."""

    id: str
    text: str
    question: str = ""
    own: bool = False
    asks: tuple[str, ...] = ()  # the questions to ask as soon as it has run


@dataclass(frozen=True, slots=True)
class Normalised:
    """What will run, what is already decided, and what the instructor should know."""

    cells: tuple[HandedCell, ...]
    verdicts: tuple[Verdict, ...]  # not tried, missing, forbidden: known without running
    notes: tuple[str, ...]
    answers: Mapping[str, str] = field(default_factory=dict)  # by question, if they differ from the given cell

    def without(self, chapter: TrustedChapter, ids: Collection[str]) -> tuple[HandedCell, ...]:
        """Return the cells without `ids`: an answer cell becomes the given one again, others go."""
        stubs = {cell.id: cell.text for cell in chapter.answer_cells.values()}
        cells = _dropped(self.cells, lambda cell: cell.id in ids and cell.id not in stubs)
        return tuple(replace(cell, text=stubs[cell.id], own=False) if cell.id in ids else cell for cell in cells)


def _dropped(cells: Iterable[HandedCell], drop: Callable[[HandedCell], bool]) -> tuple[HandedCell, ...]:
    """Return the cells without some of them; the cell before takes over what they ask."""
    kept: list[HandedCell] = []
    for cell in cells:
        if not drop(cell):
            kept.append(cell)
        elif kept and cell.asks:
            kept[-1] = replace(kept[-1], asks=tuple(dict.fromkeys(kept[-1].asks + cell.asks)))
    return tuple(kept)


def normalise(handed: Submission, chapter: TrustedChapter) -> Normalised:
    """Put the learner's answers into the chapter."""
    code = [cell.text for cell in handed.cells if cell.is_code and len(cell.text) <= CELL_LIMIT_CHARACTERS]
    learn([*code, *map(_unmarked, code), *(cell.text for cell in chapter.cells)])
    aligned = align(handed.cells, chapter)
    by_id = {one.id: one.cell.text for one in aligned if one.id}
    answers = {id_: by_id[given.id] for id_, given in chapter.answer_cells.items() if given.id in by_id}
    mine = {id_: text for id_, text in answers.items() if not same_code(text, chapter.answer_cells[id_].text)}
    merged = _merged(chapter, mine, _extras(aligned))
    always = {place for place, cell in enumerate(merged) if cell.own or cell.question or place == 0}
    keep = {merged[place].id for place in needed([cell.text for cell in merged], always)}
    cells = _asked_again(_dropped(merged, lambda cell: cell.id not in keep), chapter)
    verdicts = [verdict for id_ in chapter.questions if (verdict := _decided(chapter, id_, answers.get(id_), cells))]
    return Normalised(cells, tuple(verdicts), tuple(_notes(handed, chapter, aligned, cells)), mine)


def _extras(aligned: Sequence[Aligned]) -> dict[str, list[str]]:
    """Return the learner's other code cells, by the id of the chapter's cell that they follow."""
    at = ""
    extras: dict[str, list[str]] = {}
    for one in aligned:
        if one.is_extra:
            extras.setdefault(at, []).append(one.cell.text)
        at = one.id or at
    return extras


def _merged(chapter: TrustedChapter, answers: Mapping[str, str], extras: Mapping[str, list[str]]) -> list[HandedCell]:
    """Return all cells in the chapter's order; a check is an empty one that asks its question."""
    merged: list[HandedCell] = []
    number = 0
    asks = {id_: question for question, id_ in chapter.check_cells.items() if question in chapter.questions}
    for place, given in enumerate(chapter.cells):
        if given.id in asks:
            merged.append(HandedCell(given.id, "", asks=(asks[given.id],)))
        elif given.runs:
            answer = answers.get(given.question) if given.question else None
            text = given.text if answer is None else _unmarked(answer)
            merged.append(HandedCell(given.id, text, given.question, own=answer is not None))
        for extra in (extras.get("", []) if place == 0 else []) + extras.get(given.id, []):
            number += 1
            merged.append(HandedCell(f"own-{number}", _unmarked(extra), own=True))
    unchecked = tuple(id_ for id_ in chapter.questions if id_ not in asks.values())
    return [*merged[:-1], replace(merged[-1], asks=merged[-1].asks + unchecked)]


def _asked_again(cells: tuple[HandedCell, ...], chapter: TrustedChapter) -> tuple[HandedCell, ...]:
    """Add further chances: after a later cell that checks the question again, and after the last that binds its name.

    A learner who finds the mistake further down, and sees CORRECT there, has answered.
    """
    again: dict[int, tuple[str, ...]] = {}
    for id_, question in chapter.questions.items():
        first = next(place for place, cell in enumerate(cells) if id_ in cell.asks)
        later = [place for place in range(first + 1, len(cells)) if cells[place].own]
        found = {place: names(cells[place].text) for place in later}
        binding = [place for place in later if question.name in found[place].binds | found[place].changes]
        checking = [place for place in later if id_ in questions_checked(cells[place].text)]
        for place in sorted({*binding[-1:], *checking})[-MOST_CHANCES + 1 :]:
            again[place] = (*again.get(place, ()), id_)
    return tuple(replace(cell, asks=cell.asks + again.get(place, ())) for place, cell in enumerate(cells))


def _unmarked(text: str) -> str:
    """Return a cell's text without the comments that nbval obeys."""
    return NBVAL_COMMENT.sub("#", text)


def _decided(chapter: TrustedChapter, id_: str, answer: str | None, cells: tuple[HandedCell, ...]) -> Verdict | None:
    """Return the verdict if it needs no run."""
    given, question = chapter.answer_cells[id_], chapter.questions[id_]
    elsewhere = any(cell.own and cell.question != id_ and question.name in names(cell.text).binds for cell in cells)
    if answer is None:
        if elsewhere:
            return None
        seen = f"no cell with the id {given.id}, and no other that binds {question.name}"
        return Verdict(id_, Status.MISSING, Problem("missing", seen, "There is nothing to check.", "Put it back."))
    if same_code(answer, given.text) and not elsewhere:
        return Verdict(id_, Status.NOT_TRIED)
    if (magic := keeps_no_names(answer)) and not elsewhere:
        seen, why = (
            f"the answer's cell begins with {magic}",
            f"What runs under {magic} leaves no names in the notebook.",
        )
        return Verdict(id_, Status.MISSING, Problem("no-names", seen, why, f"Delete {magic}, or write %%time instead."))
    if isinstance(question, Code) and (use := _forbidden(question, answer, cells)):
        why = "Here the library's own version does the work."
        return Verdict(id_, Status.FORBIDDEN, Problem("forbidden", use, why, "Write it with what the text gives you."))
    return None


def _forbidden(question: Code, text: str, cells: tuple[HandedCell, ...]) -> str | None:
    """Return how an answer reaches for what it should build: in its own cell, or by a name from another cell."""
    if use := forbidden(text, question.denied):
        return use
    own = names(text)
    from_elsewhere = own.loads - own.binds - parameters(text)
    for cell in cells:
        if cell.own and cell.question != question.id and names(cell.text).binds & from_elsewhere:
            use = forbidden(cell.text, question.denied)
            if use and "(" not in use:  # reading the library's source in a cell of your own is learning
                return use
    return None


def _notes(
    handed: Submission, chapter: TrustedChapter, aligned: Sequence[Aligned], cells: tuple[HandedCell, ...]
) -> list[str]:
    notes = list(handed.notes)
    ids = [cell.id for cell in handed.cells]
    twice = sorted({cell.id for cell in chapter.cells if ids.count(cell.id) > 1})
    notes += [f"Cell {id_} is there {ids.count(id_)} times; the last changed before its check counts." for id_ in twice]
    notes += _edited_checks(chapter, aligned)
    long = sum(len(cell.text) > CELL_LIMIT_CHARACTERS for cell in handed.cells if cell.is_code)
    notes += [f"{long} cells have over {CELL_LIMIT_CHARACTERS:,} characters and were left out."] if long else []
    imported = frozenset[str]().union(*(names(cell.text).imports for cell in cells))
    notes += [f"Cell {cell.id}: {sentence}." for cell in cells if cell.own for sentence in odd(cell.text, imported)]
    return notes


def _edited_checks(chapter: TrustedChapter, aligned: Sequence[Aligned]) -> list[str]:
    """Return what an instructor should know of checks that were changed: the chapter's own are what counts."""
    checks = {cell.id: cell.text for cell in chapter.cells if "check" in cell.tags}
    theirs = {one.id: one.cell for one in aligned if one.id in checks}
    edited = [id_ for id_, cell in theirs.items() if not (cell.is_code and same_code(cell.text, checks[id_]))]
    notes = [f"Check cells were edited ({', '.join(edited)}); the chapter's own checks count."] if edited else []
    for id_ in edited:
        for question, checked in questions_checked(theirs[id_].text).items():
            asked = chapter.questions[question].name if question in chapter.questions else checked
            if checked and checked != asked:
                notes.append(f"{id_} was given {checked[:60]}; the answer that counts is called {asked}.")
    return notes
