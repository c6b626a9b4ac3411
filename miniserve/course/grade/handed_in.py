"""Reads a folder of submissions: one notebook per learner and chapter, and what became of every other file.

Knows how learners' folders may be laid out (`find.py` has what platforms do to names), and whose drawn numbers count.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from miniserve.course.check.chapter import LEARNER_FILE, read_learner
from miniserve.course.grade.align import answers_in
from miniserve.course.grade.cells import code_of, learn
from miniserve.course.grade.find import Found, find_files, looks_like_an_attempt, lower
from miniserve.course.grade.roster import NOBODY, Roster
from miniserve.course.grade.spelling import alike
from miniserve.course.grade.submission import Submission, is_copy, read_submission
from miniserve.course.grade.trusted import TrustedChapter
from miniserve.errors import SetupError

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
Read = Mapping[tuple[Path, str], Submission]  # what was read, by `Found.key`
_SHOWN = 20  # files of one kind that the report names one by one, for each learner


@dataclass(frozen=True, slots=True)
class FileFate:
    """What became of one file that was handed in. `look` if a person should see to it."""

    path: str
    learner: str
    became: str
    look: bool = False


@dataclass(frozen=True, slots=True)
class HandedIn:
    """All that lies in a folder of submissions."""

    submissions: tuple[Submission, ...]
    files: tuple[FileFate, ...]  # that are graded nowhere; a submission names its own
    learners: tuple[str, ...]  # everyone with a file or folder
    notes: tuple[str, ...] = ()


def read_submissions(folder: Path, course: Mapping[int, TrustedChapter]) -> list[Submission]:
    """Read the submissions in `folder`, one notebook per learner and chapter. Raises: SetupError if there are none."""
    return list(read_folder(folder, course).submissions)


def read_folder(folder: Path, course: Mapping[int, TrustedChapter], roster: Roster = NOBODY) -> HandedIn:
    """Read a folder of submissions. Raises: SetupError if no learner has handed in a notebook."""
    if not folder.is_dir():
        raise SetupError(f"{folder} is not a folder")
    found = find_files(folder)
    read = {one.key: read_submission(one, course) for one in found if one.learner and not one.ignored}
    found, notes = _levelled(found, read)
    found = [replace(one, learner=roster.id_of(one.learner, one.number)) if one.learner else one for one in found]
    if not read:
        raise SetupError(_nothing(folder, found))
    learners = tuple(sorted({one.learner for one in found if one.learner}))
    whose, told = _drawn_for(found, learners)
    handed = []
    for one in found:
        if one.key in read and one.learner:
            candidates = _others(one.learner, learners, roster)
            mine = replace(read[one.key], learner=one.learner, drawn_for=whose.get(one.learner, ""), others=candidates)
            handed.append(replace(mine, notes=(*mine.notes, *told.get(one.learner, ()))))
    kept, left_out = _one_each(handed, course)
    files = [*_fates([one for one in found if one.key not in read or not one.learner]), *left_out]
    twins = [(name, others) for name, others in alike(learners).items() if name < min(others)]
    notes += [f"{name} and {', '.join(others)} look alike: are they one learner?" for name, others in twins]
    return HandedIn(kept, tuple(sorted(files, key=lambda one: one.path)), learners, tuple(notes))


def _nothing(folder: Path, found: Sequence[Found]) -> str:
    seen = "; ".join(f"{one.path}: {one.ignored or 'no learner'}" for one in found[:5])
    return f"{folder} holds no notebooks: it should be {folder.name}/<learner>/<chapter>.ipynb" + (
        f" (there is {seen})" if seen else ""
    )


# --- one level too many -----------------------------------------------------------------------------------------------


def _levelled(found: list[Found], read: Read) -> tuple[list[Found], list[str]]:
    """Return the files with the right folders taken for learners, and sentences about what was taken."""
    notes = []
    for _ in range(5):
        tops = _hold_learners(found, read)
        if not tops:
            break
        names = ", ".join(sorted(tops))
        notes.append(f"{names}: no learner, but a folder of learners; the folders inside were taken for them.")
        found = lower(found, tops)
    groups = _groups(found, read)
    if len(groups) == 1:
        ((top, ones),) = groups.items()
        inside = {one.folders[1] if one.folders[1:] else "" for one in ones}
        if len(inside) == 1 and (only := next(iter(inside))) and not notes:
            notes.append(f"The only learner is {top}, with the folder {only}: if {only} is the learner, grade {top}/.")
    return found, notes


def _groups(found: Iterable[Found], read: Read) -> dict[str, list[Found]]:
    """Return the notebooks by the folder that is taken for their learner's."""
    groups: dict[str, list[Found]] = defaultdict(list)
    for one in found:
        if one.folders and one.key in read:
            groups[one.folders[0]].append(one)
    return groups


def _hold_learners(found: Iterable[Found], read: Read) -> frozenset[str]:
    """Return the folders that hold learners: no notebook lies in them directly, but one chapter in several folders."""
    groups = _groups(found, read)
    holding = set()
    for top, ones in groups.items():
        inside: dict[int, set[str]] = defaultdict(set)
        for one in ones:
            inside[read[one.key].chapter if one.folders[1:] else -1].add(one.folders[1] if one.folders[1:] else "")
        names = {name for chapter, folders in inside.items() if chapter > 0 and len(folders) > 1 for name in folders}
        others = [one for name, group in groups.items() if name != top for one in group]
        elsewhere = {one.folders[1] for one in others if one.folders[1:]}
        if -1 not in inside and names and not names & elsewhere and not all(map(looks_like_an_attempt, names)):
            holding.add(top)
    return frozenset(holding)


# --- whose numbers --------------------------------------------------------------------------------------------------


def _drawn_for(found: Iterable[Found], learners: Sequence[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the ids that learners' own `learner_id.txt` says, and what to tell where it isn't followed."""
    drawn_for: dict[str, str] = {}
    told: dict[str, list[str]] = defaultdict(list)
    for one in found:
        if one.name.casefold() != LEARNER_FILE.name or not one.learner or not one.folders:
            continue
        id_ = read_learner(one.read(1_000)[0])
        if id_ == one.learner or not _ID.fullmatch(id_):
            continue
        if id_ in learners:
            told[one.learner].append(f"{one.path} says {id_}, who is another learner; {one.learner}'s numbers count.")
        elif drawn_for.setdefault(one.learner, id_) != id_:
            told[one.learner].append(f"{one.path} says {id_}, another file {drawn_for[one.learner]}, which counts.")
    return drawn_for, told


def _others(learner: str, learners: Sequence[str], roster: Roster) -> tuple[str, ...]:
    """Return ids that a learner may have worked with: none, other spellings of the name, and other learners'."""
    words = re.findall(r"[^\W\d_]+", learner)
    spelt = [joint.join(words) for joint in (".", "", "_", "-")] + [word for word in words[-1:] if len(words) > 1]
    spelt += [words[0][:1] + words[-1]] if len(words) > 1 else []
    cases = [change(name) for name in spelt for change in (str.lower, str.title, str)]
    ids = ["", learner.lower(), *cases, *roster.ids_of(learner), *learners]
    return tuple(dict.fromkeys(id_ for id_ in ids if id_ != learner))


# --- one of several, and the rest -------------------------------------------------------------------------------------


def _one_each(
    found: list[Submission], course: Mapping[int, TrustedChapter]
) -> tuple[tuple[Submission, ...], list[FileFate]]:
    """Keep one file per learner and chapter: a readable one with the most answers, then no copy, then the first."""
    groups: dict[tuple[str, int], list[Submission]] = defaultdict(list)
    for one in found:
        groups[one.learner, one.chapter].append(one)
    kept, left_out = [], []
    for (learner, chapter), group in groups.items():
        if chapter == 0 or len(group) == 1:
            kept += group
            continue
        given = (cell.text for cell in course[chapter].cells)
        learn([*given, *(cell.text for one in group for cell in one.cells if cell.is_code)])
        answers = {one.file: answers_in(one.cells, course[chapter]) for one in group}
        best = min(group, key=lambda one: (bool(one.problem), -len(answers[one.file]), is_copy(one.file), one.file))
        notes = []
        for one in group:
            if one is not best:
                why = f"left out: {best.file} is the same chapter and counts; {_holds(answers, one, best)}"
                left_out.append(FileFate(one.file, learner, why))
                notes.append(f"{one.file} is the same chapter and was left out: {_holds(answers, one, best)}.")
        kept.append(replace(best, notes=(*best.notes, *notes)))
    return tuple(sorted(kept, key=lambda one: (one.learner, one.chapter, one.file))), left_out


def _holds(answers: Mapping[str, Mapping[str, str]], one: Submission, best: Submission) -> str:
    """Return what is lost with a notebook that was left out."""
    if one.problem:
        return f"it is unreadable ({one.problem.rstrip('.')})"
    mine, counted = answers[one.file], answers[best.file]
    if not mine:
        return "it holds no answers"
    other = [id_ for id_, text in mine.items() if id_ not in counted or code_of(text) != code_of(counted[id_])]
    if not other:
        return f"it holds {len(mine)} answers, the same"
    return f"it holds {len(mine)} answers, and those to {', '.join(other)} differ from the ones that count"


def _fates(found: Iterable[Found]) -> list[FileFate]:
    """Return what became of the files that no notebook was read from; many of one kind are one line."""
    by_kind: dict[tuple[str, str], list[Found]] = defaultdict(list)
    for one in found:
        why = one.ignored or "no learner: its folder holds learners, and it lies beside them"
        by_kind[one.learner, why].append(one)
    fates = []
    for (learner, why), ones in by_kind.items():
        look = why.startswith(("no learner", "a link", "an archive", "a folder too deep"))
        shown = ones if look or len(ones) <= _SHOWN + 1 else ones[:_SHOWN]
        fates += [FileFate(one.path, learner, f"not read: {why}", look) for one in shown]
        if more := len(ones) - len(shown):
            fates.append(FileFate(f"{ones[_SHOWN].path} and {more - 1:,} more", learner, f"not read: {why}"))
    return fates
