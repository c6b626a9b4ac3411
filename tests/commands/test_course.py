"""`miniserve course`: its actions are the modules' own, with one line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from miniserve.__main__ import main
from miniserve.course.notebook.build import Course
from miniserve.course.notebook.notebooks import by_id, dumps, loads

START = "start_here"


def test_a_check_of_one_notebook_executes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["course", "build", "--check", START]) == 0
    assert "what their sources give" in capsys.readouterr().out


def test_an_unknown_chapter_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["course", "build", "99"]) == 2
    assert capsys.readouterr().err.startswith("miniserve: there is no source for '99' in solutions/; there are ")


def test_a_notebook_is_brought_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = loads(Course().root / f"chapters/{START}.ipynb")
    by_id(notebook)["set-learner"]["source"] = "course.set_learner('me')"
    path = tmp_path / "mine.ipynb"
    path.write_text(dumps(notebook))

    assert main(["course", "update", str(path)]) == 0
    said = capsys.readouterr().out
    assert "mine.ipynb is up to date; the old one is mine.old.ipynb" in said
    assert "set-learner: you changed a given cell" in said
    assert loads(path) == loads(Course().root / f"chapters/{START}.ipynb")


def test_a_notebook_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["course", "update", "none.ipynb"]) == 2
    assert capsys.readouterr().err == "miniserve: none.ipynb does not exist\n"


def test_every_action_has_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("build", "mutate", "update"):
        with pytest.raises(SystemExit) as ended:
            main(["course", action, "--help"])
        assert ended.value.code == 0
    assert "--every" in capsys.readouterr().out
