"""Runs as a script: reads what cells do from their text, without running them.

    python -P facts.py  <a JSON list of texts  >a line of JSON for each text, as soon as it is known

A text of a few thousand characters can take Python's parser to its limits of depth, memory or time. So this runs in a
process of its own, which may fail: what it says nothing about is unknown. It imports nothing from the package, since
that takes seconds; it runs `signs.py`, which lies beside it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import runpy
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_TRANSFORMED_CHARACTERS = 100_000  # read in all: IPython reads a cell again for each of its magics
# Magics that run the rest of the cell, or of the line, where the notebook's own names live
_RUNS_CELL = re.compile(r"\A\s*%%(?:time|capture|prun)\b[^\n]*\n")
_RUNS_LINE = re.compile(r"^([ \t]*)%time[ \t]+(?=\S)", re.MULTILINE)
_SIGNS = runpy.run_path(str(Path(__file__).with_name("signs.py")))
_READS_SOURCE = ("getsource", "import_module", "__import__")


def cell_facts(text: str) -> dict[str, Any] | None:
    """Return what one cell does, as JSON; None if it is no Python, even with its magics translated."""
    tree = _parsed(text)
    if tree is None:
        return None
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
    return {
        "binds": sorted(binds | imports),
        "changes": sorted(_changed(nodes)),
        "loads": sorted({node.id for node in used if isinstance(node.ctx, ast.Load)}),
        "imports": sorted(imports),
        "parameters": sorted({node.arg for node in nodes if isinstance(node, ast.arg)}),
        "shape": _shape(tree),
        "reaches": _firsts(_reaches(nodes)),
        "signs": _SIGNS["signs_in"](nodes),
    }


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    magics = sum(line.lstrip()[:1] in tuple("%!?,;/") or "?" in line or "!" in line for line in text.splitlines())
    try:
        return ast.parse(python(text)) if len(text) * (1 + magics) <= _TRANSFORMED_CHARACTERS else None
    except Exception:  # whatever IPython raises at what is neither Python nor a magic
        return None


def python(text: str) -> str:
    """Return a cell's text as Python, with its magics as IPython translates them; code under %%time stays code.

    Raises: whatever IPython raises.
    """
    from IPython.core.inputtransformer2 import TransformerManager

    plain = _RUNS_LINE.sub(r"\1", without_timing(text))
    return str(TransformerManager().transform_cell(plain))  # type: ignore[no-untyped-call]


def without_timing(text: str) -> str:
    """Return a cell's text without the magics at its beginning that only measure or catch what the rest does."""
    while _RUNS_CELL.match(text):
        text = _RUNS_CELL.sub("", text)
    return text


def _shape(tree: ast.Module) -> str:
    """Return what stays the same when only spaces, comments and quotes change; empty if it is nested too deep."""
    try:
        return hashlib.sha256(ast.dump(tree).encode("utf-8", "surrogatepass")).hexdigest()
    except (RecursionError, MemoryError):
        return ""


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


def _firsts(reaches: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Return the first of each kind and name, in order."""
    first: dict[tuple[str, str], str] = {}
    for kind, name, shown in reaches:
        first.setdefault((kind, name), shown)
    return [(kind, name, shown) for (kind, name), shown in first.items()]


def _reaches(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str, str]]:
    """Yield how a cell reaches for the library, as kind, name and text: by the rules of `check.code.forbidden_use`."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "miniserve":
            for alias in node.names:
                yield "import", alias.name, f"from {node.module} import {alias.name}"[:100]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            yield "attribute", node.attr, _SIGNS["attribute_path"](node)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in _READS_SOURCE:
            yield "call", "", _unparsed(node)


def _unparsed(node: ast.Call) -> str:
    try:
        return ast.unparse(node)[:60]
    except (RecursionError, MemoryError):
        return str(_SIGNS["attribute_path"](node.func))


if __name__ == "__main__":
    for found in map(cell_facts, json.load(sys.stdin)):
        print(json.dumps(found), flush=True)
