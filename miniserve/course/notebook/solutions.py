"""Finds the solved answer of a question and its place, read from the source only when someone asks.

Knows `solutions/NN_slug.py` and the library that code answers come from. A copy of the package without a repository
around it has no solutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from miniserve.errors import SetupError

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Solution:
    """A solved answer: its text, the file and line of that text, and the solved notebook."""

    text: str
    place: str
    notebook: str


def solution_of(number: int, id_: str, root: Path = ROOT) -> Solution | None:
    """Return the solution of a question; None if this copy has no solutions, or the chapter no such answer."""
    from miniserve.course.notebook.source import read_source, solution_texts
    from miniserve.course.notebook.targets import take  # imported here: only this and the builder read notebooks

    for path in sorted((root / "solutions").glob(f"{number:02}_*.py")):
        try:
            source = read_source(path, shown=path.relative_to(root))
        except SetupError:
            return None  # someone is editing it; the builder says what is wrong with it
        for cell in source.cells:
            if cell.question == id_:
                text = take(cell.target, id_, root).solved if cell.target else "\n".join(solution_texts(cell))
                place = cell.target.partition("::")[0] if cell.target else source.at(cell)
                return Solution(text, place, f"solutions/{source.name}.ipynb")
    return None
