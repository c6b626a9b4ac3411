"""Whatever lies in the folder is read or named; nothing in it raises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from course.grade import toy

from miniserve.course.grade import reading
from miniserve.course.grade.submission import Submission, read_submissions
from miniserve.course.grade.trusted import TrustedChapter, read_course
from miniserve.errors import SetupError


@pytest.fixture
def course(chapters: Path) -> dict[int, TrustedChapter]:
    return read_course(chapters, package=toy.PACKAGE)


def read(folder: Path, course: dict[int, TrustedChapter]) -> list[Submission]:
    return read_submissions(folder / "in", course)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "JSONDecodeError"),
        ("", "JSONDecodeError"),
        ("[]", "no list of cells"),
        ('{"worksheets": []}', "no list of cells"),
        ('{"cells": ' + "[" * 200_000 + "]" * 200_000 + "}", "RecursionError"),
        ('{"cells": [], "n": ' + "9" * 5_000 + "}", "ValueError"),
    ],
)
def test_a_file_that_is_no_notebook_is_unreadable_with_a_sentence(
    text: str, said: str, tmp_path: Path, course: dict[int, TrustedChapter]
) -> None:
    toy.hand_in(tmp_path / "in", "ann", text)
    (one,) = read(tmp_path, course)

    assert (one.learner, one.chapter, one.cells) == ("ann", 90, ())
    assert said in one.problem


def test_other_bytes_than_utf8_are_unreadable(tmp_path: Path, course: dict[int, TrustedChapter]) -> None:
    (tmp_path / "in/ann").mkdir(parents=True)
    (tmp_path / "in/ann/90_toy.ipynb").write_bytes('{"cells": []}'.encode("utf-16"))

    assert "UnicodeDecodeError" in read(tmp_path, course)[0].problem


def test_a_link_is_not_followed(tmp_path: Path, chapters: Path, course: dict[int, TrustedChapter]) -> None:
    (tmp_path / "in/ann").mkdir(parents=True)
    (tmp_path / "in/ann/90_toy.ipynb").symlink_to(chapters / "90_toy.ipynb")

    assert "link" in read(tmp_path, course)[0].problem


def test_a_huge_file_is_not_read(
    tmp_path: Path, course: dict[int, TrustedChapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FILE_LIMIT_BYTES", 10)
    toy.hand_in(tmp_path / "in", "ann", '{"cells": []}')

    assert "13 bytes" in read(tmp_path, course)[0].problem


def test_a_renamed_file_is_recognised_by_its_cells(
    tmp_path: Path, chapters: Path, course: dict[int, TrustedChapter]
) -> None:
    toy.hand_in(tmp_path / "in", "ann", toy.answered(chapters, {}), "homework final.ipynb")
    (one,) = read(tmp_path, course)

    assert (one.chapter, one.problem) == (90, "")
    assert "homework final" in one.notes[0]


def test_a_notebook_of_no_chapter_is_named(tmp_path: Path, course: dict[int, TrustedChapter]) -> None:
    toy.hand_in(tmp_path / "in", "ann", '{"cells": []}', "diary.ipynb")

    assert read(tmp_path, course)[0].problem.startswith("No chapter")


def test_of_copies_the_one_with_the_plain_name_counts(
    tmp_path: Path, chapters: Path, course: dict[int, TrustedChapter]
) -> None:
    for name in ("90_toy (1).ipynb", "90_toy.ipynb", "90_toy-Copy1.ipynb"):
        toy.hand_in(tmp_path / "in", "ann", toy.answered(chapters, {}), name)
    (one,) = read(tmp_path, course)

    assert one.file == "ann/90_toy.ipynb"
    assert len([note for note in one.notes if "left out" in note]) == 2


def test_a_flat_folder_names_the_learner_in_the_file(
    tmp_path: Path, chapters: Path, course: dict[int, TrustedChapter]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/ann__90_toy.ipynb").write_text(json.dumps(toy.answered(chapters, {})))

    assert [(one.learner, one.chapter, one.problem) for one in read(tmp_path, course)] == [("ann", 90, "")]


def test_cells_that_are_none_are_left_out(tmp_path: Path, chapters: Path, course: dict[int, TrustedChapter]) -> None:
    notebook = toy.answered(chapters, toy.RIGHT)
    notebook["cells"][:0] = [None, 7, {"source": 7}, {"id": {}, "cell_type": "code", "source": ["\ud800"]}]
    toy.hand_in(tmp_path / "in", "ann", notebook)
    (one,) = read(tmp_path, course)

    assert len(one.cells) == len(notebook["cells"]) - 3
    assert one.cells[0].text == "?"


def test_a_folder_without_notebooks_is_refused(tmp_path: Path, course: dict[int, TrustedChapter]) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(SetupError, match="no notebooks"):
        read(tmp_path, course)
    with pytest.raises(SetupError, match="not a folder"):
        read_submissions(tmp_path / "nowhere", course)
