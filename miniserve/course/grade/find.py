"""Finds what was handed in: every file below a folder, whose it is, and whether it can be a notebook.

Learning platforms pack submissions in their own ways: a folder for each learner, with or without numbers in its name;
files whose names begin with the learner's; archives; one level too many. Nothing is dropped: a file that isn't read
says why. Reads names and archives, and the text of no notebook.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from miniserve.course.grade.spelling import printable, readable

FILE_LIMIT_BYTES = 100_000_000
_DEEPEST = 20  # folders inside one another
_MOST_MEMBERS = 2_000  # files in one archive
_NOTEBOOK = re.compile(r"\.ipynb(\.(txt|json))?$", re.IGNORECASE)
_TEXT = re.compile(r"\.(txt|json)$", re.IGNORECASE)
_ARCHIVE = re.compile(r"\.(zip|tar|tgz|gz|bz2|xz|7z|rar)$", re.IGNORECASE)
_LITTER = {
    "__macosx": "bookkeeping of macOS",
    ".ds_store": "bookkeeping of macOS",
    ".ipynb_checkpoints": "bookkeeping of Jupyter",
    "__pycache__": "bookkeeping of Python",
    "thumbs.db": "bookkeeping of Windows",
    "desktop.ini": "bookkeeping of Windows",
    "learner_id.txt": "who the learner is",
}
# How platforms name a learner's folder or file. Moodle: Ada Lovelace_4711_assignsubmission_file_06.ipynb;
# Canvas: lovelaceada_LATE_4711_98765_06.ipynb; Blackboard: Homework_ada_attempt_2026-02-01-10-00-00_06.ipynb;
# and our own: ada__06.ipynb
_PLATFORMS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"(?P<who>.+?)_(?P<number>\d+)_assignsubmission_(?:file|onlinetext)(?:_(?P<rest>.*))?",
        r".+_(?P<who>[^_]+)_attempt_\d{4}(?:-\d\d){5}(?:_(?P<rest>.*))?",
        r"(?P<who>.+?)__(?P<rest>.*)",
        r"(?P<who>[^_]+)_(?:LATE_)?(?P<number>\d{3,})_(?:\d{3,}_)?(?P<rest>.+)",
    )
)
_ATTEMPT = re.compile(r"(attempt|try|version|v|submission|backup|copy|old|new|draft|final)[ _-]*\d*|\d{1,2}", re.I)


@dataclass(frozen=True, slots=True)
class Found:
    """One file, folder or archive that was handed in. `ignored` says why it isn't read; "" if it may be a notebook."""

    path: str  # below the folder of submissions, fit to be shown
    learner: str = ""  # "" if it is nobody's
    name: str = ""  # the file's own name, without what a platform put before it
    ignored: str = ""
    folders: tuple[str, ...] = ()  # above it, from the learner's on
    number: str = ""  # what the platform calls the learner
    source: Path = Path()
    member: str = ""  # in the archive `source`
    handed_in_s: float = 0.0  # when it was last written, in seconds since 1970

    @property
    def key(self) -> tuple[Path, str]:
        """What no two files share, however alike their names look."""
        return self.source, self.member

    def read(self, limit: int = FILE_LIMIT_BYTES) -> tuple[bytes, str]:
        """Return what it holds, or nothing and a sentence that says why it wasn't read."""
        try:
            if self.member:
                with zipfile.ZipFile(self.source) as archive, archive.open(self.member) as file:
                    raw = file.read(limit + 1)
            elif not stat.S_ISREG(self.source.lstat().st_mode):
                return b"", "It is a link or no ordinary file, so it was not read."
            else:
                with self.source.open("rb") as file:
                    raw = file.read(limit + 1)
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            return b"", f"It can't be read: {type(error).__name__}: {str(error)[:100]}."
        if len(raw) > limit:
            size = self.source.lstat().st_size if not self.member else len(raw)
            return b"", f"It has {size:,} bytes; the limit is {limit:,}. Its outputs may be huge."
        return raw, ""


def find_files(folder: Path) -> list[Found]:
    """Return all that lies in a folder of submissions, in order."""
    found: list[Found] = []
    for entry in _entries(folder):
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False) and not _litter(entry.name):
            who, number, _ = whose(readable(entry.name), is_folder=True)
            found += [replace(one, learner=who, number=number) for one in _below(path, (readable(entry.name),))]
        elif _ARCHIVE.search(entry.name) and not _litter(entry.name):
            stem = readable(path.stem)
            who, number, _ = whose(stem, is_folder=False)
            found += [replace(one, learner=who or _fit(stem), number=number) for one in _archive(path, (), stem)]
        else:
            found.append(_flat(path))
    return [replace(one, path=printable(one.path)) for one in _apart(found)]


def whose(name: str, is_folder: bool) -> tuple[str, str, str]:
    """Return the learner and the platform's number in a name, and what is left of it; no learner if it names none."""
    for pattern in _PLATFORMS[:1] if is_folder else _PLATFORMS:
        if match := pattern.fullmatch(name):
            parts = match.groupdict()
            return _fit(parts["who"]), parts.get("number") or "", parts.get("rest") or ""
    return (_fit(name) if is_folder else ""), "", ("" if is_folder else name)


def _fit(name: str) -> str:
    """Return a learner's name as every report shows it: on one line, its accents spelt in one way."""
    return printable(unicodedata.normalize("NFC", name).strip())


def lower(found: list[Found], same: frozenset[str]) -> list[Found]:
    """Return the files with their learners one level further down, for the folders named in `same`."""
    moved = []
    for one in found:
        if one.folders[:1] and one.folders[0] in same and one.folders[1:]:
            who, number, _ = whose(one.folders[1], is_folder=True)
            one = replace(one, learner=who, number=number, folders=one.folders[1:])
        elif one.folders[:1] and one.folders[0] in same:
            one = replace(one, learner="")
        moved.append(one)
    return _apart(moved)


def looks_like_an_attempt(name: str) -> bool:
    """Return whether a folder's name says that it is one of several tries: `attempt 2`, `v1`, `final`, `3`."""
    return _ATTEMPT.fullmatch(name.strip()) is not None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)
    return []


def _litter(name: str) -> str:
    """Return why a name is nobody's work; "" if it may be."""
    if name.startswith("._"):
        return "bookkeeping of macOS"
    return _LITTER.get(name.casefold()) or ("hidden" if name.startswith(".") else "")


def _flat(path: Path) -> Found:
    """Return a file that lies beside the learners' folders: its name must say whose it is."""
    name = readable(path.name)
    size, when_s, is_link = _status(path)
    plain = Found(name, name=name, source=path, handed_in_s=when_s)
    if reason := _litter(name):
        return replace(plain, ignored=reason)
    if is_link and not _NOTEBOOK.search(name):
        return replace(plain, learner=_fit(name), ignored="a link; links are not followed")
    if not _may_be(path, name, size, is_link):
        return replace(plain, ignored=_other(name))
    who, number, rest = whose(name, is_folder=False)
    if not who:
        why = "no learner: its name should begin with one, as in ada__06.ipynb, or put it into a folder of that name"
        return replace(plain, ignored=why)
    return replace(plain, learner=who, number=number, name=rest)


def _below(folder: Path, folders: tuple[str, ...]) -> Iterator[Found]:
    """Yield what lies in a learner's folder; the folder itself, if nothing does."""
    entries, shown_path = _entries(folder), "/".join(folders)
    if not entries:
        yield Found(f"{shown_path}/", ignored="an empty folder", folders=folders)
    for entry in entries:
        path, name = Path(entry.path), readable(entry.name)
        below = f"{shown_path}/{name}"
        size, when_s, is_link = _status(path)
        plain = Found(below, name=name, folders=folders, source=path, handed_in_s=when_s)
        if reason := _litter(name):
            yield replace(plain, ignored=reason)
        elif entry.is_dir(follow_symlinks=False):
            if len(folders) < _DEEPEST:
                yield from _below(path, (*folders, name))
            else:
                yield replace(plain, ignored="a folder too deep inside others")
        elif is_link and not _NOTEBOOK.search(name):
            yield replace(plain, ignored="a link; links are not followed")
        elif _ARCHIVE.search(name):
            yield from _archive(path, folders, below)
        elif _may_be(path, name, size, is_link):
            yield replace(plain, name=whose(name, is_folder=False)[2] or name)
        else:
            yield replace(plain, ignored=_other(name))


def _archive(path: Path, folders: tuple[str, ...], below: str) -> Iterator[Found]:
    """Yield the notebooks in a zip archive, which is read but not unpacked; other archives are refused by name."""
    name, (_, when_s, is_link) = readable(path.name), _status(path)
    shown_path = "/".join((*folders, name))
    plain = Found(shown_path, name=name, folders=folders or (readable(below),), source=path, handed_in_s=when_s)
    if is_link or path.suffix.lower() != ".zip":
        yield replace(plain, ignored="a link" if is_link else "an archive that is not read: unpack it")
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        yield replace(plain, ignored=f"an archive that can't be read: {str(error)[:80]}")
        return
    notebooks = [one for one in members if _NOTEBOOK.search(one.filename)][:_MOST_MEMBERS]
    if not notebooks:
        yield replace(plain, ignored="an archive without notebooks")
    for one in notebooks:
        inside = PurePosixPath(one.filename.replace("\\", "/"))
        parts = tuple(part for part in inside.parts if part not in ("/", "..", "."))
        litter = next((reason for part in parts if (reason := _litter(part))), "")
        yield replace(
            plain,
            path=f"{shown_path}/{'/'.join(parts)}",
            name=parts[-1],
            folders=(*plain.folders, *parts[:-1]),
            member=one.filename,
            ignored=litter,
        )


def _status(path: Path) -> tuple[int, float, bool]:
    """Return a file's size, when it was written, and whether it is a link."""
    with suppress(OSError):
        status = path.lstat()
        return status.st_size, status.st_mtime, stat.S_ISLNK(status.st_mode)
    return 0, 0.0, False


def _may_be(path: Path, name: str, size: int, is_link: bool) -> bool:
    """Return whether a file may be a notebook: by its name, or as text that a browser renamed."""
    if _NOTEBOOK.search(name):
        return True
    if is_link or not _TEXT.search(name) or not 0 < size <= FILE_LIMIT_BYTES:
        return False
    with suppress(OSError):
        raw = path.read_bytes()
        return b'"nbformat"' in raw and b'"cells"' in raw
    return False


def _other(name: str) -> str:
    ending = Path(name).suffix
    return f"not a notebook ({ending})" if ending else "not a notebook"


def _apart(found: list[Found]) -> list[Found]:
    """Return the files with namesakes told apart: two numbers of the platform, or two folders that look the same."""
    numbers: dict[str, set[str]] = {}
    tops: dict[str, set[str]] = {}
    for one in found:
        numbers.setdefault(one.learner, set()).add(one.number)
        if one.folders and not one.number:
            tops.setdefault(one.learner, set()).add(one.folders[0])
    apart = []
    for one in found:
        if one.learner and one.number and len(numbers[one.learner]) > 1:
            one = replace(one, learner=f"{one.learner} ({one.number})")
        elif one.learner and one.folders and len(tops.get(one.learner, ())) > 1:
            place = sorted(tops[one.learner]).index(one.folders[0]) + 1 if one.folders[0] in tops[one.learner] else 1
            one = replace(one, learner=one.learner if place == 1 else f"{one.learner} ({place})")
        apart.append(one)
    return apart
