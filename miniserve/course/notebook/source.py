"""Reads a chapter's source, `solutions/NN_slug.py` in jupytext's percent format, as cells with ids, tags and lines.

And makes what a learner gets in place of a solution:

    # SOLUTION                        limit_s = ...
    limit_s = 2 * mean_s        ──>
    # END SOLUTION

Knows only the form of a source: not the library (`targets.py`), nor the questions (`consistency.py`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext  # type: ignore[import-untyped]

from miniserve.errors import SetupError

_HEADER = re.compile(r"# %%(?!%)")
_OPEN, _CLOSE = "# SOLUTION", "# END SOLUTION"
_KEYS = {"id", "tags", "question", "target"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the source; `line` is its header's."""

    id: str  # as nbformat wants it: answer-6-1
    kind: str  # "code" or "markdown"
    text: str
    line: int
    tags: tuple[str, ...] = ()
    question: str = ""
    target: str = ""

    @property
    def is_code(self) -> bool:
        return self.kind == "code"


@dataclass(frozen=True, slots=True)
class Source:
    """A chapter: `name` is the file's without its extension; `number` is 0 for a notebook that isn't a chapter."""

    path: Path
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def number(self) -> int:
        return chapter_number(self.name)

    def at(self, cell: Cell, offset: int = 0) -> str:
        """Return `file:line` of a cell's header, or of a line in its text, counted from 1."""
        return f"{self.path}:{cell.line + offset}"


def chapter_number(name: str) -> int:
    """Return 6 for 06_percentiles, 0 for start_here."""
    found = re.match(r"(\d\d)_", name)
    return int(found[1]) if found else 0


def read_source(path: Path, shown: Path | None = None) -> Source:
    """Read a source; errors call it `shown`. Raises: SetupError naming file and line."""
    text = path.read_text(encoding="utf-8")
    path = shown or path
    headers = [number for number, line in enumerate(text.splitlines(), 1) if _HEADER.match(line)]
    try:
        parsed = jupytext.reads(text, fmt="py:percent").cells
    except (SyntaxError, ValueError) as error:
        raise SetupError(f"{path}: jupytext cannot read it: {' '.join(str(error).split())}") from None
    if len(parsed) != len(headers):
        raise SetupError(f'{path}:1: text before the first cell; begin with a header: # %% [markdown] id="intro"')
    source = Source(path, tuple(_cell(path, line, raw) for line, raw in zip(headers, parsed, strict=True)))
    _refuse_doubles(source)
    for cell in source.cells:
        _refuse_bad_markers(source, cell)
    return source


def _cell(path: Path, line: int, raw: dict[str, Any]) -> Cell:
    meta = {key: value for key, value in dict(raw["metadata"]).items() if not key.startswith("lines_to_")}  # jupytext's
    where = f"{path}:{line}"
    if unknown := sorted(set(meta) - _KEYS):
        raise SetupError(f"{where}: unknown key {unknown[0]!r} in the cell's header; there are {', '.join(_KEYS)}")
    id_ = str(meta.get("id", "")).replace(".", "-")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", id_):
        raise SetupError(
            f'{where}: the cell has no usable id ({id_!r}); write id="some-name", letters, digits, - and _'
        )
    kind, tags = str(raw["cell_type"]), tuple(meta.get("tags", ()))
    return Cell(id_, kind, str(raw["source"]), line, tags, str(meta.get("question", "")), str(meta.get("target", "")))


def _refuse_doubles(source: Source) -> None:
    seen: dict[str, Cell] = {}
    for cell in source.cells:
        if cell.id in seen:
            raise SetupError(f"{source.at(cell)}: the id {cell.id!r} is taken by the cell in line {seen[cell.id].line}")
        seen[cell.id] = cell


def _refuse_bad_markers(source: Source, cell: Cell) -> None:
    opened = 0
    for number, line in enumerate(cell.text.splitlines(), 1):
        mark = line.strip()
        if mark == _OPEN and opened:
            raise SetupError(f"{source.at(cell, number)}: {_OPEN} inside the one that line {cell.line + opened} opened")
        if mark == _CLOSE and not opened:
            raise SetupError(f"{source.at(cell, number)}: {_CLOSE} without {_OPEN}")
        opened = number if mark == _OPEN else 0 if mark == _CLOSE else opened
    if opened:
        raise SetupError(f"{source.at(cell, opened)}: {_OPEN} is not closed; {_CLOSE} is missing")


def solved_text(cell: Cell) -> str:
    """Return the cell with its solutions, without the markers."""
    return "\n".join(line for line in cell.text.splitlines() if line.strip() not in (_OPEN, _CLOSE))


def learner_text(source: Source, cell: Cell) -> str:
    """Return the cell with a placeholder for each solution. Raises: SetupError if a solution defines nothing."""
    lines: list[str] = []
    for part in _parts(cell.text):
        lines += [part] if isinstance(part, str) else _stub(source, cell, *part)
    return "\n".join(lines)


def solution_texts(cell: Cell) -> list[str]:
    """Return the marked solutions of a cell."""
    return ["\n".join(part[1]) for part in _parts(cell.text) if not isinstance(part, str)]


def _parts(text: str) -> Iterator[str | tuple[int, list[str]]]:
    """Yield the lines outside the markers, and each solution as (number of its first line, its lines)."""
    block: list[str] | None = None
    first = 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() == _OPEN:
            block, first = [], number + 1
        elif line.strip() == _CLOSE:
            assert block is not None, "markers were checked when the source was read"
            yield first, block
            block = None
        elif block is not None:
            block.append(line)
        else:
            yield line


def _stub(source: Source, cell: Cell, first: int, block: list[str]) -> list[str]:
    raises = f'raise NotImplementedError("Exercise {cell.question or cell.id}: write the body")'
    indent = len(block[0]) - len(block[0].lstrip()) if block else 0
    if indent:  # markers inside a function: the learner writes its body
        return [" " * indent + raises]
    try:
        tree = ast.parse("\n".join(block))
    except SyntaxError as error:
        raise SetupError(f"{source.at(cell, first - 1 + (error.lineno or 1))}: {error.msg}") from None
    lines = [line for node in tree.body for line in _placeholders(node, block, raises)]
    if not lines:
        raise SetupError(f"{source.at(cell, first - 1)}: the solution defines no name, so a learner would get nothing")
    return list(dict.fromkeys(lines)) if all(line.endswith(" = ...") for line in lines) else lines


def _placeholders(node: ast.stmt, lines: Sequence[str], raises: str) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [*function_head(node, lines), " " * (node.col_offset + 4) + raises, ""]
    if isinstance(node, ast.ClassDef):
        head = lines[_first_line(node) - 1 : node.body[0].lineno - 1]
        if (text := _docstring(node)) is not None:
            head = [*head, *lines[text.lineno - 1 : text.end_lineno], ""]
        methods = [line for item in node.body if _is_function(item) for line in _placeholders(item, lines, raises)]
        return [*head, *methods, *([] if methods else ["    " + raises]), ""]
    if isinstance(node, ast.Assign):
        names = [name for target in node.targets for name in _names(target)]
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
        names = _names(node.target)
    else:
        names = []
    return [f"{name} = ..." for name in names]


def _names(target: ast.expr) -> list[str]:
    if isinstance(target, ast.Tuple | ast.List):
        return [name for item in target.elts for name in _names(item)]
    return [target.id] if isinstance(target, ast.Name) else []


def _is_function(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _docstring(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> ast.Expr | None:
    first = node.body[0]
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str
    return first if is_text else None  # type: ignore[return-value]


def _first_line(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def function_head(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: Sequence[str]) -> list[str]:
    """Return decorators, signature and docstring of a function of `lines`, without its body."""
    text = _docstring(node)
    if text is not None:
        return list(lines[_first_line(node) - 1 : text.end_lineno])
    head = list(lines[_first_line(node) - 1 : node.body[0].lineno - 1])
    while head and (not head[-1].strip() or head[-1].lstrip().startswith("#")):
        head.pop()  # a comment above the first statement belongs to the body
    return head
