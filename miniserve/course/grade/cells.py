"""Reads what a cell does without running it: which names it binds, changes and uses, and what looks odd in it.

A learner's cell may hold magics, or no Python at all. Then its names are unknown, and it is kept.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Names:
    """What one cell does with the notebook's names. `known` is false if its text doesn't parse."""

    binds: frozenset[str] = frozenset()
    changes: frozenset[str] = frozenset()  # in place, by a method, an item or an attribute
    loads: frozenset[str] = frozenset()
    imports: frozenset[str] = frozenset()
    known: bool = True


def python(text: str) -> str:
    """Return a cell's text as Python, with its magics as IPython translates them."""
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        return str(TransformerManager().transform_cell(text))  # type: ignore[no-untyped-call]
    except SyntaxError:
        return text


def parse_cell(text: str) -> ast.Module | None:
    """Return a cell's syntax tree; None if it isn't Python (or is nested too deep)."""
    try:
        return ast.parse(python(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


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


def same_code(one: str, other: str) -> bool:
    """Return whether two cells are the same except for spaces, comments and quotes."""
    left, right = parse_cell(one), parse_cell(other)
    if left is None or right is None:
        return one.strip() == other.strip()
    return ast.dump(left) == ast.dump(right)


def odd(text: str) -> list[str]:
    """Return sentences that tell an instructor what to look at."""
    return [f"{sign!r}: it {what}" for sign, what in _ODD if sign in text]
