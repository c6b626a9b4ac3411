"""What every chapter must be, read from the files: leaks, parity, sizes, headings, alt text, times.

Only the long count executes a chapter: twice the same outputs. That the notebooks run, and what their checks say, is
for `make notebooks`; that they are what the sources give, for `python -m miniserve course build --check`.
"""

from __future__ import annotations

import ast
import html.parser
import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from miniserve.course.notebook.build import ROOT, Course
from miniserve.course.notebook.execute import execute
from miniserve.course.notebook.notebooks import Notebook, Texts, by_id, dumps, loads, solved_notebook, states, texts
from miniserve.course.notebook.source import Source, read_source
from miniserve.course.notebook.targets import take

COURSE = Course()
SOURCES = [pytest.param(path, id=path.stem) for path in COURSE.sources()]
MAX_LEARNER_BYTES, MAX_SOLVED_BYTES = 100_000, 300_000

each_source = pytest.mark.parametrize("path", SOURCES)


def learner(path: Path) -> Notebook:
    return loads(ROOT / f"chapters/{path.stem}.ipynb")


def solved(path: Path) -> Notebook:
    return loads(path.with_suffix(".ipynb"))


# ---- nothing of a solution reaches the learner ----


def normalised(text: str) -> list[str]:
    """Return the lines of a text that say something, without indentation and comments."""
    lines = [re.sub(r"\s+#.*$", "", line.strip()) for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def shingles(text: str, length: int = 5) -> set[tuple[str, ...]]:
    """Return all runs of `length` lines of a text; of a shorter one, the whole of it if it has two lines or more."""
    lines = normalised(text)
    length = max(2, min(length, len(lines)))
    return {tuple(lines[i : i + length]) for i in range(len(lines) - length + 1)}


def leaks(solutions: list[str], given: str) -> list[tuple[str, ...]]:
    """Return the runs of lines of solutions that stand in what learners are given."""
    lines = "\n".join(["", *normalised(given), ""])
    return [run for text in solutions for run in shingles(text) if "\n".join(["", *run, ""]) in lines]


def solution_bodies(cells: list[Texts]) -> list[str]:
    return [solution for text in cells for solution in text.solutions]


def everything_in(notebook: Notebook) -> str:
    """Return all texts of a notebook: sources, and every string of its metadata and outputs."""
    return "\n".join([*(cell["source"] for cell in notebook["cells"]), *strings(json.loads(dumps(notebook)))])


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value if isinstance(value, list) else value.values():
            yield from strings(item)


def test_no_run_of_lines_of_any_solution_is_in_any_learners_notebook() -> None:
    sources = [read_source(path) for path in COURSE.sources()]
    bodies = {source.name: solution_bodies(texts(source, ROOT)) for source in sources}
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        given = everything_in(loads(path))
        assert {name: leaks(solutions, given) for name, solutions in bodies.items() if leaks(solutions, given)} == {}


def test_the_search_for_leaks_finds_them() -> None:
    solution = "a = 1\nb = 2  # why\n\n# c\nc = 3\nd = 4\ne = 5\nf = 6"

    assert leaks([solution], "x\n  b = 2\nc = 3\n\nd = 4\ne = 5\nf = 6\n") == [
        ("b = 2", "c = 3", "d = 4", "e = 5", "f = 6")
    ]
    assert leaks([solution], "a = 1\nb = 2\nc = 3\nd = 4\nx\ne = 5\nf = 6") == []
    assert leaks(["x = 1\ny = 2"], "x = 1\ny = 2") == [("x = 1", "y = 2")]
    assert leaks(["x = 1"], "x = 1") == []


# ---- course and framework are one ----


def definitions(text: str) -> dict[str, str]:
    """Return the definitions of a cell as trees, without places and comments."""
    found = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name: ast.dump(node) for node in ast.parse(text).body if isinstance(node, found)}


@each_source
def test_a_code_solution_is_the_librarys_by_ast(path: Path) -> None:
    cells = {cell["id"]: cell for cell in solved(path)["cells"]}
    for cell in read_source(path).cells:
        if cell.target:
            taken = definitions(take(cell.target, cell.question, ROOT).solved)
            library = definitions((ROOT / cell.target.partition("::")[0]).read_text(encoding="utf-8"))
            assert taken.items() <= definitions(cells[cell.id]["source"]).items()
            assert taken.items() <= library.items()


@each_source
def test_every_question_is_right_in_the_solved_notebook(path: Path) -> None:
    said = states(solved(path))
    asked = COURSE.questions(read_source(path).number)

    assert said.keys() == asked.keys()
    assert set(said.values()) <= {"CORRECT", "NOTED"}


@pytest.mark.full
@each_source
def test_a_run_gives_the_outputs_that_are_stored(path: Path, record_property: Callable[[str, object], None]) -> None:
    source, cells = COURSE.read(path)
    ran, took = execute(solved_notebook(source, cells, {}), source, path.parent, ROOT)
    stored = by_id(solved(path))
    compared = [cell for cell in source.cells if cell.is_code and "measured" not in cell.tags]
    outputs = by_id(ran)
    record_property("cells", len(compared))
    record_property("seconds", round(took.seconds, 1))

    assert [cell.id for cell in compared if outputs[cell.id]["outputs"] != stored[cell.id]["outputs"]] == []


@each_source
def test_a_chapter_has_key_results_that_are_compared(path: Path) -> None:
    source = read_source(path)
    compared = [cell for cell in source.cells if "nbval-check-output" in cell.tags]

    assert not [cell.id for cell in compared if "measured" in cell.tags], "what is measured cannot be compared"
    assert compared or not source.number


# ---- for every reader ----


@each_source
def test_sizes_stay_small(path: Path) -> None:
    assert (ROOT / f"chapters/{path.stem}.ipynb").stat().st_size <= MAX_LEARNER_BYTES
    assert path.with_suffix(".ipynb").stat().st_size <= MAX_SOLVED_BYTES


def headings(source: Source) -> list[int]:
    """Return the levels of all headings, code blocks left out."""
    prose = "\n".join(cell.text for cell in source.cells if not cell.is_code)
    prose = re.sub(r"^```.*?^```", "", prose, flags=re.MULTILINE | re.DOTALL)
    return [len(found) for found in re.findall(r"^(#+) \S", prose, flags=re.MULTILINE)]


@each_source
def test_one_h1_and_no_level_is_skipped(path: Path) -> None:
    levels = headings(read_source(path))

    assert levels[:1] == [1]
    assert levels.count(1) == 1
    assert [pair for pair in pairwise(levels) if pair[1] > pair[0] + 1] == []


class Pictures(html.parser.HTMLParser):
    """Collects the alt texts of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.alts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.alts.append(dict(attrs).get("alt") or "")


def alt_texts(notebook: Notebook) -> list[str]:
    """Return the alt text of each picture in outputs and texts; empty where there is none."""
    pictures = Pictures()
    found = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            found += ["" for kind in data if kind.startswith("image/")]  # a bare picture cannot carry words
            pictures.feed("".join(data.get("text/html", "")))
        if cell["cell_type"] == "markdown":
            found += re.findall(r"!\[([^\]]*)\]\(", cell["source"])
            pictures.feed(cell["source"])
    return found + pictures.alts


@each_source
def test_every_picture_has_words(path: Path) -> None:
    alts = alt_texts(solved(path))

    assert [alt for alt in alts if len(alt.split()) < 5] == []


def test_the_search_for_pictures_finds_those_without_words() -> None:
    image = {"data": {"image/png": "AAAA", "text/html": '<p><img src="x"><img alt="Some words" src="y"></p>'}}
    notebook = {"cells": [{"cell_type": "code", "outputs": [image]}, {"cell_type": "markdown", "source": "![](z)"}]}

    assert sorted(alt_texts(notebook)) == ["", "", "", "Some words"]


@each_source
def test_cells_show_figures_with_words_and_await_at_top_level(path: Path) -> None:
    code = "\n".join(cell.text for cell in read_source(path).cells if cell.is_code)

    assert not re.findall(r"\bplt\.show\(|%matplotlib|clear_output|asyncio\.run\(", code)


@each_source
def test_each_card_says_how_hard_and_how_long(path: Path) -> None:
    source = read_source(path)
    prose = "\n".join(cell.text for cell in source.cells if not cell.is_code)
    for question in COURSE.questions(source.number).values():
        effort = f"Difficulty {question.difficulty} of 5 · about {question.minutes} min"
        card = rf"Exercise {re.escape(question.id)}\b.*?{effort}"
        assert re.search(card, prose, flags=re.DOTALL), f"no card for {question.id}: {card}"


@each_source
def test_the_header_tells_the_run_time(path: Path) -> None:
    assert "{{run_time}}" in read_source(path).cells[0].text
