"""The two notebooks of a small chapter: what is in them, when they are stale, what a build refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import psutil
import pytest
from course.small_chapter import SOURCE, write

from miniserve.course.notebook import build as building
from miniserve.course.notebook.build import Course, build, stale, strays
from miniserve.course.notebook.execute import execute
from miniserve.course.notebook.notebooks import (
    by_id,
    dumps,
    learner_notebook,
    loads,
    solved_notebook,
    states,
    untouched,
)
from miniserve.course.notebook.times import Took, held_mib, label, note_times, read_times
from miniserve.errors import SetupError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A chapter that was built once; tests leave it as it is."""
    course = write(tmp_path_factory.mktemp("course"))
    build(course, course.sources()[0])
    return course


@pytest.fixture
def copied(built: Course, tmp_path: Path) -> Course:
    """The built chapter, for a test to change."""
    course = write(tmp_path)
    for name in ("solutions/07_small.ipynb", "chapters/07_small.ipynb", "data/results/course_times.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((built.root / name).read_bytes())
    return course


def only(course: Course) -> Path:
    return course.sources()[0]


def change(course: Course, file: str, old: str, new: str) -> None:
    path = course.root / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def options(*arguments: str):
    parser = ArgumentParser()
    building.add_arguments(parser)
    return parser.parse_args(arguments)


def test_the_learners_notebook_has_stubs_and_no_outputs(built: Course) -> None:
    notebook = loads(built.root / "chapters/07_small.ipynb")
    cells = by_id(notebook)

    assert cells["answer-7-1"]["source"] == "wait_s = ..."
    assert 'raise NotImplementedError("Exercise 7.2: write the body")' in cells["answer-7-2"]["source"]
    assert "min(loads)" not in dumps(notebook)
    assert "21" not in dumps(notebook).replace(json.dumps(notebook["metadata"]["miniserve"]), "").split('"metadata"')[0]
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert untouched(notebook)


def test_the_solved_notebook_has_run(built: Course) -> None:
    notebook = loads(built.root / "solutions/07_small.ipynb")
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]

    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert states(notebook) == {"7.1": "CORRECT", "7.2": "CORRECT"}
    assert "smallest = min(loads)" in by_id(notebook)["answer-7-2"]["source"]
    assert by_id(notebook)["address"]["outputs"][0]["data"]["text/plain"] == "<object at 0x...>"


def test_both_have_fixed_metadata_sorted_keys_and_unix_lines(built: Course) -> None:
    for name in ("chapters/07_small.ipynb", "solutions/07_small.ipynb"):
        data = (built.root / name).read_bytes()
        raw = json.loads(data)
        assert data == (json.dumps(raw, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
        assert b"\r" not in data
        assert str(built.root).encode() not in data
        assert (raw["nbformat"], raw["nbformat_minor"]) == (4, 5)
        assert raw["metadata"]["kernelspec"]["name"] == "python3"
        assert set(raw["metadata"]) == {"kernelspec", "language_info", "miniserve"}


def test_running_it_twice_gives_the_same_bytes(copied: Course) -> None:
    before = {path: path.read_bytes() for path in copied.root.rglob("*.ipynb")}

    assert "executed" in build(copied, only(copied), again=True)
    assert {path: path.read_bytes() for path in copied.root.rglob("*.ipynb")} == before


def test_what_has_not_changed_is_not_executed_again(copied: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "execute", None)
    before = (copied.root / "solutions/07_small.ipynb").read_bytes()

    assert stale(copied, only(copied)) == []
    assert "outputs kept" in build(copied, only(copied))
    assert (copied.root / "solutions/07_small.ipynb").read_bytes() == before


def test_new_words_are_written_without_executing(copied: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "execute", None)
    change(copied, "solutions/07_small.py", "# ## How much?", "# ## How long?")

    assert len(stale(copied, only(copied))) == 2
    build(copied, only(copied))
    assert stale(copied, only(copied)) == []
    solved = loads(copied.root / "solutions/07_small.ipynb")
    assert by_id(solved)["card-7-1"]["source"] == "## How long?"
    assert states(solved) == {"7.1": "CORRECT", "7.2": "CORRECT"}


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("solutions/07_small.py", "2 * 21.0", "42.0", "from cell answer-7-1 on came from other code"),
        ("lib/least.py", "self.calls += 1", "self.calls += 2", "from cell answer-7-2 on came from other code"),
        ("solutions/07_small.ipynb", '"execution_count": 3', '"execution_count": null', "check-7-1 was never executed"),
        ("solutions/07_small.ipynb", "# A small chapter", "# My chapter", "07_small.ipynb is not what solutions/07_sm"),
        ("chapters/07_small.ipynb", "wait_s = ...", "wait_s = 42", "chapters/07_small.ipynb is not what solutions/07"),
    ],
)
def test_a_check_finds_what_is_stale_and_says_what_to_run(
    copied: Course, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str, said: str
) -> None:
    change(copied, file, old, new)

    assert building.run(options("--check"), copied) == 1
    told = capsys.readouterr().err
    assert said in told
    assert "; run: python -m miniserve course build 07_small" in told


def test_a_check_of_a_whole_course_is_quiet_when_all_is_well(
    copied: Course, capsys: pytest.CaptureFixture[str]
) -> None:
    assert building.run(options("--check"), copied) == 0
    assert building.run(options("--check", "7"), copied) == 0
    assert capsys.readouterr().err == ""


def test_a_notebook_without_source_is_named(copied: Course) -> None:
    (copied.root / "chapters/08_gone.ipynb").write_text("{}")
    (copied.root / "chapters/07_small.old.ipynb").write_text("{}")

    assert strays(copied) == ["chapters/08_gone.ipynb has no source solutions/08_gone.py: remove it"]


def test_a_chapter_that_does_not_exist_is_refused(copied: Course) -> None:
    assert copied.sources(["7"]) == copied.sources(["07"]) == copied.sources(["07_small"]) == copied.sources()
    with pytest.raises(SetupError, match=r"there is no source for '8' in solutions/; there are 07_small"):
        copied.sources(["8"])


def test_a_notebook_without_number_has_no_questions(tmp_path: Path) -> None:
    course = write(tmp_path, '# %% [markdown] id="a"\n# # Start here\n', "start_here")

    source, cells = course.read(only(course))
    assert [text.learner for text in cells] == ["# Start here"]
    assert source.number == 0


# ---- source and questions agree ----

ANSWER = 'id="answer-7.1" tags=["answer"] question="7.1"'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (ANSWER, 'id="answer-7.1" tags=["answer"]', r'07_small\.py:16: an answer cell needs question="\.\.\."'),
        (ANSWER, 'id="x" question="7.1"', r'07_small\.py:16: question="7\.1" belongs on a cell with tags=\["answer"\]'),
        (ANSWER, 'id="x" tags=["answer"] question="7.1"', r'the answer cell of 7\.1 is called id="answer-7\.1"'),
        (
            ANSWER,
            'id="answer-7.9" tags=["answer"] question="7.9"',
            r":16: question '7\.9' is not in QUESTIONS; there are 7\.1, 7\.2\n.*:1: question 7\.1 is never asked",
        ),
        ('ch.check("7.1", wait_s)', 'ch.check("7.1", wait)', r":21: it checks wait, but the answer to 7\.1 is called"),
        ('ch.check("7.1", wait_s)', 'ch.check("7.9", wait_s)', r":21: it checks '7\.9', which is not in QUESTIONS"),
        ('ch.check("7.1", wait_s)', "wait_s", r":21: a check cell holds one ch\.check\(\.\.\.\); this one has 0"),
        (
            'id="check-7.2" tags=["check"]',
            'id="check-7.2"',
            r"07_small\.py:1: question 7\.2 is never checked",
        ),
        ("Least.choose", "Least.forget", r":24: target='lib/least\.py::Least\.forget', but question 7\.2 has 'lib/"),
    ],
)
def test_a_source_that_does_not_ask_its_questions_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in SOURCE
    course = write(tmp_path, SOURCE.replace(old, new))

    with pytest.raises(SetupError, match=said):
        course.read(only(course))


def test_a_target_that_is_not_there_is_named_with_the_cells_line(tmp_path: Path) -> None:
    course = write(tmp_path)
    change(course, "lib/least.py", "def choose", "def pick")

    with pytest.raises(SetupError, match=r"07_small\.py:24: lib/least\.py::Least has no method 'choose'"):
        course.read(only(course))


# ---- what a run refuses ----


def run_cell(tmp_path: Path, text: str, header: str = 'id="a"'):
    course = write(tmp_path, f'# %% [markdown] id="t"\n# # T\n\n# %% {header}\n{text}\n', "start_here")
    source, cells = course.read(only(course))
    return execute(solved_notebook(source, cells, {}), source, tmp_path / "solutions", tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / 0", r"start_here\.py:4: the cell raised\n    ZeroDivisionError: division by zero"),
        ("%no_such_magic", r"start_here\.py:4: the cell raised\n    UsageError: Line magic"),
        ("import warnings\nwarnings.warn('old')", r"start_here\.py:4: the cell writes to stderr"),
    ],
)
def test_a_cell_that_fails_or_warns_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SetupError, match=said):
        run_cell(tmp_path, text)


def test_a_solution_that_is_not_right_is_refused(copied: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is played back from what is stored, with one check changed."""
    ran = loads(copied.root / "solutions/07_small.ipynb")
    by_id(ran)["check-7-1"]["outputs"][0]["text"] = "7.1  NOT TRIED\n"
    monkeypatch.setattr(building, "execute", lambda *_: (ran, 1.0))
    before = (copied.root / "solutions/07_small.ipynb").read_bytes()

    with pytest.raises(SetupError, match=r"07_small\.py:1: 7\.1 is NOT TRIED in the solved notebook"):
        build(copied, only(copied), again=True)
    assert (copied.root / "solutions/07_small.ipynb").read_bytes() == before


def test_an_output_that_is_compared_must_be_the_same_everywhere(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"start_here\.py:4: an output that is compared holds an address"):
        run_cell(tmp_path, "object()", 'id="a" tags=["nbval-check-output"]')


def test_a_run_leaves_no_trace_of_the_machine(tmp_path: Path) -> None:
    text = "import os\nprint(os.getcwd())\nprint(object())\ndef f(): pass\nprint(f.__code__.co_filename)"
    ran, _ = run_cell(tmp_path, text)

    assert ran["cells"][1]["outputs"][0]["text"].splitlines() == ["solutions", "<object object at 0x...>", "<cell>"]


# ---- times ----


def test_a_busy_machine_does_not_change_a_notebook(copied: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that took far longer leaves the noted time alone, unless asked to note it."""
    ran = loads(copied.root / "solutions/07_small.ipynb")
    monkeypatch.setattr(building, "execute", lambda *_: (ran, Took(1234.0)))
    before = read_times(copied.root)
    build(copied, only(copied), again=True)

    assert read_times(copied.root) == before
    build(copied, only(copied), again=True, times=True)
    assert read_times(copied.root) == {"07_small": 1234.0}
    assert "Runs in about 5 min" in (copied.root / "chapters/07_small.ipynb").read_text()


def test_times_of_several_notebooks_are_kept_in_order(tmp_path: Path) -> None:
    note_times(tmp_path, "07_small", Took(20.0, 100.4, [0.1, 0.25]))
    note_times(tmp_path, "06_other", Took(4.06))

    assert list(read_times(tmp_path).items()) == [("06_other", 4.1), ("07_small", 20.0)]
    kept = json.loads((tmp_path / "data/results/course_times.json").read_text())
    assert kept["peak_mib"]["07_small"] == 100
    assert kept["checks_s"] == {"06_other": [], "07_small": [0.25, 0.1]}


def test_a_build_notes_memory_and_how_long_checks_took(built: Course) -> None:
    kept = json.loads((built.root / "data/results/course_times.json").read_text())

    assert kept["peak_mib"]["07_small"] > 10, "a kernel holds more than that"
    assert len(kept["checks_s"]["07_small"]) == len(built.questions(7))


def test_memory_is_that_of_processes_started_meanwhile() -> None:
    earlier = {child.pid for child in psutil.Process().children()}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as started:
        assert 0 < held_mib(earlier) < 1000
        assert held_mib({*earlier, started.pid}) == 0
        started.communicate(b"\n")


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "not measured yet"), (0.4, "about 5 s"), (17.0, "about 15 s"), (150.0, "about 3 min")]
)
def test_times_are_told_in_round_numbers(seconds: float | None, words: str) -> None:
    assert label(seconds) == words


# ---- by nbval ----


def nbval(course: Course) -> subprocess.CompletedProcess[str]:
    flags = ["-c", "pyproject.toml", "-p", "notebook_states", "-o", "filterwarnings=default", "--color=no", "-v"]
    flags += ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=60"]
    folders = [str(course.root / folder) for folder in ("chapters", "solutions")]
    command = [sys.executable, "-m", "pytest", *flags, *folders]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_nbval_notices_a_check_that_says_something_else(copied: Course) -> None:
    """The learner's check says nothing, the solved one NOT TRIED; and a key result differs from what is stored."""
    source, cells = copied.read(only(copied))
    silent = learner_notebook(source, cells)
    by_id(silent)["check-7-1"]["source"] = "0"
    silent["metadata"]["miniserve"]["given"]["check-7-1"] = "5feceb66ffc86f38"
    (copied.root / "chapters/07_small.ipynb").write_text(dumps(silent))
    change(copied, "solutions/07_small.ipynb", "wait_s = 2 * 21.0", "wait_s = ...")
    change(copied, "solutions/07_small.ipynb", "<class '__main__.Least'>", "<class '__main__.Most'>")
    ran = nbval(copied)

    assert "check-7-1 says nothing; expected is NOT TRIED" in ran.stdout
    assert "check-7-1 says ['NOT TRIED']; expected is CORRECT or NOTED" in ran.stdout
    assert "Cell outputs differ" in ran.stdout
    assert "3 failed, 11 passed" in ran.stdout
