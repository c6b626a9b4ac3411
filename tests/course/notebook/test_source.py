"""A source becomes cells; what a learner gets in place of a solution; what is wrong is said with file and line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from course.small_chapter import LIBRARY, write

from miniserve.course.notebook.source import learner_text, read_source, solution_texts, solved_text
from miniserve.course.notebook.targets import take
from miniserve.errors import SetupError


def cell(tmp_path: Path, text: str, header: str = 'id="answer-7.1" tags=["answer"] question="7.1"') -> tuple[str, str]:
    """Return what a learner and a reader of the solution get for one code cell."""
    path = tmp_path / "07_x.py"
    path.write_text(f"# %% {header}\n{text}\n")
    source = read_source(path)
    return learner_text(source, source.cells[0]), solved_text(source.cells[0])


def test_a_source_is_cells_with_ids_tags_and_lines(tmp_path: Path) -> None:
    write(tmp_path)
    source = read_source(tmp_path / "solutions/07_small.py")

    assert (source.name, source.number) == ("07_small", 7)
    assert [c.id for c in source.cells][:4] == ["intro", "setup", "card-7-1", "answer-7-1"]
    answer = source.cells[3]
    assert (answer.question, answer.tags, answer.kind) == ("7.1", ("answer",), "code")
    lines = source.path.read_text().splitlines()
    assert all(lines[c.line - 1].startswith("# %%") for c in source.cells)
    assert solution_texts(answer) == ["wait_s = 2 * 21.0"]


@pytest.mark.parametrize(
    ("solution", "stub"),
    [
        ("x = 3", "x = ..."),
        ("x = 3\ny: int = 4\nx += 1", "x = ...\ny = ..."),
        ("import math\na, (b, c) = 1, (2, 3)", "a = ...\nb = ...\nc = ..."),
        ("for i in range(3):\n    pass\nx = {\n  1: 2,\n}", "x = ..."),
        ("rate = lambda n: n / 2", "rate = ..."),
    ],
)
def test_each_name_that_a_solution_assigns_becomes_a_placeholder(tmp_path: Path, solution: str, stub: str) -> None:
    learner, solved = cell(tmp_path, f"given = 1\n# SOLUTION\n{solution}\n# END SOLUTION\nkept = 2")

    assert learner == f"given = 1\n{stub}\nkept = 2"
    assert solved == f"given = 1\n{solution}\nkept = 2"


def test_a_function_keeps_its_signature_and_docstring(tmp_path: Path) -> None:
    solution = 'def f(\n    x: int,\n) -> int:\n    """Return it."""\n    secret = x\n    return secret'
    learner, _ = cell(tmp_path, f"# SOLUTION\n{solution}\n# END SOLUTION")

    assert learner.startswith('def f(\n    x: int,\n) -> int:\n    """Return it."""\n    raise NotImplementedError("Ex')
    assert "Exercise 7.1: write the body" in learner
    assert "secret" not in learner


def test_a_class_keeps_its_methods_heads(tmp_path: Path) -> None:
    solution = 'class A(int):\n    """Text."""\n\n    secret = 1\n\n    async def f(self):\n        return secret'
    learner, _ = cell(tmp_path, f"# SOLUTION\n{solution}\n# END SOLUTION")

    made = ast.parse(learner).body[0]
    assert isinstance(made, ast.ClassDef)
    assert ast.get_docstring(made) == "Text."
    assert "async def f(self):\n        raise NotImplementedError" in learner
    assert "secret" not in learner


def test_markers_inside_a_function_hide_its_body_only(tmp_path: Path) -> None:
    learner, _ = cell(tmp_path, "def f(x):\n    # a hint\n    # SOLUTION\n    return 7 * x\n    # END SOLUTION")

    assert learner == 'def f(x):\n    # a hint\n    raise NotImplementedError("Exercise 7.1: write the body")'


HEADER = '# %% id="a"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (HEADER + "x = 1\n# SOLUTION\ny = 2\n", r"07_x\.py:3: # SOLUTION is not closed"),
        (
            HEADER + "# SOLUTION\ny = 2\n# SOLUTION\n# END SOLUTION",
            r"07_x\.py:4: # SOLUTION inside the one that line 2",
        ),
        (HEADER + "y = 2\n# END SOLUTION\n", r"07_x\.py:3: # END SOLUTION without # SOLUTION"),
        (HEADER + "x = 1\n\n" + HEADER + "y = 2", r"07_x\.py:4: the id 'a' is taken by the cell in line 1"),
        ("# %%\nx = 1\n", r"07_x\.py:1: the cell has no usable id \(''\)"),
        ('# %% id="a b"\nx = 1\n', r"07_x\.py:1: the cell has no usable id \('a b'\)"),
        ('# %% id="a" tag="check"\nx = 1\n', r"07_x\.py:1: unknown key 'tag'"),
        ("x = 1\n" + HEADER + "y = 2\n", r"07_x\.py:1: text before the first cell"),
        (HEADER + "\n# SOLUTION\nprint(3)\n# END SOLUTION", r"07_x\.py:3: the solution defines no name"),
        (HEADER + "x = 1\n# SOLUTION\nx = 2\nx = (\n# END SOLUTION", r"07_x\.py:5: '\(' was never closed"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "07_x.py"
    path.write_text(text)
    with pytest.raises(SetupError, match=problem):
        read_and_stub(path)


def read_and_stub(path: Path) -> list[str]:
    source = read_source(path)
    return [learner_text(source, c) for c in source.cells]


# ---- taken from the library ----


@pytest.fixture
def library(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


def test_the_solution_is_the_librarys_text_to_the_letter(library: Path) -> None:
    taken = take("lib/least.py::Least.choose", "7.2", library)

    assert taken.solved in LIBRARY
    assert taken.solved.startswith("class Least:")
    assert taken.solved.endswith("        self.calls = 0")
    assert "".join(taken.bodies).strip().startswith("# this comment belongs to the body")


def test_the_stub_lacks_the_named_body_and_nothing_else(library: Path) -> None:
    stub = take("lib/least.py::Least.choose", "7.2", library).stub

    body = LIBRARY[LIBRARY.index("        # this comment") : LIBRARY.index("\n\n    async def")]
    expected = LIBRARY[LIBRARY.index("class Least") : LIBRARY.index("\n\n\ndef double")]
    assert stub == expected.replace(body, '        raise NotImplementedError("Exercise 7.2: write the body")')


def test_several_methods_may_be_named(library: Path) -> None:
    taken = take("lib/least.py::Least.choose+forget", "7.2", library)

    assert taken.stub.count("raise NotImplementedError") == 2
    assert len(taken.bodies) == 2
    assert "so does this one" not in taken.stub
    assert taken.stub.index("self.calls = 0  # kept") < taken.stub.index("raise")


def test_a_function_may_be_named(library: Path) -> None:
    taken = take("lib/least.py::double", "7.2", library)

    assert taken.stub == (
        'def double(x: float) -> float:\n    raise NotImplementedError("Exercise 7.2: write the body")'
    )


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("lib/none.py::Least.choose", r"the target 'lib/none\.py::Least\.choose' names no file"),
        ("lib/least.py", r"names no file"),
        (
            "lib/least.py::Most.choose",
            r"lib/least\.py has no class or function 'Most'; it has decorated, Least, double",
        ),
        ("lib/least.py::Least.pick", r"lib/least\.py::Least has no method 'pick'; it has __init__, choose, forget"),
        ("lib/least.py::Least", r"lib/least\.py::Least is a class: name the methods to write"),
    ],
)
def test_a_target_that_does_not_exist_is_named(library: Path, target: str, problem: str) -> None:
    with pytest.raises(SetupError, match=problem):
        take(target, "7.2", library)
