"""Tells what cells do, from their text: which names they bind, change and use, and what looks odd in them.

A learner's cell may hold magics, or no Python at all. Then its names are unknown, and it is kept. `facts.py` reads the
texts, in a process of its own with limits: no text can hold up or end the grading itself.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from miniserve.course.grade import facts, launch

NBVAL_COMMENT = re.compile(r"^[ \t]*#+[ \t]*(?:NBVAL_\w+|PYTEST_VALIDATE_\w+)[ \t]*$", re.MULTILINE)

# Signs for a person to look at. They cost no marks: each may be innocent.
_ODD = (
    ("getppid", "asks who its parent process is"),
    ("sys.modules", "changes or reads the table of loaded modules"),
    ("sys._getframe", "reads the frames of its callers"),
    ("__subclasses__", "searches all classes of the process"),
    ("showtraceback", "changes how errors are shown"),
    ("set_custom_exc", "changes how errors are shown"),
    ("input_transformers", "changes how cells are read"),
    ("solutions/", "names the folder of solutions"),
    ("fork(", "starts processes"),
    ("subprocess", "starts processes"),
    ("socket", "opens a socket"),
)

CELLS, CHARACTERS = 2_000, 2_000_000  # of code, in one notebook; a chapter as given has some 60 cells and 30,000
_READING_CPU_S, _READING_S, _READING_BYTES = 20, 120.0, 3 * 2**30  # for one notebook


@dataclass(frozen=True, slots=True)
class Names:
    """What one cell does with the notebook's names. `known` is false if its text doesn't parse."""

    binds: frozenset[str] = frozenset()
    changes: frozenset[str] = frozenset()  # in place, by a method, an item or an attribute
    loads: frozenset[str] = frozenset()
    imports: frozenset[str] = frozenset()
    known: bool = True


_ours = threading.local()  # each thread reads one notebook at a time


def learn(texts: Iterable[str]) -> None:
    """Read many cells at once, and forget those of the notebook before."""
    _ours.facts = {}
    _ours.facts = _read(texts)


def _read(texts: Iterable[str]) -> dict[str, Mapping[str, Any] | None]:
    """Return the facts of each text; None if nothing is known. The shortest come first, in case time runs out."""
    ordered = sorted({text for text in texts if text.strip()}, key=lambda text: (len(text), text))
    if not ordered:
        return {}
    limits = [f"CPU={_READING_CPU_S}", f"AS={_READING_BYTES}", "CORE=0"]
    script = [sys.executable, "-P", facts.__file__]
    reader = subprocess.Popen(
        [sys.executable, "-P", launch.__file__, *limits, "--", *script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        told = reader.communicate(json.dumps(ordered).encode(), timeout=_READING_S)[0]
    except subprocess.TimeoutExpired:
        reader.kill()
        told = reader.communicate()[0]
    lines = told.split(b"\n")[:-1]  # the last may have been cut off
    return dict.fromkeys(ordered) | {text: json.loads(line) for text, line in zip(ordered, lines, strict=False)}


def _facts(text: str) -> Mapping[str, Any]:
    known: dict[str, Mapping[str, Any] | None] = _ours.__dict__.setdefault("facts", {})
    if text.strip() and text not in known:
        known |= _read([text])
    return known.get(text) or ({} if text.strip() else facts.cell_facts("") or {})


def names(text: str) -> Names:
    """Return what a cell binds, changes and loads."""
    if not (found := _facts(text)):
        return Names(known=False)
    binds, changes, loads, imports = (frozenset(found[name]) for name in ("binds", "changes", "loads", "imports"))
    return Names(binds, changes, loads, imports)


def parameters(text: str) -> frozenset[str]:
    """Return the names of all parameters of functions in a cell."""
    return frozenset(_facts(text).get("parameters", ()))


def needed(texts: list[str], always: Collection[int]) -> set[int]:
    """Return the places of the cells in `always` and of all cells that they need, directly or not.

    The others are experiments and figures: they show something, but no answer depends on them.
    """
    read = [names(text) for text in texts]
    imports = frozenset[str]().union(*(one.imports for one in read))  # `plt.show()` changes nothing that others need
    gives = [one.binds | (one.changes - imports) for one in read]
    keep = {place for place, one in enumerate(read) if place in always or not one.known}
    while True:
        wanted = {name for place in keep for name in read[place].loads}
        more = {place for place, given in enumerate(gives) if place not in keep and given & wanted}
        if not more:
            return keep
        keep |= more


def same_code(one: str, other: str) -> bool:
    """Return whether two cells are the same except for spaces, comments and quotes."""
    left, right = (_facts(text).get("shape", "") for text in (one, other))
    return left == right if left and right else one.strip() == other.strip()


def forbidden(text: str, denied: frozenset[str]) -> str | None:
    """Return how a cell reaches for a denied name of the library, as text; None if it doesn't, or can't be read."""
    for kind, name, shown in _facts(text).get("reaches", ()):
        if kind == "call" or name in denied or (kind == "import" and name == "*"):
            return str(shown)
    return None


def too_much(texts: Collection[str]) -> str:
    """Return why a notebook has more code than is read, as a sentence; empty if it doesn't."""
    if len(texts) > CELLS:
        return f"It has {len(texts):,} code cells; the limit is {CELLS:,}."
    if (size := sum(map(len, texts))) > CHARACTERS:
        return f"Its code has {size:,} characters; the limit is {CHARACTERS:,}."
    return ""


def odd(text: str) -> list[str]:
    """Return sentences that tell an instructor what to look at."""
    return [f"{sign!r}: it {what}" for sign, what in _ODD if sign in text]
