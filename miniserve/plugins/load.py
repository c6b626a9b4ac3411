"""A user's own policy: `my_file.py:Mine` becomes a class that can replace a built-in one.

`my_notebook.ipynb:Mine` works as well: the class is taken from the answer cell that defines it (`notebook_cell.py`).
Anything wrong with the file gives a one-line error that names file and line: the file is missing or does not import, it
has no such class, the class lacks a method of its role or takes other arguments, or its constructor fails. Mistakes
*during* a run are handled by `policies.guard`.

The file's code is executed, with all the rights of its user.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from miniserve.errors import SetupError
from miniserve.plugins.notebook_cell import import_cell


def is_plugin(name: str) -> bool:
    """Return whether `name` means a class in a file rather than something built in."""
    return ":" in name


def load_class(spec: str, role: type, folder: Path | None = None) -> Callable[..., Any]:
    """Return the class that `FILE:CLASS` names (FILE is a .py or .ipynb), checked against the Protocol `role`.

    A relative FILE is looked for in `folder`, then in the current folder. Calling the result makes an object; if the
    user's constructor raises, that also becomes a SetupError with its line.
    Raises: SetupError.
    """
    file, _, name = spec.rpartition(":")
    if not file or not name.isidentifier():
        raise SetupError(f"{spec!r} is not of the form my_file.py:MyClass or my_notebook.ipynb:MyClass")
    path = _find(file, folder)
    module = import_cell(path, name) if path.suffix == ".ipynb" else _import(path)
    path = Path(str(module.__file__))  # for a notebook it names the cell
    made = _class(module, name, path)
    for method, protocol in _methods(role).items():
        _check_method(made, method, protocol, path)
    return _with_line_in_errors(made, path)


def load_object(spec: str, role: type, folder: Path | None = None) -> Any:
    """Return an object of the class that `FILE:CLASS` names, made without arguments. Raises: SetupError."""
    make = load_class(spec, role, folder)
    needed = [
        parameter.name
        for parameter in inspect.signature(make).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise SetupError(f"{spec}: the constructor needs {', '.join(needed)}: give every argument a default")
    return make()


def _find(file: str, folder: Path | None) -> Path:
    candidates = [Path(file)] if folder is None else [folder / file, Path(file)]
    for path in candidates:
        if path.is_file():
            return path.resolve()
    looked = ", ".join(dict.fromkeys(str(path.absolute()) for path in candidates))
    raise SetupError(f"{file} does not exist (looked for {looked})")


def _import(path: Path) -> ModuleType:
    name = f"miniserve_user_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise SetupError(f"{path} is not a Python file: its name must end in .py or .ipynb")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses look up their module while they are made
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise SetupError(f"{where(error, path)}: the file does not import: {said(error)}") from None
    return module


def _class(module: ModuleType, name: str, path: Path) -> type:
    made = getattr(module, name, None)
    if inspect.isclass(made):
        return made
    own = [key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__]
    there = f"its classes are {', '.join(own)}" if own else "it has no classes"
    what = "has no class" if made is None else "has something that is not a class called"
    raise SetupError(f"{path} {what} {name}; {there}")


def _methods(role: type) -> dict[str, Callable[..., Any]]:
    """Return what a role requires: the public methods of its Protocol."""
    return {name: item for name, item in vars(role).items() if inspect.isfunction(item) and not name.startswith("_")}


def _check_method(made: type, name: str, protocol: Callable[..., Any], path: Path) -> None:
    method = getattr(made, name, None)
    expected = [parameter for parameter in inspect.signature(protocol).parameters.values() if parameter.name != "self"]
    call = f"{name}({', '.join(parameter.name for parameter in expected)})"
    if not callable(method):
        raise SetupError(f"{path}:{_line_of(made)}: {made.__name__} lacks the method {call}")
    own = inspect.signature(method)
    takes_self = not isinstance(inspect.getattr_static(made, name), staticmethod | classmethod)
    try:
        own.bind(*([None] * (len(expected) + takes_self)))
    except TypeError as error:
        line = _line_of(method)
        raise SetupError(f"{path}:{line}: {made.__name__}.{name}{own} cannot be called as {call}: {error}") from None


def _line_of(thing: Any) -> int:
    try:
        return inspect.getsourcelines(thing)[1]
    except (OSError, TypeError):
        return 1


def _with_line_in_errors(made: type, path: Path) -> Callable[..., Any]:
    """Return the constructor, wrapped so that its failures name file and line."""

    @functools.wraps(made, updated=())
    def make(**arguments: Any) -> Any:
        try:
            return made(**arguments)
        except Exception as error:
            raise SetupError(f"{where(error, path)}: {made.__name__}() failed: {said(error)}") from None

    return make


def where(error: BaseException, path: Path) -> str:
    """Return `file:line` of the last place in `path` that an exception passed through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def said(error: BaseException) -> str:
    """Return an exception's type and message as one line."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())}" if text else type(error).__name__
