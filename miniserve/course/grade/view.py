"""What a learner's kernel sees of the file system when bwrap is used: Python, the system's libraries, its own folder.

Everything it can read is mounted read-only; what it can write to lies in memory, with a fixed size. Copies of this
package with its answers are covered, wherever they lie. Knows bwrap's options for mounts, and nothing else of bwrap.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import unquote, urlsplit

from miniserve.course.grade.stubs import PACKAGE

HOME_BYTES = 256 * 2**20
TEMPORARY_BYTES = 64 * 2**20  # for each of /tmp and /dev/shm
_ALIASES = ("/bin", "/sbin", "/lib", "/lib64")  # usually links into /usr
_PARTS = ("bin", "sbin", "lib", "lib32", "lib64", "libexec", "include", "share", "etc", "pyvenv.cfg")  # but not `src`
_FILES = ("/etc/ld.so.cache", "/etc/fonts", "/etc/localtime")
_BESIDE = ("solutions", ".git", "pyproject.toml")  # beside the package in a copy of the repository
_PACKAGES = ("site-packages", "dist-packages")
_DEPTH = 2  # how deep below a folder a copy is looked for, besides where Python's packages are
Mount = tuple[str, ...]


def shown_folders() -> list[str]:
    """Return what a kernel can read: the system's programs and libraries, this environment, and its Python."""
    bases = {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1]), "/usr", "/usr/local"}
    return [folder for folder in _ALIASES if Path(folder).exists()] + _parts(bases - {"/"})


def _parts(bases: Iterable[str]) -> list[str]:
    return [str(path) for base in sorted(bases) for name in _PARTS if (path := Path(base) / name).exists()]


@cache
def copies(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Return folders below `folders` that hold this package with its answers: a whole repository, or the package."""
    found: set[str] = set()
    for folder in folders:
        _find(Path(folder), _DEPTH, found)
        for place in _places():  # known ones may lie deeper
            if place.is_relative_to(whole := Path(folder).resolve()):
                _note(Path(folder) / place.relative_to(whole), found)
    return tuple(sorted(found))


def _places() -> list[Path]:
    """Return where this package is, and where it was installed from if that is still used."""
    told = [one.read_text("direct_url.json") for one in distributions(name=PACKAGE.name)]
    urls = [json.loads(text).get("url", "") for text in told if text]
    return [PACKAGE.parent, *(Path(unquote(urlsplit(url).path)).resolve() for url in urls if url.startswith("file:"))]


def _note(folder: Path, found: set[str]) -> None:
    if (folder / PACKAGE.name / "course" / "chapters").is_dir():
        whole = folder.name not in _PACKAGES and any((folder / name).exists() for name in _BESIDE)
        found.add(str(folder if whole else folder / PACKAGE.name))


def _find(folder: Path, depth: int, found: set[str]) -> None:
    """Look for copies in a folder, as it will be reached in the sandbox: symlinks inside it are not followed."""
    inner: list[os.DirEntry[str]] = []
    with suppress(OSError), os.scandir(folder) as entries:
        inner = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    if any(entry.name == PACKAGE.name for entry in inner):
        _note(folder, found)
    for entry in inner:
        if entry.name in _PACKAGES:
            _find(Path(entry.path), max(depth - 1, 1), found)
        elif depth:
            _find(Path(entry.path), depth - 1, found)


def mounts(home: Path, given: Path, package: Path, others: Mapping[str, Path]) -> list[str]:
    """Return bwrap's options. `given`'s files lie in `home` and can't be changed there; `others` are paths inside."""
    shown = shown_folders()
    hidden = [folder for folder in copies(tuple(shown)) if not Path(folder).is_relative_to(package)]
    inside = {str(home / file.relative_to(given)): file for file in given.rglob("*") if file.is_file()}
    single = {**inside, str(package): package, **others}
    made = {str(folder) for path in single for folder in Path(path).parents if not folder.is_relative_to(home)}
    wanted: list[Mount] = [
        *((*_memory(size, "1777"), path) for path, size in _writable(home).items()),
        *(("--perms", "0755", "--dir", folder) for folder in (made | _parents(shown)) - {"/"}),
        *(("--perms", "0777", "--dir", str(home / folder.relative_to(given))) for folder in _folders(given)),
        *(("--ro-bind", folder, folder) for folder in shown),
        *((*_memory(4096, "0755"), folder) for folder in hidden),
        *(("--ro-bind", str(source), target) for target, source in single.items()),
        *(("--ro-bind-try", file, file) for file in _FILES),
    ]
    # Outer folders first, and what covers a folder before what lies below it and is to be seen again.
    ordered = sorted(wanted, key=lambda mount: (len(Path(mount[-1]).parts), mount[0] != "--ro-bind"))
    unwritable = [*hidden, "/dev", "/"]
    base = ["--proc", "/proc", "--dev", "/dev", *(["--ro-bind", "/dev/null", "/proc/keys"] if _lists_keys() else [])]
    return [*base, *(word for mount in ordered for word in mount), *_each("--remount-ro", unwritable)]


def _writable(home: Path) -> dict[str, int]:
    return {"/tmp": TEMPORARY_BYTES, "/dev/shm": TEMPORARY_BYTES, str(home): HOME_BYTES}


def _memory(size: int, permissions: str) -> Mount:
    return "--perms", permissions, "--size", str(size), "--tmpfs"


def _parents(paths: Iterable[str]) -> set[str]:
    """Return the folders above some paths, which bwrap itself would make for root only."""
    return {str(parent) for path in paths for parent in Path(path).parents}


def _folders(given: Path) -> list[Path]:
    return [path for path in given.rglob("*") if path.is_dir()]


def _lists_keys() -> bool:
    return Path("/proc/keys").exists()


def _each(option: str, values: Iterable[str]) -> list[str]:
    return [word for value in values for word in (option, value)]
