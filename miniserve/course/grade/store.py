"""Keeps each sheet as soon as it is ready, below the reports: a grading that was stopped goes on where it was.

A sheet is taken over only if nothing that decides it has changed: the submission, the chapter and its questions, this
package, the seed, the limits, the sandbox.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from miniserve.course.grade.sheet import Sheet, verdict_from
from miniserve.course.grade.spelling import file_stem
from miniserve.course.grade.stubs import PACKAGE
from miniserve.course.grade.submission import Submission
from miniserve.course.grade.supervise import Settings
from miniserve.course.grade.trusted import TrustedChapter


class Store:
    """The sheets in one folder. A file that can't be read, or says what can't be, counts as not there."""

    def __init__(self, folder: Path, settings: Settings, fresh: bool = False) -> None:
        """Open a folder; if `fresh`, take nothing over."""
        self._folder, self._settings, self._fresh = folder, settings, fresh
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, handed: Submission, chapter: TrustedChapter) -> Sheet | None:
        """Return the sheet of a submission that was graded before, and would be graded in the same way again."""
        if self._fresh:
            return None
        try:
            told = json.loads(self._path(handed, chapter).read_text(encoding="utf-8"))
            if told["key"] != self._key(handed, chapter):
                return None
            found = [verdict_from(one, chapter.questions) for one in told["verdicts"]]
            verdicts = {verdict.question_id: verdict for verdict in found}
            texts = {id_: str(told["texts"][id_]) for id_ in chapter.questions if id_ in told["texts"]}
            answers = {id_: str(told["answers"][id_]) for id_ in chapter.questions if id_ in told["answers"]}
            if verdicts.keys() != chapter.questions.keys():
                return None
            return Sheet(handed, chapter.number, verdicts, texts, tuple(map(str, told["notes"])), answers=answers)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def put(self, sheet: Sheet, chapter: TrustedChapter) -> None:
        """Keep a sheet. Raises: OSError."""
        verdicts = [asdict(verdict) for verdict in sheet.verdicts.values()]
        key = self._key(sheet.handed, chapter)
        told: dict[str, Any] = {"key": key, "verdicts": verdicts, "texts": dict(sheet.texts), "notes": sheet.notes}
        told["answers"] = dict(sheet.answers)
        replace_text(self._path(sheet.handed, chapter), json.dumps(told))

    def _path(self, handed: Submission, chapter: TrustedChapter) -> Path:
        return self._folder / f"{file_stem(handed.learner)}.{chapter.number:02}.json"

    def _key(self, handed: Submission, chapter: TrustedChapter) -> str:
        limits = asdict(self._settings.limits_of(chapter))
        ours = [chapter.number, chapter.sha256, self._settings.seed, self._settings.sandbox, limits, _package_sha256()]
        theirs = [handed.learner, handed.file, handed.sha256, handed.notes, handed.drawn_for, handed.others]
        return hashlib.sha256(json.dumps([*ours, *theirs]).encode()).hexdigest()


@cache
def _package_sha256() -> str:
    """Return a hash of this package: it judges, and the kernels run with it."""
    whole = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        whole.update(f"{path.relative_to(PACKAGE)}\n".encode() + path.read_bytes())
    return whole.hexdigest()


def replace_text(path: Path, text: str) -> None:
    """Write a file so that it is never seen half written. Raises: OSError."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text, encoding="utf-8", newline="\n", errors="replace")
    os.replace(beside, path)
