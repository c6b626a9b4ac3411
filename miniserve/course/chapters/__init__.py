"""One folder per chapter: `questions` (what is asked, and how truth is computed) and `lab` (what its cells call).

A lab holds no answers. Everything else in a chapter's folder knows them, and never enters a learner's kernel
(`course/grade/stubs.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path


def folder(number: int, package: str = __name__) -> str:
    """Return the dotted name of a chapter's folder. Raises: LookupError if `package` has no such chapter."""
    found = sorted(name for root in _roots(package) for name in _names(root, number))
    if not found:
        raise LookupError(f"there is no chapter {number} in {package}")
    return f"{package}.{found[0]}"


def _roots(package: str) -> Iterable[str]:
    return import_module(package).__path__


def _names(root: str, number: int) -> list[str]:
    return [path.name for path in Path(root).glob(f"ch{number:02}_*") if (path / "questions.py").is_file()]
