"""The house keeps its own rules: who imports whom, what is called what, and how long anything may be.

ARCHITECTURE.md has the table of imports; this file reads it, so table and code cannot drift apart.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "miniserve"
MODULES = sorted(PACKAGE.rglob("*.py"))
SETUP = "setup_env"  # runs before anything is installed


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room(path: Path) -> str:
    """Return the folder of the package that a module lies in; for one at the top its own name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


# ---- who may import whom ----


def table() -> dict[str, set[str]]:
    """Return the rooms of ARCHITECTURE.md's table, lowest first, each with those that it may import."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text.partition("## Who may import whom")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    return {name: set(re.findall(r"`(\w+)`", below)) for first, below in rows for name in re.findall(r"`(\w+)`", first)}


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and room of each import of the package's own modules, those inside functions included."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "miniserve":
            names = [f"miniserve.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "miniserve" and len(parts) > 1 and not parts[1].startswith("__"):
                yield node.lineno, parts[1]


def test_every_import_is_in_the_table() -> None:
    allowed = table()
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {room(path)} may not import {name}"
        for path in MODULES
        if room(path) != "__init__"
        for line, name in imported_rooms(path)
        if name not in allowed.get(room(path), set()) | {room(path)}
    ]

    assert wrong == []


def test_the_table_has_every_room_and_no_arrow_runs_upwards() -> None:
    rows = list(table())
    rooms = {room(path) for path in MODULES} - {"__init__"}

    assert set(rows) == rooms
    upwards = [(name, below) for place, name in enumerate(rows) for below in table()[name] if below not in rows[:place]]
    assert upwards == []


def test_the_table_allows_nothing_that_nobody_needs() -> None:
    used: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        used[room(path)] |= {name for _, name in imported_rooms(path)}
    unused = {name: sorted(below - used[name]) for name, below in table().items() if below - used[name]}

    assert unused == {}


# ---- one word, one thing ----

# Names that are meant to stand in several modules, and why
SHARED = {
    "run": "what a command, or a driver, does",
    "add_arguments": "the options of a command",
    "main": "a program of its own",
    "decode": "one operation of attention, once for each backend",
    "prefill": "one operation of attention, once for each backend",
    "store_kv": "one operation of attention, once for each backend",
    "constants": "a kernel's compile-time constants",
    "available": "whether a backend can run here",
    "measure": "what a benchmark does",
    "Floats": "a numpy array of floats, in the shape that each module states",
    "Report": "how progress is told while files are fetched",
    "say": "how a program speaks to the person at its terminal; setup_env may import nothing",
    "pytest_addoption": "pytest's hook",
    "pytest_sessionfinish": "pytest's hook",
}


def public_names(path: Path) -> Iterator[str]:
    """Yield the classes, functions and type aliases that a module defines for others."""
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):  # an alias begins with a capital; a constant is all capitals
            names = [
                t.id for t in node.targets if isinstance(t, ast.Name) and t.id[:1].isupper() and not t.id.isupper()
            ]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def test_a_public_name_stands_for_one_thing() -> None:
    """The modules of a chapter aside: each chapter is a world of its own."""
    where = defaultdict(list)
    for path in MODULES:
        if "chapters" not in path.parts:
            for name in set(public_names(path)):
                where[name].append(str(path.relative_to(PACKAGE)))
    twice = {name: places for name, places in where.items() if len(places) > 1}

    assert {name: places for name, places in twice.items() if name not in SHARED} == {}
    assert SHARED.keys() - twice.keys() == set(), "these are not shared any more"


# ---- sizes ----

LONGEST_MODULE = 330  # lines; what one sitting takes in
LONGEST_FUNCTION = 50  # lines, with docstring; most have six


def test_modules_and_functions_stay_short() -> None:
    """A chapter's modules may be longer: they are content, questions one after the other."""
    long = []
    for path in MODULES:
        lines, name = path.read_text(encoding="utf-8").count("\n"), path.relative_to(PACKAGE)
        if lines >= LONGEST_MODULE and "chapters" not in path.parts:
            long.append(f"{name}: {lines} lines")
        functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        sizes = {one.name: (one.end_lineno or 0) - one.lineno + 1 for one in functions}
        long += [f"{name}: {function}, {size} lines" for function, size in sizes.items() if size > LONGEST_FUNCTION]

    assert long == []


# Lines of code, without comments and docstrings: those would be paid for by the reader. ARCHITECTURE.md says what each
# number is for.
FOLDERS = {"engine": 1_850, "policies": 2_050, "api": 2_100, "gateway": 1_800, "replica": 900, "sim": 2_600}


@pytest.mark.parametrize(("folder", "limit"), FOLDERS.items())
def test_what_is_read_in_one_go_stays_small(folder: str, limit: int) -> None:
    files = sorted((PACKAGE / folder).rglob("*.py"))
    lines = sum(code_lines(path.read_text(encoding="utf-8")) for path in files)

    assert 0 < lines <= limit, f"miniserve/{folder}: {lines:,} lines of code in {len(files)} files"


def test_the_package_stays_small() -> None:
    files = [path for path in MODULES if "course" not in path.relative_to(PACKAGE).parts]
    lines = sum(code_lines(path.read_text(encoding="utf-8")) for path in files)

    assert 10_000 < lines <= 30_000, f"{lines:,}"


def code_lines(source: str) -> int:
    """Count the lines that hold more than a comment or a docstring."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in skipped]
    held = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    texts = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr) and is_text(node.value)]
    return len(held - {line for node in texts for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)})


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_lines_of_code_are_counted_without_comments_and_docstrings() -> None:
    text = '"""Text\nof two lines."""\n\n'
    source = text + 'X = (  # a comment\n    1\n)\n# another\n\n\ndef f():\n    "text"\n    return """a\nb"""\n'

    assert code_lines(source) == 6


# ---- what the documents name ----

DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md")
# Words in backticks that are other programs', shell's or mathematics'
FOREIGN = {
    "pip", "conda", "bwrap", "promtool", "chromium", "prometheus", "sudo", "apt", "install", "curl", "cd", "source",
    "activate", "create", "env", "PIP_EXTRA_INDEX_URL", "https", "NN", "slug", "DIR", "OUT", "FILE", "date",
}  # fmt: skip


def words_of_the_code() -> set[str]:
    """Return every name, and every word of a text that is no docstring, in the package, the tests and the settings."""
    found: set[str] = set()
    for path in [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "solutions").glob("*.py"))]:
        source = path.read_text(encoding="utf-8")
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.NAME:
                found.add(token.string)
            elif token.type == tokenize.STRING and not token.string.endswith('"""'):
                found |= set(re.findall(r"\w+", token.string))
    for name in ("Makefile", "pyproject.toml", "environment.yml", ".ci/run", "data/hardware.toml"):
        found |= set(re.findall(r"\w+", (ROOT / name).read_text(encoding="utf-8")))
    for path in ROOT.glob("data/scenarios/*.toml"):
        found |= set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    return found


def is_there(path: str, document: str) -> bool:
    """Whether a path in backticks leads somewhere: from the root, the package, the document's folder, or a glob."""
    pattern = re.sub(r"<\w+>|NN|slug", "*", path.rstrip("/").removeprefix("./"))
    if "/" not in pattern:
        pattern = f"**/{pattern}"
    starts = (PACKAGE, (ROOT / document).parent, ROOT / "data", ROOT)
    return any(next(iter(start.glob(pattern)), None) is not None for start in starts)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_name_in_backticks_exists(document: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / document).read_text(encoding="utf-8"), flags=re.DOTALL)
    known, missing = words_of_the_code() | FOREIGN, []
    for name in re.findall(r"`([^`\n]+)`", text):
        if re.fullmatch(r"[\w.*<>-]*/[\w./*<>-]+|[\w.*<>-]+\.(py|md|toml|json|yml|ipynb|txt|diff)", name):
            if not name.startswith(("/", "~")) and not is_there(name, document):
                missing.append(name)
        elif unknown := set(re.findall(r"[A-Za-z_]\w{2,}", name)) - known:
            missing.append(f"{name} ({', '.join(sorted(unknown))})")

    assert missing == []


def references(path: Path) -> Iterator[str]:
    """Yield what a module's docstrings and comments name in backticks as a module: `room.module...` or a path."""
    rooms = {room(module) for module in MODULES if module.parent != PACKAGE}
    for name in re.findall(r"`([\w./]+)`", path.read_text(encoding="utf-8")):
        if (name.endswith(".py") and "NN" not in name) or ("." in name and name.partition(".")[0] in rooms):
            yield name


def leads_somewhere(name: str) -> bool:
    if name.endswith(".py"):
        return is_there(name, "README.md") or (ROOT / name).is_file()
    first, second, *rest = name.split(".")
    module = PACKAGE / first / f"{second}.py"
    if not module.is_file() and not (PACKAGE / first / second).is_dir():
        return second in words_of((PACKAGE / first).rglob("*.py"))
    return not rest or rest[0] in words_of([module] if module.is_file() else (PACKAGE / first / second).rglob("*.py"))


def words_of(paths: Iterable[Path]) -> set[str]:
    return {word for path in paths for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}


def test_docstrings_name_modules_that_exist() -> None:
    named = ((path, name) for path in MODULES for name in references(path))
    missing = [f"{path.relative_to(ROOT)}: {name}" for path, name in named if not leads_somewhere(name)]

    assert missing == []
