"""One hang or crash costs one question; our own failure is told as ours."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from course.grade import toy

from miniserve.course.check.verdict import Status, Verdict
from miniserve.course.grade.books import Order
from miniserve.course.grade.folder import grade
from miniserve.course.grade.handed_in import read_submissions
from miniserve.course.grade.normalise import normalise
from miniserve.course.grade.supervise import Judging
from miniserve.course.grade.trusted import Limits, read_course
from miniserve.course.grade.watch import NotebookRun


@pytest.fixture
def judging(tmp_path: Path, chapters: Path) -> Judging:
    course = read_course(chapters, package=toy.PACKAGE)
    toy.hand_in(tmp_path / "in", "ann", toy.answered(chapters, toy.RIGHT))
    (handed,) = read_submissions(tmp_path / "in", course)
    judging = Judging(course[90], normalise(handed, course[90]))
    judging.handed = handed  # type: ignore[attr-defined]
    return judging


def correct(*ids: str) -> dict[str, Verdict]:
    return {id_: Verdict(id_, Status.CORRECT, credit=1.0) for id_ in ids}


def test_a_cell_that_hangs_costs_its_question_and_is_left_out(judging: Judging) -> None:
    judging.take(NotebookRun(ready=True, blame="answer-90-2", why="it ran on", status=Status.TIMEOUT))

    assert judging.verdicts["90.2"].status is Status.TIMEOUT
    assert judging.open == {"90.1", "90.3", "90.4", "90.5"}
    assert {cell.id: cell.own for cell in judging.cells()}["answer-90-2"] is False


def test_what_was_judged_before_a_crash_stays(judging: Judging) -> None:
    judging.take(NotebookRun(ready=True, blame="q90.3", why="the kernel died", verdicts=correct("90.1", "90.2")))
    judging.take(NotebookRun(ready=True, done=True, verdicts=correct("90.4", "90.5")))

    states = [verdict.status for verdict in judging.sheet(judging.handed).verdicts.values()]  # type: ignore[attr-defined]
    assert states == [Status.CORRECT, Status.CORRECT, Status.CRASHED, Status.CORRECT, Status.CORRECT]


def test_a_cell_of_the_learners_own_that_crashes_goes_and_costs_nothing(judging: Judging) -> None:
    judging.take(NotebookRun(ready=True, blame="own-1", why="the kernel died"))
    judging.take(NotebookRun(ready=True, done=True, verdicts=correct("90.1", "90.2", "90.3", "90.4", "90.5")))
    sheet = judging.sheet(judging.handed)  # type: ignore[attr-defined]

    assert {verdict.status for verdict in sheet.verdicts.values()} == {Status.CORRECT}
    assert sheet.notes == ("Cell own-1 was left out: the kernel died.",)


def test_a_given_cell_that_is_late_gets_one_more_run(judging: Judging) -> None:
    wrong = {id_: Verdict(id_, Status.ERROR) for id_ in judging.open}
    judging.take(NotebookRun(ready=True, again=True, failed={"given": "late"}, late=["given"]))
    assert judging.open == wrong.keys()

    judging.take(NotebookRun(ready=True, done=True, verdicts=wrong, failed={"given": "late"}, late=["given"]))
    assert judging.open == set()


def test_a_verdict_that_was_given_counts_even_if_a_given_cell_was_late(judging: Judging) -> None:
    judging.take(
        NotebookRun(ready=True, blame="q90.2", verdicts=correct("90.1"), late=["given"], failed={"given": "x"})
    )

    assert judging.verdicts["90.1"].status is Status.CORRECT


def test_a_run_that_has_seen_what_answers_another_question_is_the_last(judging: Judging) -> None:
    late = {"own-1": "it was still running after 8 s"}
    judging.take(NotebookRun(ready=True, lent=True, blame="q90.5", why="the kernel died", failed=late, late=["own-1"]))

    assert judging.open == set()
    assert {verdict.status for verdict in judging.verdicts.values()} == {Status.CRASHED}


def test_the_first_late_cell_goes_before_the_one_that_is_blamed(judging: Judging) -> None:
    late = {"own-1": "it was still running after 8 s", "answer-90-1": "it did not let itself be interrupted"}
    judging.take(NotebookRun(ready=True, blame="answer-90-1", why="x", failed=late, late=list(late)))

    assert judging.left_out == {"own-1"}
    assert len(judging.open) == 5


def test_a_run_that_changes_nothing_is_the_last(judging: Judging) -> None:
    for _ in range(2):
        judging.take(NotebookRun(ready=True, blame="answer-90-1", why="the kernel died"))

    assert judging.open == set()
    assert {verdict.status for verdict in judging.verdicts.values()} == {Status.CRASHED}


def test_a_kernel_that_never_starts_is_our_failure(judging: Judging) -> None:
    judging.take(NotebookRun(ready=False, log="no space left"))
    sheet = judging.sheet(judging.handed)  # type: ignore[attr-defined]

    assert not sheet.graded
    assert "no space left" in sheet.broken
    assert {verdict.status for verdict in sheet.verdicts.values()} == {Status.NOT_GRADED}


def test_nbval_is_the_version_whose_inside_we_know() -> None:
    assert version("nbval") == "0.11.0"


@pytest.mark.full
def test_a_loop_costs_one_question_and_at_most_35_seconds(tmp_path: Path, chapters: Path) -> None:
    toy.hand_in(tmp_path / "in", "loop", toy.answered(chapters, {**toy.RIGHT, "90.1": "while True:\n    pass"}))
    toy.hand_in(tmp_path / "in", "exit", toy.answered(chapters, {**toy.RIGHT, "90.3": "import os\nos._exit(1)"}))
    limits = Limits(5.0, 60.0)
    order = Order(tmp_path / "in", sandbox=toy.sandbox(), limits=limits, course_folder=chapters, package=toy.PACKAGE)
    graded, code = grade(order, tmp_path)

    assert code == 0
    assert [graded.verdict("loop", id_).status.value for id_ in graded.questions] == [
        "timeout", "correct", "correct", "noted", "correct",
    ]  # fmt: skip
    assert [graded.verdict("exit", id_).status.value for id_ in graded.questions] == [
        "correct", "correct", "crashed", "noted", "correct",
    ]  # fmt: skip
