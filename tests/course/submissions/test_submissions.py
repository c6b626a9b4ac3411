"""The six sample submissions: graded as expected, twice the same, and no older than their chapters."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from course.grade import toy
from course.submissions import make

from miniserve.course.grade.books import Order
from miniserve.course.grade.cells import same_code
from miniserve.course.grade.folder import ALL_GRADED, SOME_NOT, grade
from miniserve.course.grade.graded import Graded
from miniserve.course.notebook.build import Course
from miniserve.course.notebook.notebooks import dumps
from miniserve.course.notebook.source import read_source

HERE = Path(__file__).parent
LEARNERS = {"broken", "cheating", "half-done", "loop", "perfect", "wrong"}
EVERY_CHAPTER = [source.number for source in map(read_source, Course().sources()) if source.number]


def answers(notebook: dict[str, Any]) -> dict[str, str]:
    return {
        cell["metadata"]["question"]: "".join(cell["source"])
        for cell in notebook["cells"]
        if "question" in cell["metadata"]
    }


def test_the_six_are_there_for_every_chapter() -> None:
    assert {path.parent.name for path in HERE.glob("*/*.ipynb")} == LEARNERS
    assert len(list(HERE.glob("*/*.ipynb"))) == len(LEARNERS) * len(make.CHAPTERS)


@pytest.mark.parametrize("number", make.CHAPTERS)
def test_the_perfect_one_is_what_the_chapter_asks_today(number: int) -> None:
    name, _, right = make.solved(number)
    stored = answers(json.loads((HERE / "perfect" / f"{name}.ipynb").read_text(encoding="utf-8")))
    stale = [id_ for id_ in right if id_ not in stored or not same_code(stored[id_], right[id_])]

    assert stale == [], "run: PYTHONPATH=tests python -m course.submissions.make"
    assert stored.keys() == right.keys()


def states(graded: Graded, learner: str) -> Counter[str]:
    return Counter(graded.verdict(learner, id_).status.value for id_ in graded.questions)


@pytest.mark.full
def test_the_samples_get_the_expected_table_twice_the_same(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    folder = tmp_path / "in"
    for path in HERE.glob("*/*.ipynb"):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / path.parent.name / path.name).write_bytes(path.read_bytes())
    one, code = grade(Order(folder, sandbox=toy.sandbox()), tmp_path / "one")
    grade(Order(folder, sandbox=toy.sandbox()), tmp_path / "two")
    record_property("notebooks", 2 * len(one.sheets))

    by_hand = sum(q.graded_by_hand for chapter in one.course.values() for q in chapter.questions.values())
    asked, chapters = len(one.questions), len(one.course)
    assert code == SOME_NOT
    assert states(one, "perfect") == {"correct": asked - by_hand, "noted": by_hand}
    assert states(one, "loop") == {"correct": asked - by_hand - chapters, "timeout": chapters, "noted": by_hand}
    assert states(one, "broken") == {"unreadable": asked}
    half = states(one, "half-done")
    assert half["correct"] + half["noted"] == asked - half["not tried"]
    assert half["not tried"] == sum(-(-len(chapter.questions) // 2) for chapter in one.course.values())
    for learner in ("wrong", "cheating"):
        assert not {"correct", "noted"} & states(one, learner).keys()
    assert one.points("cheating") == 0
    for path in (tmp_path / "one").rglob("*"):
        if path.is_file():
            assert timeless(path) == timeless(tmp_path / "two" / path.relative_to(tmp_path / "one"))


@pytest.mark.full
def test_ten_learners_who_hand_in_every_chapter_get_what_they_earned(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Eight solved everything, each with numbers of their own, one gave the bank's wrong answers, one did nothing."""
    for number in sorted(EVERY_CHAPTER):
        name, empty, right = make.solved(number)
        names = {id_: question.name for id_, question in Course().questions(number).items()}
        given = {"wrong": make.wrong(number, names), "idle": {}, **{f"solved-{i}": right for i in range(8)}}
        for learner, texts in given.items():
            (tmp_path / "in" / learner).mkdir(parents=True, exist_ok=True)
            handed = dumps(make.answered(empty, texts))
            (tmp_path / "in" / learner / f"{name}.ipynb").write_text(handed, encoding="utf-8")
    started_s = time.perf_counter()
    graded, code = grade(Order(tmp_path / "in", sandbox=toy.sandbox(), jobs=2), tmp_path / "out")
    record_property("notebooks", len(graded.sheets))
    record_property("seconds", round(time.perf_counter() - started_s))

    assert code == ALL_GRADED
    for i in range(8):
        assert states(graded, f"solved-{i}").keys() == {"correct", "noted"}, f"solved-{i}"
    assert states(graded, "idle").keys() == {"not tried"}
    assert "wrong" in states(graded, "wrong")
    assert not {"correct", "noted"} & states(graded, "wrong").keys()


def timeless(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if "graded_at" not in line]
