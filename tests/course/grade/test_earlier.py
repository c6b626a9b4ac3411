"""Marks, the rule for late work, one learner or one question change without running the rest again."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from course.grade import toy

from miniserve.course.check.verdict import Problem, Status, Verdict
from miniserve.course.grade.books import Order
from miniserve.course.grade.earlier import again, read_earlier
from miniserve.course.grade.folder import ALL_GRADED, SOME_NOT, grade
from miniserve.course.grade.sheet import Sheet
from miniserve.course.grade.submission import Submission
from miniserve.course.grade.supervise import Grader
from miniserve.course.grade.trusted import TrustedChapter
from miniserve.errors import SetupError

Run = Callable[..., int]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, set[str]]]:
    """Grade without kernels: everything is wrong but 90.4, whose text waits. Return whose questions were asked."""
    seen: list[tuple[str, set[str]]] = []

    def graded(
        self: Grader, handed: Submission, chapter: TrustedChapter, known: Mapping[str, Verdict] | None = None
    ) -> Sheet:
        known = known or {}
        seen.append((handed.learner, chapter.questions.keys() - known.keys()))
        problem = Problem("no", "3", "It should be 4.", "Count.", "here")
        verdicts = {id_: Verdict(id_, Status.WRONG, problem, seed=len(seen)) for id_ in chapter.questions}
        verdicts["90.4"] = Verdict("90.4", Status.NOTED, note="a person will read it")
        texts = {} if "90.4" in known else {"90.4": f"-because {handed.learner}"}
        answers = {"90.1": "requests = 3"}
        return Sheet(handed, 90, {**verdicts, **known}, texts, (f"run {len(seen)}",), answers=answers)

    monkeypatch.setattr(Grader, "grade", graded)
    return seen


@pytest.fixture
def run(tmp_path: Path, chapters: Path) -> Run:
    """Return what grades the folder, with options."""
    for learner in ("ann", "007"):
        toy.hand_in(tmp_path / "in", learner, toy.answered(chapters, {"90.1": f"requests = 3  # {learner}"}))

    def go(**options: Any) -> int:
        order = Order(tmp_path / "in", sandbox="none", course_folder=chapters, package=toy.PACKAGE, **options)
        return grade(order, tmp_path / "out")[1]

    return go


def rows(path: Path) -> dict[str, dict[str, str]]:
    return {row["learner"]: row for row in csv.DictReader(path.read_text().splitlines())}


def marks(tmp_path: Path, *lines: str) -> list[Path]:
    (tmp_path / "marks.csv").write_text("\n".join(("learner,question,mark,bonus,comment", *lines)))
    return [tmp_path / "marks.csv"]


def test_marks_need_no_run_and_stand_before_what_the_check_says(
    tmp_path: Path, run: Run, asked: list[tuple[str, set[str]]]
) -> None:
    run()
    assert rows(tmp_path / "out/grades.csv")["ann"]["points"] == "0"
    asked.clear()

    code = run(marks=marks(tmp_path, "ann,90.1,1,,I accept this one", "ann,90.4,0.5,,", "007,90.2,,2,nice extra"))
    found = rows(tmp_path / "out/grades.csv")

    assert (code, asked) == (ALL_GRADED, [])
    assert (found["ann"]["90.1"], found["ann"]["90.1 state"]) == ("1", "wrong")
    assert (found["ann"]["points"], found["ann"]["to be marked"]) == ("1.5", "")
    assert (found["007"]["bonus"], found["007"]["points"], found["007"]["to be marked"]) == ("2", "2", "90.4")
    page = (tmp_path / "out/learners/ann.html").read_text()
    assert "1.00 of 1" in page
    assert "A person has marked this: 100%" in page
    assert "I accept this one" in page
    assert "wrong, marked 100%" in (tmp_path / "out/report.html").read_text()
    assert "Bonus: 2 points." in (tmp_path / "out/learners/007.html").read_text()


def test_free_text_csv_keeps_every_mark_and_comment_round_after_round(
    tmp_path: Path, run: Run, asked: list[tuple[str, set[str]]]
) -> None:
    run()
    given = marks(tmp_path, "ann,90.1,1,,-0.5: names no unit", "ann,90.4,0.25,1,'quoted", "007,90.3,,,see me")
    run(marks=given)
    first = (tmp_path / "out/free_text.csv").read_text()
    for _ in range(2):
        run(marks=[tmp_path / "out/free_text.csv"])

    assert (tmp_path / "out/free_text.csv").read_text() == first
    kept = {(row["learner"], row["question"]): row for row in csv.DictReader(first.splitlines())}
    assert kept["ann", "90.1"]["comment"] == "'-0.5: names no unit"
    assert kept["ann", "90.4"]["answer"] == "'-because ann"
    assert "<p>-0.5: names no unit</p>" in (tmp_path / "out/learners/ann.html").read_text()


def test_a_mark_for_nobody_is_told_and_the_exit_code_says_so(
    tmp_path: Path, run: Run, asked: list[tuple[str, set[str]]]
) -> None:
    run()
    code = run(marks=marks(tmp_path, "7,90.4,1,,", "ann,90.40,1,,", "ann,90.4,1,,"))

    assert code == SOME_NOT
    page = (tmp_path / "out/report.html").read_text()
    assert "there is no learner &#x27;7&#x27;; did you mean &#x27;007&#x27;?" in page
    assert "there is no question &#x27;90.40&#x27;; did you mean &#x27;90.4&#x27;?" in page
    assert rows(tmp_path / "out/grades.csv")["ann"]["points"] == "1"


def test_reading_the_results_again_changes_nothing(tmp_path: Path, run: Run, asked: list[tuple[str, set[str]]]) -> None:
    run()
    first = files(tmp_path / "out")
    asked.clear()
    run(no_run=True)

    assert asked == []
    assert files(tmp_path / "out") == first


def files(out: Path) -> dict[str, list[str]]:
    paths = sorted(path for path in out.rglob("*") if path.is_file())
    return {path.name: [line for line in path.read_text().splitlines() if "graded_at" not in line] for path in paths}


def test_one_learner_is_graded_again_and_the_others_keep_theirs(
    tmp_path: Path, run: Run, asked: list[tuple[str, set[str]]]
) -> None:
    run()
    asked.clear()
    run(regrade=["ann"], marks=marks(tmp_path, "007,90.4,1,,"))

    assert [learner for learner, _ in asked] == ["ann"]
    assert len(asked[0][1]) == 5
    assert rows(tmp_path / "out/grades.csv")["007"]["points"] == "1"


def test_one_question_is_asked_again_of_everyone_and_one_answer_of_one(
    tmp_path: Path, run: Run, asked: list[tuple[str, set[str]]]
) -> None:
    run()
    asked.clear()
    run(regrade=["90.3", "ann/90.1"])

    assert asked == [("007", {"90.3"}), ("ann", {"90.1", "90.3"})]
    told = json.loads((tmp_path / "out/results.json").read_text())["submissions"]
    texts = [question["text"] for one in told for question in one["questions"] if question["question_id"] == "90.4"]
    assert texts == ["-because 007", "-because ann"]


def test_what_has_come_since_is_told_and_graded_when_something_is(
    tmp_path: Path, chapters: Path, run: Run, asked: list[tuple[str, set[str]]]
) -> None:
    run()
    toy.hand_in(tmp_path / "in", "zoe", toy.answered(chapters, toy.RIGHT))
    toy.hand_in(tmp_path / "in", "ann", toy.answered(chapters, toy.RIGHT))
    run(no_run=True)
    page = (tmp_path / "out/report.html").read_text()
    assert "zoe/90_toy.ipynb has come since this was graded: --regrade zoe." in page
    assert "ann/90_toy.ipynb has changed since it was graded: --regrade ann." in page
    asked.clear()
    run(regrade=["007"])

    assert [learner for learner, _ in asked] == ["007", "zoe"]
    assert "ann/90_toy.ipynb has changed" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"regrade": ["bob"]}, "no learner, no question"),
        ({"regrade": ["7"]}, "did you mean '007'"),
        ({"regrade": ["ann"], "seed": 5}, "--seed 1"),
    ],
)
def test_a_part_that_is_not_there_is_refused(
    options: dict[str, Any], said: str, run: Run, asked: list[tuple[str, set[str]]]
) -> None:
    run()
    with pytest.raises(SetupError, match=said):
        run(**options)


@pytest.mark.parametrize("raw", ["", "[]", "{", '{"schema": 1}', '{"schema": 2}'])
def test_results_that_are_none_are_refused(raw: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(raw)
    with pytest.raises(SetupError, match=r"results\.json"):
        read_earlier(tmp_path)
    with pytest.raises(SetupError, match="grade once without --marks"):
        read_earlier(tmp_path / "nowhere")


def test_a_name_that_is_a_learners_is_not_a_questions() -> None:
    found = again(["6.3", "a/6.3"], ["6.3", "a"], ["6.3", "6.4"])

    assert found.open("6.3", ["6.3", "6.4"]) == {"6.3", "6.4"}
    assert found.open("a", ["6.3", "6.4"]) == {"6.3"}


def test_late_work_and_a_roster_need_no_run_either(tmp_path: Path, run: Run, asked: list[tuple[str, set[str]]]) -> None:
    due_s = 1_772_366_400  # 2026-03-01 12:00 UTC
    os.utime(tmp_path / "in/ann/90_toy.ipynb", (due_s + 90_000, due_s + 90_000))
    os.utime(tmp_path / "in/007/90_toy.ipynb", (due_s, due_s))
    run()
    asked.clear()
    (tmp_path / "late.toml").write_text("[late]\ndue = 2026-03-01T12:00:00Z\npercent_per_day = 10\n")
    (tmp_path / "roster.csv").write_text("learner,ID,Student,SIS Login ID\nann,11,Ann A,ann\nbo,12,Bo B,bo\n")
    given = marks(tmp_path, "ann,90.1,1,,", "ann,90.4,1,,", "007,90.1,1,,")
    run(marks=given, late=tmp_path / "late.toml", roster=tmp_path / "roster.csv")
    found = rows(tmp_path / "out/grades.csv")

    assert asked == []
    assert (found["ann"]["late"], found["ann"]["points"]) == ("-0.4", "1.6")
    assert (found["007"]["late"], found["007"]["points"]) == ("0", "1")
    assert (found["bo"]["points"], found["bo"]["90.1 state"]) == ("0", "not handed in")
    page = (tmp_path / "out/report.html").read_text()
    assert "Late work loses 10 % of a chapter" in page
    assert "<strong>bo</strong> has handed in no notebook." in page
    assert "007 is not on the roster." in page
    assert "in the 2nd day after it was due: 20% off" in (tmp_path / "out/learners/ann.html").read_text()
    canvas = list(csv.DictReader((tmp_path / "out/canvas.csv").read_text().splitlines()))
    assert [(row["Student"], row["ID"], row["Chapter 90: toy"]) for row in canvas] == [
        ("    Points Possible", "", "5"),
        ("Ann A", "11", "1.6"),
        ("Bo B", "12", "0"),
    ]
