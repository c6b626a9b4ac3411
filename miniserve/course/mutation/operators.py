"""Makes small mistakes on purpose: every one that a single edit can make in the body of a function.

    for mutant in mutants(text, {"choose"}): mutant.text      the module with one mistake in it

They are mistakes that people make: off by one, < for <=, + for -, min for max, a forgotten statement, swapped
arguments, an inverted condition, an early return, a lock or an `await` left out. It leaves texts alone, because a
message or a key may well read differently. Knows Python's grammar; judges nothing.
"""

from __future__ import annotations

import ast
import copy
import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from miniserve.course.notebook.targets import Function

Edit = Callable[[ast.AST], None]  # changes a node in place

_SWAPS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "ceil": "floor", "floor": "ceil", "sorted": "list"}
_BODIES = ("body", "orelse", "finalbody")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module's text with one mistake; `was` and `now` are the lines that differ, as the parser writes them."""

    text: str
    was: str
    now: str


def mutants(text: str, functions: frozenset[str] | None = None) -> Iterator[Mutant]:
    """Yield each different text that one edit makes of `text`; with `functions`, only in their bodies."""
    tree = ast.parse(text)
    original = ast.unparse(tree)
    seen, inside = {original}, _inside(tree, functions)
    for place, node in enumerate(ast.walk(tree)):
        if node not in inside:
            continue
        for number, _ in enumerate(_edits(node)):
            changed = copy.deepcopy(tree)
            twin = _at(changed, place)
            list(_edits(twin))[number](twin)
            made = ast.unparse(ast.fix_missing_locations(changed))
            if made not in seen and _compiles(made):
                seen.add(made)
                yield Mutant(made, *_difference(original, made))


def _inside(tree: ast.Module, functions: frozenset[str] | None) -> set[ast.AST]:
    """Return the nodes that an edit may change: no docstrings, signatures or annotations."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, Function) and (functions is None or node.name in functions):
            found |= {node} | {inner for statement in _code(node) for inner in ast.walk(statement)}
    if functions is None:  # formulas: name = lambda ...
        found |= {inner for node in ast.walk(tree) if isinstance(node, ast.Lambda) for inner in ast.walk(node.body)}
    return found


def _code(function: Function) -> list[ast.stmt]:
    return function.body[ast.get_docstring(function) is not None :]


def _at(tree: ast.AST, place: int) -> ast.AST:
    return next(node for i, node in enumerate(ast.walk(tree)) if i == place)


def _compiles(text: str) -> bool:
    try:
        compile(text, "<mutant>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        return False
    return True


def _difference(before: str, after: str) -> tuple[str, str]:
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    was, now = ("; ".join(line[2:].strip() for line in lines if line.startswith(sign)) for sign in ("- ", "+ "))
    return was, now


# --- the edits -----------------------------------------------------------------------------------------------------


def _edits(node: ast.AST) -> Iterator[Edit]:
    """Yield the edits of `node`. Each works on any copy of it as well."""
    yield from _of_statements(node)
    yield from _of_operators(node)
    yield from _of_values(node)
    yield from _of_calls(node)
    yield from _of_conditions(node)
    yield from _unwrapped(node)


def _of_statements(node: ast.AST) -> Iterator[Edit]:
    for field in _BODIES:
        block = getattr(node, field, None)
        if not isinstance(block, list):
            continue
        for i, statement in enumerate(block):
            if isinstance(statement, ast.Return):
                if statement.value is not None and not _is_none(statement.value):
                    yield _put_into(field, i, ast.Return(ast.Constant(None)))
            elif not (_is_text(statement) or isinstance(statement, ast.Pass | ast.FunctionDef | ast.AsyncFunctionDef)):
                yield _put_into(field, i, ast.Pass())
            if isinstance(statement, ast.With | ast.AsyncWith):
                yield _put_into(field, i, *statement.body)
            if isinstance(statement, ast.Break):
                yield _put_into(field, i, ast.Continue())
            if isinstance(statement, ast.Continue):
                yield _put_into(field, i, ast.Break())
    if isinstance(node, ast.For | ast.While):  # the loop ends after its first turn
        yield lambda loop: loop.body.append(ast.Break())  # type: ignore[attr-defined]


def _put_into(field: str, i: int, *statements: ast.stmt) -> Edit:
    def edit(node: ast.AST) -> None:
        getattr(node, field)[i : i + 1] = copy.deepcopy(list(statements))

    return edit


def _of_operators(node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for other in _SWAPS[type(op)]:
                yield _set_op(i, other)
    elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        for other in _SWAPS.get(type(node.op), ()):
            yield _set("op", other())


def _set_op(i: int, other: type[ast.AST]) -> Edit:
    def edit(node: ast.AST) -> None:
        node.ops[i] = other()  # type: ignore[attr-defined]

    return edit


def _set(field: str, value: object) -> Edit:
    return lambda node: setattr(node, field, copy.deepcopy(value))


def _of_values(node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield _set("value", not node.value)
        elif isinstance(node.value, int | float):
            yield _set("value", node.value + 1)
            yield _set("value", node.value - 1)
    elif isinstance(node, ast.Slice):
        for field in ("lower", "upper"):
            if getattr(node, field) is not None:
                yield _set(field, None)


def _of_calls(node: ast.AST) -> Iterator[Edit]:
    if not isinstance(node, ast.Call):
        return
    for field in ("id", "attr"):
        if (name := getattr(node.func, field, None)) in _NAMES:
            yield lambda call, field=field, name=name: setattr(call.func, field, _NAMES[name])  # type: ignore[misc]
    if len(node.args) >= 2 and not any(_is_literal_text(argument) for argument in node.args[:2]):
        yield lambda call: call.args.__setitem__(slice(0, 2), call.args[1::-1])  # type: ignore[attr-defined]
    for i in range(len(node.keywords)):
        yield lambda call, i=i: call.keywords.pop(i)  # type: ignore[misc]


def _of_conditions(node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield lambda it: setattr(it, "test", ast.UnaryOp(ast.Not(), it.test))  # type: ignore[attr-defined]
    if isinstance(node, ast.comprehension):
        for i in range(len(node.ifs)):
            yield lambda it, i=i: it.ifs.pop(i)  # type: ignore[misc]
    if isinstance(node, ast.BoolOp):
        for i in range(len(node.values)):
            if len(node.values) > 1:
                yield lambda it, i=i: it.values.pop(i)  # type: ignore[misc]


def _unwrapped(node: ast.AST) -> Iterator[Edit]:
    """Leave out `not`, a minus, an `await`."""
    for field, value in ast.iter_fields(node):
        if isinstance(value, ast.UnaryOp):
            yield _set(field, value.operand)
        elif isinstance(value, ast.Await):
            yield _set(field, value.value)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_literal_text(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None
