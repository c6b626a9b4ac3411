"""Weights and marks are read back, and what is wrong in them is said with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from course.grade import toy
from hypothesis import given
from hypothesis import strategies as st

from miniserve.course.grade.marks import Mark, read_marks, read_weights
from miniserve.course.grade.spreadsheet import quoted, unquoted
from miniserve.course.grade.trusted import TrustedChapter, read_course
from miniserve.errors import SetupError


@pytest.fixture
def course(chapters: Path) -> dict[int, TrustedChapter]:
    return read_course(chapters, package=toy.PACKAGE)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_weight_that_is_named_counts_and_the_others_keep_theirs(
    tmp_path: Path, course: dict[int, TrustedChapter]
) -> None:
    weights = read_weights(written(tmp_path / "w.toml", '[weights]\n"90.3" = 2.5\n"6.1" = 9\n'), course)

    assert weights == {"90.1": 1.0, "90.2": 1.0, "90.3": 2.5, "90.4": 1.0, "90.5": 1.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[weights]\n"90.9" = 1', "no question '90.9'"),
        ('[weights]\n"90.1" = -1', "0 or more"),
        ('[weights]\n"90.1" = "much"', "0 or more"),
        ('[weights]\n"90.1" = nan', "0 or more"),
        ("weights = 3", "table"),
        ("[weights", "w.toml"),
    ],
)
def test_weights_that_mean_nothing_are_refused(
    text: str, said: str, tmp_path: Path, course: dict[int, TrustedChapter]
) -> None:
    with pytest.raises(SetupError, match=said):
        read_weights(written(tmp_path / "w.toml", text), course)


def test_marks_are_read_and_empty_ones_are_not(tmp_path: Path) -> None:
    text = "learner,question,mark,comment\nann,90.4,0.5,good\nbob,90.4,,\n'=cleo,90.4, 1 ,\n"
    marks = read_marks(written(tmp_path / "m.csv", text))

    assert marks == {("ann", "90.4"): Mark(0.5, "good"), ("=cleo", "90.4"): Mark(1.0)}


@pytest.mark.parametrize("mark", ["2", "-0.1", "good", "nan"])
def test_a_mark_is_from_0_to_1(mark: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="line 2"):
        read_marks(written(tmp_path / "m.csv", f"learner,question,mark\nann,90.4,{mark}\n"))


def test_a_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="columns"):
        read_marks(written(tmp_path / "m.csv", "name,points\nann,3\n"))
    with pytest.raises(SetupError, match="does not exist"):
        read_marks(tmp_path / "nowhere.csv")


@given(st.text())
def test_no_text_is_a_formula_and_all_come_back(text: str) -> None:
    assert quoted(text)[:1] not in tuple("=+-@\t\r")
    if text[:1] != "'":
        assert unquoted(quoted(text)) == text
