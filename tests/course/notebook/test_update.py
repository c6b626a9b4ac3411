"""A learner's notebook is brought up to date: answers by cell id, own cells where they stood, the old file kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from course.small_chapter import SOURCE, write

from miniserve.course.notebook.build import Course
from miniserve.course.notebook.notebooks import Notebook, by_id, dumps, learner_notebook, loads
from miniserve.course.notebook.update import update
from miniserve.errors import SetupError


def given(course: Course) -> Notebook:
    source, cells = course.read(course.sources()[0])
    return learner_notebook(source, cells)


def own(id_: str, text: str) -> Notebook:
    return {"cell_type": "code", "id": id_, "metadata": {}, "source": text, "execution_count": 4, "outputs": []}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A notebook in which 7.1 is answered and a cell was added behind the answer."""
    notebook = given(write(tmp_path))
    place = next(i for i, cell in enumerate(notebook["cells"]) if cell["id"] == "answer-7-1")
    notebook["cells"][place]["source"] = "wait_s = 41"
    notebook["cells"].insert(place + 1, own("scratch", "wait_s / 2"))
    path = tmp_path / "chapters/07_small.ipynb"
    path.write_text(dumps(notebook))
    return path


def test_answers_and_own_cells_go_into_the_new_chapter(mine: Path, tmp_path: Path) -> None:
    before = mine.read_bytes()
    course = write(tmp_path, SOURCE.replace("# ## How much?", "# ## How long?"))
    said = update(course, mine)

    new = loads(mine)
    assert by_id(new)["card-7-1"]["source"] == "## How long?"
    assert by_id(new)["answer-7-1"]["source"] == "wait_s = 41"
    ids = [cell["id"] for cell in new["cells"]]
    assert ids[ids.index("answer-7-1") + 1] == "scratch"
    assert by_id(new)["answer-7-2"] == by_id(given(course))["answer-7-2"]
    assert mine.with_name("07_small.old.ipynb").read_bytes() == before
    assert said == [
        f"{mine} is up to date; the old one is 07_small.old.ipynb",
        "  answer-7-1: answer carried over",
        "  1 cell of your own kept",
    ]


def test_a_stub_that_was_not_touched_becomes_the_new_stub(mine: Path, tmp_path: Path) -> None:
    course = write(tmp_path)
    library = tmp_path / "lib/least.py"
    library.write_text(library.read_text().replace("The first one wins a tie.", "The last one wins a tie."))
    update(course, mine)

    assert "The last one wins" in by_id(loads(mine))["answer-7-2"]["source"]


def test_an_answer_whose_given_part_has_changed_is_carried_and_named(mine: Path, tmp_path: Path) -> None:
    text = SOURCE.replace("# SOLUTION\nwait", "rate = 3\n# SOLUTION\nwait")
    said = update(write(tmp_path, text), mine)

    assert by_id(loads(mine))["answer-7-1"]["source"] == "wait_s = 41"
    assert "  answer-7-1: answer carried over; what was given here has changed, compare it" in said


def test_what_a_newer_chapter_dropped_is_told(mine: Path, tmp_path: Path) -> None:
    notebook = loads(mine)
    notebook["cells"].append({**own("answer-7-9", "x = 3"), "metadata": {"tags": ["answer"]}})
    notebook["metadata"]["miniserve"]["given"] |= {"answer-7-9": "0", "gone": "1"}
    notebook["cells"].append(own("gone", "a given cell of an older chapter"))
    mine.write_text(dumps(notebook))
    said = update(write(tmp_path), mine)

    assert "  answer-7-9: the chapter no longer asks this; your answer is in the old file" in said
    assert not {"answer-7-9", "gone"} & by_id(loads(mine)).keys()


def test_a_changed_given_cell_is_given_again_and_named(mine: Path, tmp_path: Path) -> None:
    notebook = loads(mine)
    by_id(notebook)["check-7-1"]["source"] = "print('7.1  CORRECT')"
    mine.write_text(dumps(notebook))
    said = update(write(tmp_path), mine)

    assert by_id(loads(mine))["check-7-1"]["source"] == 'ch.check("7.1", wait_s)'
    assert any(line.startswith("  check-7-1: you changed a given cell") for line in said)


def test_a_renamed_notebook_knows_where_it_came_from(mine: Path, tmp_path: Path) -> None:
    renamed = mine.rename(mine.with_name("homework (2).ipynb"))
    update(write(tmp_path), renamed)
    update(write(tmp_path), renamed)

    assert by_id(loads(renamed))["answer-7-1"]["source"] == "wait_s = 41"
    names = {path.name for path in renamed.parent.iterdir()}
    assert names == {"homework (2).ipynb", "homework (2).old.ipynb", "homework (2).old2.ipynb"}


def test_what_is_no_learners_notebook_is_refused_and_left_alone(mine: Path, tmp_path: Path) -> None:
    course = write(tmp_path)
    broken = tmp_path / "07_broken.ipynb"
    broken.write_text("{")
    with pytest.raises(SetupError, match=r"07_broken\.ipynb cannot be read as a notebook"):
        update(course, broken)
    with pytest.raises(SetupError, match=r"none\.ipynb does not exist"):
        update(course, tmp_path / "none.ipynb")
    notebook = loads(mine)
    notebook["metadata"]["miniserve"]["made_from"] = {}
    mine.write_text(dumps(notebook))
    with pytest.raises(SetupError, match="is a solved notebook"):
        update(course, mine)
    assert [path.name for path in mine.parent.iterdir()] == ["07_small.ipynb"]
