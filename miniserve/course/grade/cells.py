"""Reads what a cell does without running it: which names it binds, changes and uses.

A learner's cell may hold magics, or no Python at all. Then its names are unknown, and it is kept.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

NBVAL_COMMENT = re.compile(r"^[ \t]*#+[ \t]*(?:NBVAL_\w+|PYTEST_VALIDATE_\w+)[ \t]*$", re.MULTILINE)

# Magics that run the rest of the cell, or of the line, where the notebook's own names live
_RUNS_CELL = re.compile(r"\A\s*%%(?:time|capture|prun)\b[^\n]*\n")
_RUNS_LINE = re.compile(r"^([ \t]*)%time[ \t]+(?=\S)", re.MULTILINE)
_CELL_MAGIC = re.compile(r"\A\s*(%%\w+)")


CELL_LIMIT_CHARACTERS = 200_000


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


def python(text: str) -> str:
    """Return a cell's text as Python, with its magics as IPython translates them; code under %%time stays code."""
    from IPython.core.inputtransformer2 import TransformerManager

    while _RUNS_CELL.match(text):
        text = _RUNS_CELL.sub("", text)
    text = _RUNS_LINE.sub(r"\1", text)
    try:
        return str(TransformerManager().transform_cell(text))  # type: ignore[no-untyped-call]
    except SyntaxError:
        return text


def keeps_no_names(text: str) -> str:
    """Return the cell magic whose code binds nothing in the notebook, such as %%timeit or %%bash; "" if none does."""
    while _RUNS_CELL.match(text):
        text = _RUNS_CELL.sub("", text)
    found = _CELL_MAGIC.match(text)
    return found[1] if found and not re.search(r"^\s*global\s", text, re.MULTILINE) else ""


def parse_cell(text: str) -> ast.Module | None:
    """Return a cell's syntax tree; None if it isn't Python (or is nested too deep)."""
    try:
        return ast.parse(python(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@lru_cache(maxsize=4096)
def names(text: str) -> Names:
    """Return what a cell binds, changes and loads."""
    tree = parse_cell(text)
    if tree is None:
        return Names(known=False)
    nodes = list(ast.walk(tree))
    used = [node for node in nodes if isinstance(node, ast.Name)]
    binds = {node.id for node in used if isinstance(node.ctx, ast.Store)}
    binds |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    imports = {
        (alias.asname or alias.name).partition(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    loads = frozenset(node.id for node in used if isinstance(node.ctx, ast.Load))
    return Names(frozenset(binds | imports), frozenset(_changed(nodes)), loads, frozenset(imports))


def parameters(text: str) -> frozenset[str]:
    """Return the names of all parameters of functions in a cell."""
    tree = parse_cell(text)
    return frozenset(node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)) if tree else frozenset()


def _changed(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names whose objects a cell changes in place: `xs[0] = 1`, `x.a = 1`, `xs.append(1)` on its own."""
    changed = set()
    for node in nodes:
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            changed.add(_root(node))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            changed.add(_root(node.value.func))
    return changed - {""}


def _root(node: ast.expr) -> str:
    depth = 0
    while isinstance(node, ast.Attribute | ast.Subscript):
        node, depth = node.value, depth + 1
    return node.id if isinstance(node, ast.Name) and depth else ""


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


@lru_cache(maxsize=4096)
def code_of(text: str) -> str:
    """Return what two cells share that are the same except for spaces, comments and quotes."""
    tree = parse_cell(text)
    try:
        return text.strip() if tree is None else ast.dump(tree)
    except RecursionError:
        return text.strip()


def same_code(one: str, other: str) -> bool:
    """Return whether two cells are the same except for spaces, comments and quotes."""
    return one.strip() == other.strip() or code_of(one) == code_of(other)
