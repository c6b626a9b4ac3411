"""Weights and marks are read back, and what is wrong in them is said with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from course.grade import toy
from hypothesis import given
from hypothesis import strategies as st

from miniserve.course.grade.marks import Mark, fitting, read_marks, read_weights
from miniserve.course.grade.spreadsheet import quoted, unquoted, write_spreadsheet
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
    assert quoted(text)[:1] not in tuple("=+-@\t\r\n")
    assert unquoted(quoted(text)) == text


@pytest.mark.parametrize("comment", ["-0.5: names no unit", "=SUM(1)", "'-0.5", "''=x", "@ann", "\uff1dx", "it's"])
def test_a_comment_does_not_grow_from_one_round_to_the_next(comment: str, tmp_path: Path) -> None:
    for _ in range(3):
        (tmp_path / "m.csv").write_text(write_spreadsheet([HEAD, ["ann", "90.4", "1", "", quoted(comment)]]))
        comment_read = read_marks(tmp_path / "m.csv")["ann", "90.4"].comment

        assert comment_read == comment


def test_two_names_never_become_one() -> None:
    names = ["=x", "'=x", "''=x", "x", "'x", "+x", "-x"]

    assert len({quoted(name) for name in names}) == len(names)


HEAD = ["learner", "question", "mark", "bonus", "comment"]
TABLE = "learner,question,mark,bonus,comment\nann,90.1,0.5,,half\nbob,90.4,,2,\ncem,90.5,,,see me\n"


@pytest.mark.parametrize(
    "raw",
    [
        TABLE.encode(),
        b"\xef\xbb\xbf" + TABLE.replace("\n", "\r\n").encode(),
        TABLE.replace(",", ";").encode(),
        TABLE.replace(",", ";").replace(";0.5;", ";0,5;").encode(),
        TABLE.replace(",", "\t").encode("utf-16"),
        TABLE.replace("learner,question,mark,bonus,comment", "Learner, Question ,MARK,Bonus,Comment").encode(),
        TABLE.replace("ann,90.1,0.5,,half", '"ann","90.1","0.5","","half"').encode(),
    ],
)
def test_what_spreadsheets_save_is_read(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(raw)

    assert read_marks(tmp_path / "m.csv") == {
        ("ann", "90.1"): Mark(0.5, "half"),
        ("bob", "90.4"): Mark(None, "", 2.0),
        ("cem", "90.5"): Mark(None, "see me"),
    }


def test_another_encoding_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(TABLE.replace("half", "schön").encode("latin-1"))
    with pytest.raises(SetupError, match="save it as CSV in UTF-8"):
        read_marks(tmp_path / "m.csv")


@pytest.mark.parametrize("bonus", ["inf", "nan", "much"])
def test_a_bonus_is_a_number_of_points(bonus: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="line 2: the bonus"):
        read_marks(written(tmp_path / "m.csv", f"learner,question,mark,bonus\nann,90.4,,{bonus}\n"))


def test_two_marks_for_one_answer_are_refused_with_both_lines(tmp_path: Path) -> None:
    text = "learner,question,mark\nann,90.4,1\nann,90.4,1\nann,90.4,0.5\n"
    with pytest.raises(SetupError, match=r"line 4: ann has another mark for 90\.4 in .*line 2"):
        read_marks(written(tmp_path / "m.csv", text))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("7,90.4,1,", "there is no learner '7'; did you mean '007'?"),
        ("Ann,90.4,1,", "there is no learner 'Ann'; did you mean 'ann'?"),
        ("zoe,90.4,1,", "there is no learner 'zoe'."),
        ("ann,90.40,1,", "there is no question '90.40'; did you mean '90.4'?"),
        ("ann,90.9,1,", "there is no question '90.9'"),
        ("ann,90.1,1,Why?", "question 90.1 is not called 'Why?'; did you mean 90.4?"),
        ("ann,90.1,1,Else", "question 90.1 is not called 'Else'."),
    ],
)
def test_a_mark_for_nobody_or_nothing_is_told_and_counts_nowhere(
    line: str, said: str, tmp_path: Path, course: dict[int, TrustedChapter]
) -> None:
    marks = read_marks(written(tmp_path / "m.csv", f"learner,question,mark,title\n{line}\nann,90.5,1,\n"))
    fit, problems = fitting(marks, ["007", "ann"], course)

    assert fit == {("ann", "90.5"): Mark(1.0)}
    assert len(problems) == 1
    assert "line 2" in problems[0]
    assert said in problems[0]
