"""Makes a source's two notebooks, the learner's and the solved one, and reads notebooks back.

The source decides everything but the outputs, to the byte. A hash beside each stored output (`made_from`) records the
code that it came from, so that a stale one shows without running anything. Executes nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniserve.course.notebook.source import Cell, Source, learner_text, solution_texts, solved_text
from miniserve.course.notebook.targets import take
from miniserve.errors import SetupError

Notebook = dict[str, Any]
RUN_TIME = "{{run_time}}"
_STATE = re.compile(r"^(\d+\.\d+\w*)  (CORRECT|PARTIAL|WRONG|NOT TRIED|NOTED)\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Texts:
    """One cell's text in both notebooks, and the solutions that the learner must not find."""

    cell: Cell
    solved: str
    learner: str
    solutions: tuple[str, ...]


def texts(source: Source, root: Path, run_time: str = "") -> list[Texts]:
    """Return every cell's two texts. Raises: SetupError naming file and line."""
    return [_texts(source, cell, root, run_time) for cell in source.cells]


def _texts(source: Source, cell: Cell, root: Path, run_time: str) -> Texts:
    if not cell.is_code:
        text = cell.text.replace(RUN_TIME, run_time)
        return Texts(cell, text, text, ())
    solved, learner, solutions = solved_text(cell), learner_text(source, cell), solution_texts(cell)
    if cell.target:
        try:
            taken = take(cell.target, cell.question, root)
        except SetupError as error:
            raise SetupError(f"{source.at(cell)}: {error}") from None
        solved, learner = (
            f"{text}\n\n\n{more}".lstrip() for text, more in ((solved, taken.solved), (learner, taken.stub))
        )
        solutions += taken.bodies
    return Texts(cell, solved.strip("\n"), learner.strip("\n"), tuple(solutions))


def learner_notebook(source: Source, cells: Iterable[Texts]) -> Notebook:
    """Return the notebook that a learner opens: stubs, no outputs, and a hash of each cell as given."""
    cells = list(cells)
    made = [_notebook_cell(text.cell, text.learner) for text in cells]
    return _notebook(source, made, {"given": {text.cell.id: digest(text.learner) for text in cells}})


def solved_notebook(source: Source, cells: Iterable[Texts], stored: Mapping[str, Notebook], lab: str = "") -> Notebook:
    """Return the solved notebook, with the outputs of `stored`: cells by id from an earlier run."""
    cells = list(cells)
    made = [_notebook_cell(text.cell, text.solved) for text in cells]
    for cell in made:
        if cell["cell_type"] == "code" and (old := stored.get(cell["id"])) is not None:
            cell["outputs"], cell["execution_count"] = old["outputs"], old["execution_count"]
    return _notebook(source, made, {"made_from": made_from(cells, lab)})


def made_from(cells: Iterable[Texts], lab: str = "") -> dict[str, str]:
    """Return for each code cell a hash of all that its output depends on: the chapter's lab, and the code so far."""
    so_far, found = digest(lab), {}
    for text in cells:
        if text.cell.is_code:
            so_far = digest(so_far + text.solved)
            found[text.cell.id] = so_far
    return found


def _notebook_cell(cell: Cell, text: str) -> Notebook:
    meta: Notebook = {"tags": list(cell.tags)} if cell.tags else {}
    if cell.question:
        meta["question"] = cell.question
    made: Notebook = {"cell_type": cell.kind, "id": cell.id, "metadata": meta, "source": text}
    return {**made, "execution_count": None, "outputs": []} if cell.is_code else made


def _notebook(source: Source, cells: list[Notebook], about: Notebook) -> Notebook:
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    meta = {"kernelspec": kernel, "language_info": {"name": "python"}, "miniserve": {"source": source.name, **about}}
    return {"cells": cells, "metadata": meta, "nbformat": 4, "nbformat_minor": 5}


def digest(text: str) -> str:
    """Return a short hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def dumps(notebook: Notebook) -> str:
    """Return a notebook's bytes: sorted keys, texts as lists of lines, one newline at the end."""
    import nbformat

    node = nbformat.from_dict(notebook)  # type: ignore[no-untyped-call]
    nbformat.validate(node)
    return json.dumps(json.loads(nbformat.writes(node)), indent=1, sort_keys=True, ensure_ascii=False) + "\n"  # type: ignore[no-untyped-call]


def loads(path: Path) -> Notebook:
    """Read a notebook, of any version 4, with its texts joined. Raises: SetupError."""
    import nbformat

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SetupError(f"{path} does not exist") from None
    try:
        return dict(json.loads(json.dumps(nbformat.reads(text, as_version=4))))  # type: ignore[no-untyped-call]
    except Exception as error:  # nbformat raises whatever the damage causes
        raise SetupError(f"{path} cannot be read as a notebook: {' '.join(str(error).split())[:200]}") from None


def by_id(notebook: Notebook) -> dict[str, Notebook]:
    """Return a notebook's cells by their ids."""
    return {cell["id"]: cell for cell in notebook["cells"] if "id" in cell}


def without_outputs(notebook: Notebook) -> Notebook:
    """Return a notebook as it was before it ran."""
    cells = [
        {**cell, "outputs": [], "execution_count": None} if cell["cell_type"] == "code" else cell
        for cell in notebook["cells"]
    ]
    return {**notebook, "cells": cells}


def untouched(notebook: Notebook) -> bool:
    """Return whether a learner's notebook is still as given."""
    given = notebook["metadata"].get("miniserve", {}).get("given", {})
    return bool(given) and {cell.get("id"): digest(cell["source"]) for cell in notebook["cells"]} == given


def states(notebook: Notebook) -> dict[str, str]:
    """Return the last verdicts of a notebook's check cells: question to CORRECT, PARTIAL, WRONG, NOT TRIED or NOTED."""
    return {
        id_: state
        for cell in notebook["cells"]
        if "check" in cell["metadata"].get("tags", ()) and cell["cell_type"] == "code"
        for output in cell["outputs"]
        for id_, state in states_in(output)
    }


def states_in(output: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the verdicts in one output of a check cell, as (question, state)."""
    text = output.get("text") or output.get("evalue") or ""
    return _STATE.findall(text if isinstance(text, str) else "".join(text))
