"""Tells what cells do, from their text: which names they bind, change and use, and whether two are the same.

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

from miniserve.course.grade import facts, launch, signs

NBVAL_COMMENT = re.compile(r"^[ \t]*#+[ \t]*(?:NBVAL_\w+|PYTEST_VALIDATE_\w+)[ \t]*$", re.MULTILINE)

CELLS, CHARACTERS = 2_000, 2_000_000  # of code, in one notebook; a chapter as given has some 60 cells and 30,000
CELL_LIMIT_CHARACTERS = 200_000
_CELL_MAGIC = re.compile(r"\A\s*(%%\w+)")
_READING_CPU_S, _READING_S, _READING_BYTES = 20, 120.0, 3 * 2**30  # for one notebook


@dataclass(frozen=True, slots=True)
class Handed:
    """One code or text cell of a submission."""

    id: str
    is_code: bool
    text: str


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


def keeps_no_names(text: str) -> str:
    """Return the cell magic whose code binds nothing in the notebook, such as %%timeit or %%bash; "" if none does."""
    found = _CELL_MAGIC.match(facts.without_timing(text))
    return found[1] if found and not re.search(r"^\s*global\s", text, re.MULTILINE) else ""


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


def code_of(text: str) -> str:
    """Return what two cells share that are the same except for spaces, comments and quotes."""
    return str(_facts(text).get("shape", "")) or text.strip()


def same_code(one: str, other: str) -> bool:
    """Return whether two cells are the same except for spaces, comments and quotes."""
    return one.strip() == other.strip() or code_of(one) == code_of(other)


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


def odd(text: str, imported: Collection[str] = ()) -> list[str]:
    """Return sentences that tell an instructor what to look at (signs.py). `imported` are names that cells import."""
    known = {*imported, *names(text).imports}
    found = [*signs.shell_signs(text), *_facts(text).get("signs", signs.signs_in_words(text))]
    return [
        f"{sign!r}: it {what}"
        for sign, what in dict.fromkeys((s, w) for root, s, w in found if not root or root in known)
    ]
