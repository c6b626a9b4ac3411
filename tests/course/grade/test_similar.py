"""Answers that two learners share are a hint; short ones, and tables with one right answer, are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from course.grade import toy

from miniserve.course.check.verdict import Status, Verdict
from miniserve.course.grade.graded import Graded
from miniserve.course.grade.pages import learner_page, report_page
from miniserve.course.grade.sheet import Sheet
from miniserve.course.grade.similar import similar_answers
from miniserve.course.grade.submission import Submission
from miniserve.course.grade.trusted import TrustedChapter, read_course

CODE = """class LeastQueue:
    def choose(self, request, replicas):
        best, shortest = None, 10**9
        for view in replicas:
            if view.queue_depth < shortest:  # strictly
                best, shortest = view.replica_id, view.queue_depth
        return best
"""
OTHER = """class LeastQueue:
    def choose(self, request, replicas):
        if not replicas:
            return None
        depths = {view.replica_id: view.queue_depth for view in replicas}
        ordered = sorted(depths, key=depths.get)
        return ordered[0] if len(ordered) > 0 else None
"""
TEXT = (
    "The mean hides the slow ones, because most requests are quick and a few are not; "
    "so the average looks well while one customer in a hundred waits half a minute for the first word."
)


@pytest.fixture
def course(chapters: Path) -> dict[int, TrustedChapter]:
    return read_course(chapters, package=toy.PACKAGE)


def graded(course: dict[int, TrustedChapter], **answers: str) -> Graded:
    """Return a grading in which each learner gave one answer to 90.5."""
    return whole(course, {name: {"90.5": text} for name, text in answers.items()}, {})


def whole(course: dict[int, TrustedChapter], answers: dict[str, dict[str, str]], texts: dict[str, str]) -> Graded:
    ids = list(course[90].questions)
    sheets = [
        Sheet(
            Submission(name, 90, f"{name}.ipynb"),
            90,
            {id_: Verdict(id_, Status.CORRECT, credit=1.0) for id_ in ids},
            {"90.4": texts[name]} if name in texts else {},
            answers=answers.get(name, {}),
        )
        for name in sorted({*answers, *texts})
    ]
    return Graded(sheets, course, dict.fromkeys(ids, 1.0), {}, "none", 1)


def renamed(text: str) -> str:
    for old, new in (
        ("best", "chosen"),
        ("shortest", "least"),
        ("view", "one"),
        ("  # strictly", ""),
        ("request", "r"),
    ):
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("copy", "what"),
    [
        (CODE, "the same"),
        (f"# mine\n{CODE}\n\n", "the same"),
        (renamed(CODE), "nearly the same"),
        (CODE.replace("10**9", "10**12"), "nearly the same"),
    ],
)
def test_a_copy_is_seen_through_comments_and_names(copy: str, what: str, course: dict[int, TrustedChapter]) -> None:
    (sentence,) = similar_answers(graded(course, ann=CODE, bob=copy, cem=OTHER))

    assert sentence.startswith(f"90.5: ann and bob gave {what} code (")


def test_two_ways_are_two(course: dict[int, TrustedChapter]) -> None:
    assert similar_answers(graded(course, ann=CODE, bob=OTHER)) == []


def test_short_answers_and_tables_say_nothing(course: dict[int, TrustedChapter]) -> None:
    same = {"90.2": toy.RIGHT["90.2"], "90.3": toy.RIGHT["90.3"], "90.1": f"requests = {' + '.join('1' * 60)}"}

    assert similar_answers(whole(course, {"ann": same, "bob": same}, {})) == []


def test_texts_are_compared_by_runs_of_words(course: dict[int, TrustedChapter]) -> None:
    close = TEXT.replace("half a minute", "thirty seconds").replace("look", "Look")
    far = "Averages mix all requests. A percentile names what the unlucky ones get, report the p99."
    found = similar_answers(whole(course, {}, {"ann": TEXT, "bob": close, "cem": far}))

    assert len(found) == 1
    assert found[0].startswith("90.4: ann and bob gave nearly the same text")


def test_what_half_the_class_wrote_is_one_line_and_perhaps_obvious(course: dict[int, TrustedChapter]) -> None:
    (sentence,) = similar_answers(graded(course, **{f"learner{i:02}": CODE for i in range(12)}, zoe=OTHER))

    assert sentence.startswith("90.5: 12 of 13 learners gave the same code")
    assert sentence.endswith("Perhaps it is the obvious way.")


def test_the_hint_is_for_the_instructor_alone(course: dict[int, TrustedChapter]) -> None:
    found = graded(course, ann=CODE, bob=CODE)

    assert "ann and bob gave the same code" in report_page(found)
    assert "bob" not in learner_page(found, "ann")
