"""Finds code in a learner's cell that an instructor should see: it reaches for more than an answer needs.

A sign costs no marks; each may be innocent. It must be a real reach, though: a name that is used, a module that is
imported, a text that is written, never a word inside another. What a right answer does is no sign. `facts.py` runs this
file beside itself, so it imports nothing from the package; `cells.odd` puts the sentences together.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

_MODULES = {
    "ctypes": "calls functions of the operating system",
    "cffi": "calls functions of the operating system",
    "gc": "searches all objects of the process",
    "multiprocessing": "starts processes",
    "pty": "starts processes",
    "socket": "opens a socket",
    "subprocess": "starts processes",
}
_NAMES = {
    "__subclasses__": "searches all classes of the process",
    "_getframe": "reads the frames of its callers",
    "_exit": "ends the kernel",
    "execv": "replaces the kernel with another program",
    "execve": "replaces the kernel with another program",
    "fork": "starts processes",
    "getppid": "asks who its parent process is",
    "input_transformers_cleanup": "changes how cells are read",
    "input_transformers_post": "changes how cells are read",
    "kill": "sends signals to processes",
    "killpg": "sends signals to processes",
    "popen": "starts processes",
    "posix_spawn": "starts processes",
    "set_custom_exc": "changes how errors are shown",
    "showtraceback": "changes how errors are shown",
    "user_expressions": "changes how the kernel answers",
}
_SHADOWED = {"__import__", "compile", "eval", "exec", "getattr", "globals", "locals", "vars"}
_TEXTS = {
    "/proc": "reads about other processes",
    "add_key": "uses the system's key rings",
    "keyctl": "uses the system's key rings",
    "solutions/": "names the folder of solutions",
}
_OTHER_PROGRAMS = {"%bash", "%sh", "%script", "%python", "%python3", "%system", "%sx", "%perl", "%ruby", "system", "sx"}
_COMMAND = re.compile(r"\s*(?:[A-Za-z_][\w, ]*=\s*)?!+(.*)")  # also `files = !ls`
_MAGIC = re.compile(r"\s*(?:[A-Za-z_][\w, ]*=\s*)?%(%?\w+)")
_HARMLESS = re.compile(r"(?:python3? --version|pip|ls|pwd|date|free|df|nproc|lscpu|nvidia-smi|echo)\b[^|;&>`$]*")


Sign = tuple[str, str, str]  # a name that must be imported, or ""; what was found; what it does


def signs_in(nodes: Iterable[ast.AST]) -> list[Sign]:
    """Return the signs in a cell's syntax tree."""
    return list(dict.fromkeys(sign for node in nodes for sign in _of(node)))


def signs_in_words(text: str) -> list[Sign]:
    """Return the signs in a text that can't be read as Python."""
    words = set(re.findall(r"[A-Za-z_]\w*", text))
    return [("", word, what) for word, what in {**_MODULES, **_NAMES}.items() if word in words]


def shell_signs(text: str) -> Iterator[Sign]:
    """Yield the commands of a cell that run outside Python: `!rm x`, `files = !ls`, `%%bash`."""
    for line in text.splitlines():
        command = _COMMAND.match(line)
        if command and not _HARMLESS.fullmatch(command[1].strip()):
            yield "", f"!{command[1].strip()}"[:60], "runs a shell command"
        if (magic := _MAGIC.match(line)) and magic[1] in _OTHER_PROGRAMS:
            yield "", f"%{magic[1]}", "starts processes"


def _of(node: ast.AST) -> Iterator[Sign]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        roots = [module.partition(".")[0] for module in modules]
        yield from (("", root, _MODULES[root]) for root in roots if root in _MODULES)
        yield from (("", a.asname, "hides a built-in function") for a in node.names if a.asname in _SHADOWED)
    if isinstance(node, ast.ImportFrom):
        yield from (("", alias.name, _NAMES[alias.name]) for alias in node.names if alias.name in _NAMES)
    if isinstance(node, ast.Attribute):
        yield from _attribute(node)
    if isinstance(node, ast.Name) and node.id in _NAMES and isinstance(node.ctx, ast.Load):
        yield node.id, node.id, _NAMES[node.id]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in _SHADOWED:
        yield "", node.id, "hides a built-in function"
    if isinstance(node, ast.FunctionDef) and node.name in _SHADOWED:
        yield "", node.name, "hides a built-in function"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from (("", word, what) for word, what in _TEXTS.items() if word in node.value)
    if isinstance(node, ast.Call) and attribute_path(node.func) == "setattr" and node.args:
        changed = attribute_path(node.args[0])
        yield changed, f"setattr({changed}, ...)", "changes something that it imports"


def _attribute(node: ast.Attribute) -> Iterator[Sign]:
    path = attribute_path(node)
    if path == "sys.modules":
        yield "", path, "changes or reads the table of loaded modules"
    elif path == "os.system":
        yield "", path, "starts processes"
    elif node.attr in _NAMES:
        yield "", node.attr, _NAMES[node.attr]
    elif isinstance(node.ctx, ast.Store | ast.Del):
        yield path.partition(".")[0], path, "changes something that it imports"


def attribute_path(node: ast.expr) -> str:
    """Return the last ten parts of `a.b.c`, whatever stands before them: a tree may be too deep to be written out."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute) and len(parts) < 10:
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id if isinstance(node, ast.Name) else "...", *reversed(parts)])[:100]
