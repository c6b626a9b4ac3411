"""What a cell does is read from its text, and experiments that nobody needs are found."""

from __future__ import annotations

import pytest

from miniserve.course.check.code import forbidden_use
from miniserve.course.grade.cells import (
    NBVAL_COMMENT,
    forbidden,
    keeps_no_names,
    learn,
    names,
    needed,
    parameters,
    same_code,
)


def test_names_are_bound_changed_and_loaded() -> None:
    found = names("import numpy as np\nx = y + 1\nxs.append(3)\ntable['a'] = 1\ndef f(): return x")

    assert {"np", "x", "f"} <= found.binds
    assert found.changes == {"xs", "table"}
    assert {"y", "xs", "table"} <= found.loads


@pytest.mark.parametrize("text", ["%matplotlib inline\nx = 1", "!ls\nx = 1", "x = await f()"])
def test_magics_and_top_level_await_are_read(text: str) -> None:
    assert "x" in names(text).binds


@pytest.mark.parametrize("text", ["x = = 1", "(" * 5_000, "\0"])
def test_of_what_is_no_python_nothing_is_known(text: str) -> None:
    assert not names(text).known


def test_parameters_of_all_functions_are_found() -> None:
    text = "def f(a, /, b=1, *rest, c, **more):\n    return lambda d: d\nclass K:\n    async def g(self): ..."

    assert parameters(text) == {"a", "b", "rest", "c", "more", "d", "self"}
    assert parameters("x = = 1") == frozenset()


def test_cells_that_no_answer_needs_are_left_out() -> None:
    texts = ["import m", "a = m.f()", "plot(a)", "answer = a + b", "b = 2", "shown = run(answer)", "m.show(b)"]

    assert needed(texts, always=[0, 3]) == {0, 1, 3, 4}


def test_a_cell_that_changes_what_is_needed_is_needed() -> None:
    assert needed(["xs = []", "xs.append(1)", "ys.append(1)", "answer = xs"], always=[3]) == {0, 1, 3}


def test_a_cell_that_cannot_be_read_is_kept() -> None:
    assert needed(["x = = 1", "answer = 1"], always=[1]) == {0, 1}


def test_comments_spaces_and_quotes_are_no_difference() -> None:
    assert same_code("x = 'a'  # one\n", 'x   =  "a"')
    assert not same_code("x = 1", "x = 2")
    assert same_code("x = = 1", "x = = 1\n")


REACHES = [
    "from miniserve.observe.percentiles import percentile",
    "from miniserve.observe.percentiles import rank, percentile as p",
    "from miniserve.observe.percentiles import *",
    "import miniserve.observe.percentiles as m\nm.percentiles([1], (50,))",
    "import miniserve as m\nm.observe.percentiles.percentile([1], 5)",
    "import inspect\ninspect.getsource(x)",
    "__import__('miniserve')",
    "from importlib import import_module\nimport_module('miniserve')",
    "from miniserve.observe.percentiles import rank",
    "from statistics import quantiles as percentiles",
    "def percentile(values, p):\n    return sorted(values)[0]",
    "def broken(:",
    "x().percentile",
    "a[0].getsource(1); m.percentiles",
    "'from miniserve.observe.percentiles import percentile'",
]


def test_a_notebook_and_the_grader_refuse_the_same() -> None:
    denied = frozenset({"percentile", "percentiles"})
    learn(REACHES)

    assert [forbidden(text, denied) for text in REACHES] == [forbidden_use(text, denied) for text in REACHES]
    assert {text for text in REACHES if forbidden(text, denied)} >= set(REACHES[:8])


@pytest.mark.parametrize("line", ["# NBVAL_SKIP", "  #NBVAL_IGNORE_OUTPUT  ", "### PYTEST_VALIDATE_IGNORE_OUTPUT"])
def test_what_nbval_obeys_is_found(line: str) -> None:
    from nbval.plugin import find_comment_markers

    assert list(find_comment_markers(line))
    assert not list(find_comment_markers(NBVAL_COMMENT.sub("#", f"x = 1\n{line}\ny = 2")))


@pytest.mark.parametrize(
    "magic", ["%%time", "%%capture", "%%capture out", "%%prun -l 5", "\n%%time", "%%capture\n%%time"]
)
def test_names_under_a_magic_that_runs_the_cell_in_place_are_seen(magic: str) -> None:
    assert names(f"{magic}\nx = 1\ndef f(): ...").binds == {"x", "f"}
    assert keeps_no_names(f"{magic}\nx = 1") == ""


def test_a_line_that_is_timed_binds_its_names() -> None:
    assert names("%time x = f(1)\n%time g()\n%timeit y = 1").binds == {"x"}


@pytest.mark.parametrize(
    "magic", ["%%timeit", "%%timeit -n 1 -r 1", "%%bash", "%%writefile a.py", "%%capture\n%%timeit"]
)
def test_a_magic_that_keeps_no_names_is_named(magic: str) -> None:
    assert names(f"{magic}\nx = 1").binds == set()
    assert keeps_no_names(f"{magic}\nx = 1") == magic.split("\n")[-1].split()[0]


@pytest.mark.parametrize("text", ["x = 1", "# %%timeit\nx = 1", "%%timeit\nglobal x\nx = 1", "%timeit x = 1"])
def test_other_cells_keep_theirs(text: str) -> None:
    assert keeps_no_names(text) == ""


def test_a_tree_too_deep_to_compare_is_compared_as_text() -> None:
    deep = "x = lambda: a" + ".b" * 1_500

    assert same_code(deep, deep + "\n")
    assert not same_code(deep, "x = 1")
