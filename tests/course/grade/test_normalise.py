"""A submission becomes the chapter's own notebook with the learner's answers, whatever was done to the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from course.grade import toy

from miniserve.course.check.verdict import Status
from miniserve.course.grade.handed_in import read_submissions
from miniserve.course.grade.normalise import Normalised, normalise
from miniserve.course.grade.trusted import TrustedChapter, read_course


@pytest.fixture
def chapter(chapters: Path) -> TrustedChapter:
    return read_course(chapters, package=toy.PACKAGE)[90]


def normal(tmp_path: Path, chapter: TrustedChapter, notebook: Any) -> Normalised:
    toy.hand_in(tmp_path / "in", "ann", notebook)
    return normalise(read_submissions(tmp_path / "in", {90: chapter})[0], chapter)


def states(found: Normalised) -> dict[str, Status]:
    return {verdict.question_id: verdict.status for verdict in found.verdicts}


def own(cell_id: str, source: str, kind: str = "code") -> dict[str, Any]:
    return {"cell_type": kind, "id": cell_id, "metadata": {}, "source": source}


def cell_of(notebook: Any, cell_id: str) -> dict[str, Any]:
    return next(cell for cell in notebook["cells"] if cell.get("id") == cell_id)


def test_an_untouched_notebook_needs_no_run(tmp_path: Path, chapters: Path, chapter: TrustedChapter) -> None:
    found = normal(tmp_path, chapter, toy.answered(chapters, {}))

    assert states(found) == dict.fromkeys(chapter.questions, Status.NOT_TRIED)
    assert not found.notes


def test_answers_run_and_checks_and_experiments_do_not(tmp_path: Path, chapters: Path, chapter: TrustedChapter) -> None:
    found = normal(tmp_path, chapter, toy.answered(chapters, toy.RIGHT))

    answers = [f"answer-90-{number}" for number in range(1, 6)]
    assert [cell.id for cell in found.cells] == ["setup", "given", *answers]
    assert {cell.id: cell.text for cell in found.cells if cell.own}["answer-90-2"] == toy.RIGHT["90.2"]
    assert found.verdicts == ()


def test_an_answer_is_found_by_its_name_when_its_id_is_gone(
    tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    notebook = toy.answered(chapters, toy.RIGHT)
    cell_of(notebook, "answer-90-2")["id"] = "changed"
    found = normal(tmp_path, chapter, notebook)

    assert next(cell for cell in found.cells if cell.id == "answer-90-2").text == toy.RIGHT["90.2"]


def test_an_answer_that_is_nowhere_is_missing(tmp_path: Path, chapters: Path, chapter: TrustedChapter) -> None:
    notebook = toy.answered(chapters, toy.RIGHT)
    notebook["cells"] = [cell for cell in notebook["cells"] if cell["id"] != "answer-90-3"]

    assert states(normal(tmp_path, chapter, notebook)) == {"90.3": Status.MISSING}


def test_cells_of_the_learners_own_stay_where_they_are(tmp_path: Path, chapters: Path, chapter: TrustedChapter) -> None:
    notebook = toy.answered(chapters, toy.RIGHT)
    at = notebook["cells"].index(cell_of(notebook, "answer-90-2"))
    notebook["cells"].insert(at, own("mine", "# NBVAL_SKIP\nfactor = 2"))
    notebook["cells"].insert(at, own("text", "words", "markdown"))
    cells = [(cell.id, cell.text) for cell in normal(tmp_path, chapter, notebook).cells]

    assert [id_ for id_, _ in cells][2:5] == ["answer-90-1", "own-1", "answer-90-2"]
    assert ("own-1", "#\nfactor = 2") in cells


def test_of_two_cells_with_one_id_the_answered_one_counts(
    tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    notebook, empty = toy.answered(chapters, toy.RIGHT), toy.answered(chapters, {})
    notebook["cells"] += empty["cells"]
    found = normal(tmp_path, chapter, notebook)

    assert states(found) == {}
    assert any("2 times" in note for note in found.notes)


def test_an_edited_check_is_noted_and_never_runs(tmp_path: Path, chapters: Path, chapter: TrustedChapter) -> None:
    notebook = toy.answered(chapters, toy.RIGHT)
    cell_of(notebook, "check-90-1")["source"] = "print('CORRECT')"
    found = normal(tmp_path, chapter, notebook)

    assert [note for note in found.notes if "check-90-1" in note]
    assert not any("CORRECT" in cell.text for cell in found.cells)


@pytest.mark.parametrize(
    "text",
    [
        "from miniserve.policies.routing.balancer import LeastQueue",
        "import miniserve.policies.routing.balancer as b\nLeastQueue = b.LeastQueue",
        "%time x = 1\nfrom miniserve.policies.routing.ties import least\nLeastQueue = least",
    ],
)
def test_what_the_answer_should_build_may_not_be_imported(
    text: str, tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    notebook = toy.answered(chapters, {**toy.RIGHT, "90.5": text})

    assert states(normal(tmp_path, chapter, notebook)) == {"90.5": Status.FORBIDDEN}


def test_an_import_in_another_cell_is_found_where_the_answer_uses_it(
    tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    notebook = toy.answered(chapters, {**toy.RIGHT, "90.5": "class LeastQueue(Theirs):\n    pass"})
    at = notebook["cells"].index(cell_of(notebook, "answer-90-5"))
    notebook["cells"].insert(at, own("mine", "from miniserve.policies.routing.balancer import LeastQueue as Theirs"))

    assert states(normal(tmp_path, chapter, notebook)) == {"90.5": Status.FORBIDDEN}


def test_to_look_at_the_library_beside_an_answer_is_allowed(
    tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    notebook = toy.answered(chapters, toy.RIGHT)
    notebook["cells"].insert(0, own("mine", "import inspect, random\nprint(inspect.getsource(random.Random))"))

    assert states(normal(tmp_path, chapter, notebook)) == {}


def test_without_a_cell_the_given_one_stands_in(tmp_path: Path, chapters: Path, chapter: TrustedChapter) -> None:
    found = normal(tmp_path, chapter, toy.answered(chapters, toy.RIGHT))
    cells = {cell.id: cell for cell in found.without(chapter, {"answer-90-1", "given"})}

    assert "given" not in cells
    assert cells["answer-90-1"].text == "requests = ..."
    assert not cells["answer-90-1"].own
    assert json.dumps([cell.text for cell in found.cells]).count("requests = ...") == 0


@pytest.mark.parametrize(
    "answer",
    [
        "class LeastQueue:\n    def choose(self, theirs, replicas):\n        return theirs",
        "theirs = None\nclass LeastQueue:\n    def choose(self, request, replicas):\n        return theirs",
    ],
)
def test_a_parameter_or_name_of_the_answers_own_is_not_another_cells(
    answer: str, tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    notebook = toy.answered(chapters, {**toy.RIGHT, "90.5": answer})
    at = notebook["cells"].index(cell_of(notebook, "answer-90-5"))
    notebook["cells"].insert(at, own("mine", "from miniserve.policies.routing.balancer import LeastQueue as theirs"))

    assert states(normal(tmp_path, chapter, notebook)) == {}
