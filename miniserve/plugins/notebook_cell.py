"""A class taken from a notebook: the answer cell that defines it, without the rest of the notebook.

Only the cell's imports, definitions and assignments are executed; prints, plots and checks are left out. Jupyter is not
needed: a notebook is a JSON file.
"""

from __future__ import annotations

import ast
import json
import linecache
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType

from miniserve.errors import SetupError

_KEPT = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Assign, ast.AnnAssign)


def import_cell(path: Path, name: str) -> ModuleType:
    """Return a module made from the answer cell that defines class `name` in a notebook.

    Its `__file__` is `notebook[cell]`. Raises: SetupError, in one line, if `path` is not a notebook or has no such
    cell, or if the cell is unfinished or does not run.
    """
    cells = _answer_cells(path)
    for cell, text in cells.items():
        if re.search(rf"^class {name}\b", text, re.MULTILINE):
            return _executed(_finished(text, name, cell), text, cell, f"miniserve_user_{path.stem}")
    there = re.findall(r"^class (\w+)", "\n".join(cells.values()), re.MULTILINE)
    known = f"its answer cells define {', '.join(there)}" if there else "they define no class"
    raise SetupError(f"{path}: no answer cell defines the class {name}; {known}")


def _answer_cells(path: Path) -> dict[str, str]:
    """Return the texts of a notebook's answer cells by `notebook[cell]`, the name used in errors."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        answers = [cell for cell in cells if "answer" in cell["metadata"].get("tags", ())]
        return {f"{path}[{cell.get('id', i)}]": "".join(cell["source"]) for i, cell in enumerate(answers)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SetupError(f"{path} cannot be read as a notebook: {type(error).__name__}: {error}") from None


def _finished(text: str, name: str, cell: str) -> ast.Module:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise SetupError(f"{cell}:{error.lineno or 1}: the cell does not run: SyntaxError: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # nested too deeply for the parser
        raise SetupError(f"{cell}:1: the cell does not run: {type(error).__name__}: {error}") from None
    made = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    for node in ast.walk(made):
        if isinstance(node, ast.Raise) and node.exc is not None and "NotImplementedError" in ast.unparse(node.exc):
            raise SetupError(f"{cell}:{node.lineno}: {name} is not written yet: {ast.unparse(node)[:80]}")
    return tree


def _executed(tree: ast.Module, text: str, cell: str, module_name: str) -> ModuleType:
    tree.body = [node for node in tree.body if isinstance(node, _KEPT)]
    linecache.cache[cell] = (len(text), None, text.splitlines(keepends=True), cell)  # for tracebacks and inspect
    module = ModuleType(module_name)
    module.__file__ = cell
    sys.modules[module_name] = module  # dataclasses look up their module while they are made
    try:
        exec(compile(tree, cell, "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == cell]
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise SetupError(f"{cell}:{lines[-1] if lines else 1}: the cell does not run: {said}") from None
    return module
