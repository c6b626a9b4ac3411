"""Makes a fresh notebook from a submission: the chapter's own cells, with the learner's answers put in.

It finds an answer cell by its id, or else by the name that it binds. The learner's other code cells stay in place.
Check cells, cells that measure, experiments that no answer needs, outputs, tags, markers and metadata are gone before
anything runs, so edits to them can't matter.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from miniserve.course.check.code import Code
from miniserve.course.check.verdict import Problem, Status, Verdict
from miniserve.course.grade.cells import NBVAL_COMMENT, forbidden, learn, names, needed, odd, parameters, same_code
from miniserve.course.grade.submission import CELL_LIMIT_CHARACTERS, Handed, Submission
from miniserve.course.grade.trusted import Given, TrustedChapter


@dataclass(frozen=True, slots=True)
class HandedCell:
    """One code cell to run. `question` for an answer cell; `own` if the text is the learner's."""

    id: str
    text: str
    question: str = ""
    own: bool = False


@dataclass(frozen=True, slots=True)
class Normalised:
    """What will run, what is already decided, and what the instructor should know."""

    cells: tuple[HandedCell, ...]
    verdicts: tuple[Verdict, ...]  # not tried, missing, forbidden: known without running
    notes: tuple[str, ...]

    def without(self, chapter: TrustedChapter, ids: Collection[str]) -> tuple[HandedCell, ...]:
        """Return the cells without `ids`: an answer cell becomes the given one again, others go."""
        stubs = {cell.id: cell.text for cell in chapter.answer_cells.values()}
        return tuple(
            replace(cell, text=stubs[cell.id], own=False) if cell.id in ids else cell
            for cell in self.cells
            if cell.id not in ids or cell.id in stubs
        )


def normalise(handed: Submission, chapter: TrustedChapter) -> Normalised:
    """Put the learner's answers into the chapter."""
    code = [cell.text for cell in handed.cells if cell.is_code and len(cell.text) <= CELL_LIMIT_CHARACTERS]
    learn([*code, *map(_unmarked, code), *(cell.text for cell in chapter.cells)])
    answers = {id_: _answer(handed.cells, chapter, id_) for id_ in chapter.questions}
    taken = {id(cell) for cell in answers.values() if cell is not None}
    extras = _extras(handed.cells, chapter, taken)
    merged = _merged(chapter, answers, extras)
    always = {place for place, (cell, given) in enumerate(merged) if cell.own or cell.question or given == "setup"}
    keep = needed([cell.text for cell, _ in merged], always)
    cells = tuple(cell for place, (cell, _) in enumerate(merged) if place in keep)
    verdicts = [verdict for id_ in chapter.questions if (verdict := _decided(chapter, id_, answers[id_], cells))]
    return Normalised(cells, tuple(verdicts), tuple(_notes(handed, chapter, cells)))


def _answer(cells: tuple[Handed, ...], chapter: TrustedChapter, question: str) -> Handed | None:
    given, name = chapter.answer_cells[question], chapter.questions[question].name
    fits = [cell for cell in cells if cell.is_code and len(cell.text) <= CELL_LIMIT_CHARACTERS]
    if by_id := [cell for cell in fits if cell.id == given.id]:
        return next((cell for cell in reversed(by_id) if not same_code(cell.text, given.text)), by_id[0])
    theirs = {cell.id for cell in chapter.cells}
    by_name = [cell for cell in fits if cell.id not in theirs and name in names(cell.text).binds]
    return by_name[-1] if by_name else None


def _extras(cells: tuple[Handed, ...], chapter: TrustedChapter, taken: set[int]) -> dict[str, list[Handed]]:
    """Return the learner's other code cells, by the id of the chapter's cell that they follow."""
    ids, at = {cell.id for cell in chapter.cells}, ""
    extras: dict[str, list[Handed]] = {}
    for cell in cells:
        if cell.id in ids:
            at = cell.id
        elif cell.is_code and id(cell) not in taken and cell.text.strip() and len(cell.text) <= CELL_LIMIT_CHARACTERS:
            extras.setdefault(at, []).append(cell)
    return extras


def _merged(
    chapter: TrustedChapter, answers: dict[str, Handed | None], extras: dict[str, list[Handed]]
) -> list[tuple[HandedCell, str]]:
    """Return the cells in the chapter's order, each with the id of its given cell; "" for the learner's own."""
    merged: list[tuple[HandedCell, str]] = []
    number = 0
    for place, given in enumerate(chapter.cells):
        if given.runs:
            merged.append((_filled(given, answers), "setup" if not merged else given.id))
        for extra in (extras.get("", []) if place == 0 else []) + extras.get(given.id, []):
            number += 1
            merged.append((HandedCell(f"own-{number}", _unmarked(extra.text), own=True), ""))
    return merged


def _filled(given: Given, answers: dict[str, Handed | None]) -> HandedCell:
    answer = answers.get(given.question) if given.question else None
    if answer is None or same_code(answer.text, given.text):
        return HandedCell(given.id, given.text, given.question)
    return HandedCell(given.id, _unmarked(answer.text), given.question, own=True)


def _unmarked(text: str) -> str:
    """Return a cell's text without the comments that nbval obeys."""
    return NBVAL_COMMENT.sub("#", text)


def _decided(chapter: TrustedChapter, id_: str, answer: Handed | None, cells: tuple[HandedCell, ...]) -> Verdict | None:
    """Return the verdict if it needs no run."""
    given, question = chapter.answer_cells[id_], chapter.questions[id_]
    elsewhere = any(cell.own and cell.question != id_ and question.name in names(cell.text).binds for cell in cells)
    if answer is None:
        if elsewhere:
            return None
        seen = f"no cell with the id {given.id}, and no other that binds {question.name}"
        return Verdict(id_, Status.MISSING, Problem("missing", seen, "There is nothing to check.", "Put it back."))
    if same_code(answer.text, given.text) and not elsewhere:
        return Verdict(id_, Status.NOT_TRIED)
    if isinstance(question, Code) and (use := _forbidden(question, answer.text, cells)):
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


def _notes(handed: Submission, chapter: TrustedChapter, cells: tuple[HandedCell, ...]) -> list[str]:
    notes = list(handed.notes)
    ids = [cell.id for cell in handed.cells]
    twice = sorted({cell.id for cell in chapter.cells if ids.count(cell.id) > 1})
    notes += [f"Cell {id_} is there {ids.count(id_)} times; the last that was changed counts." for id_ in twice]
    theirs = {cell.id: cell for cell in handed.cells}
    edited = [
        given.id
        for given in chapter.cells
        if "check" in given.tags
        and (own := theirs.get(given.id)) is not None
        and not (own.is_code and same_code(own.text, given.text))
    ]
    notes += [f"Check cells were edited ({', '.join(edited)}); the chapter's own checks count."] if edited else []
    long = sum(len(cell.text) > CELL_LIMIT_CHARACTERS for cell in handed.cells if cell.is_code)
    notes += [f"{long} cells have over {CELL_LIMIT_CHARACTERS:,} characters and were left out."] if long else []
    notes += [f"Cell {cell.id}: {sentence}." for cell in cells if cell.own for sentence in odd(cell.text)]
    return notes
