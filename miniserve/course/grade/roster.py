"""Reads who takes part in a course: a CSV file with a line per learner, as a platform exports it or as you write it.

Canvas's gradebook and Moodle's grading worksheet or gradebook are understood as they are. A learner is found by id,
login, number, e-mail address or name, so that folders may be called whatever the platform calls them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from miniserve.course.grade.spreadsheet import read_spreadsheet
from miniserve.errors import SetupError

# Headings, in the order in which they are believed to say what a learner's id is
_ID = ("learner", "learner id", "sis login id", "username", "login", "email address", "email", "id number", "name")
_NUMBERS = ("id", "sis user id", "id number", "identifier")
_NAMES = ("name", "student", "full name")


@dataclass(frozen=True, slots=True)
class Person:
    """One learner on the roster, with the line as it was, by heading."""

    id: str
    name: str
    row: Mapping[str, str]

    @property
    def numbers(self) -> set[str]:
        """What a platform calls this learner; Moodle's `Participant 4711` is 4711 in the names of folders."""
        return {self.row[key].removeprefix("Participant ") for key in _NUMBERS if self.row.get(key)}

    @property
    def keys(self) -> set[str]:
        """All spellings under which this learner may be known."""
        first, last = self.row.get("first name", ""), self.row.get("last name") or self.row.get("surname", "")
        email = self.row.get("email address") or self.row.get("email", "")
        parts = [part.strip() for part in self.name.split(",")]
        words = self.name.split()
        turned = [" ".join(reversed(parts)), " ".join([*words[-1:], *words[:-1]])]  # Canvas's lovelaceada
        said = (self.id, self.name, *turned, f"{first} {last}", f"{last} {first}", email, email.partition("@")[0])
        logins = (self.row.get(key, "") for key in ("sis login id", "username", "login"))
        return {key for key in map(_plain, (*said, *logins)) if key}


@dataclass(frozen=True, slots=True)
class Roster:
    """Everyone who takes part; empty if no file was given."""

    people: tuple[Person, ...] = ()

    def find(self, learner: str, number: str = "") -> Person | None:
        """Return who is meant by a folder's name, or by the platform's number; None if that is nobody or unclear."""
        if number and len(same := [one for one in self.people if number in one.numbers]) == 1:
            return same[0]
        if len(same := [one for one in self.people if one.id == learner]) == 1:
            return same[0]
        same = [one for one in self.people if _plain(learner) in one.keys]
        return same[0] if len(same) == 1 else None

    def id_of(self, learner: str, number: str = "") -> str:
        """Return a learner's id on the roster; the name as it is, if it isn't there."""
        found = self.find(learner, number)
        return found.id if found is not None else learner

    def ids_of(self, learner: str) -> list[str]:
        """Return other names under which a learner on the roster may have worked."""
        found = self.find(learner)
        if found is None:
            return []
        email = found.row.get("email address") or found.row.get("email", "")
        logins = [found.row.get(key, "") for key in ("sis login id", "username", "login")]
        return [id_ for id_ in (*logins, email, email.partition("@")[0], *sorted(found.numbers)) if id_]


NOBODY = Roster()


def read_roster(path: Path | None) -> Roster:
    """Read a roster. Raises: SetupError for a file without learners, or with one learner twice."""
    if path is None:
        return NOBODY
    people = []
    for line, row in read_spreadsheet(path):
        name = next((row[key] for key in _NAMES if row.get(key)), "")
        name = name or " ".join(filter(None, (row.get("first name"), row.get("last name") or row.get("surname"))))
        id_ = next((row[key] for key in _ID if row.get(key)), "") or name
        if not id_:
            raise SetupError(f"{path}, line {line}: it names no learner; the file needs a column such as learner")
        if not re.match(r"Points Possible|Student, Test$", name.strip()):  # lines that Canvas adds
            people.append(Person(id_, name, row))
    if not people:
        raise SetupError(f"{path}: there is no learner in it")
    twice = [id_ for id_, ones in _by(people).items() if len(ones) > 1]
    if twice:
        raise SetupError(f"{path}: {twice[0]} is there twice")
    return Roster(tuple(people))


def _by(people: Iterable[Person]) -> dict[str, list[Person]]:
    found: dict[str, list[Person]] = defaultdict(list)
    for one in people:
        found[one.id].append(one)
    return found


def _plain(name: str) -> str:
    """Return a name without what platforms change: case, accents, spaces, dots and hyphens."""
    letters = unicodedata.normalize("NFKD", name).casefold()
    return "".join(letter for letter in letters if letter.isalnum())
