"""A question is asked where its check stands, and what ends or hides an answer costs that answer and no other."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from course.grade import toy

from miniserve.course.check.verdict import Status, Verdict
from miniserve.course.grade.books import Order
from miniserve.course.grade.folder import grade
from miniserve.course.grade.graded import Graded
from miniserve.course.grade.handed_in import read_submissions
from miniserve.course.grade.judge import lends
from miniserve.course.grade.normalise import Normalised, normalise
from miniserve.course.grade.supervise import Judging
from miniserve.course.grade.trusted import Limits, TrustedChapter, read_course
from miniserve.course.grade.watch import NotebookRun

HONEST = ["correct", "correct", "correct", "noted", "correct"]


@pytest.fixture
def chapter(chapters: Path) -> TrustedChapter:
    return read_course(chapters, package=toy.PACKAGE)[90]


def own(source: str, cell_id: str = "mine") -> dict[str, Any]:
    return {"cell_type": "code", "id": cell_id, "metadata": {}, "source": source}


def place(notebook: Any, cell_id: str) -> int:
    return next(i for i, cell in enumerate(notebook["cells"]) if cell.get("id") == cell_id)


def after(notebook: Any, cell_id: str, *cells: dict[str, Any]) -> Any:
    at = place(notebook, cell_id) + 1
    notebook["cells"][at:at] = cells
    return notebook


def normal(tmp_path: Path, chapter: TrustedChapter, notebook: Any, name: str = "90_toy.ipynb") -> Normalised:
    toy.hand_in(tmp_path / "in", "ann", notebook, name)
    return normalise(read_submissions(tmp_path / "in", {90: chapter})[0], chapter)


def asks(found: Normalised) -> list[tuple[str, tuple[str, ...]]]:
    return [(cell.id, cell.asks) for cell in found.cells if cell.asks]


# --- where ----------------------------------------------------------------------------------------------------------


def test_each_question_is_asked_after_its_answer_and_before_what_follows_the_check(
    tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    notebook = after(toy.answered(chapters, toy.RIGHT), "answer-90-1", own("requests += 0"))
    found = normal(tmp_path, chapter, after(notebook, "check-90-1", own("scratch = 3", "more")))

    assert asks(found)[:2] == [("own-1", ("90.1",)), ("answer-90-2", ("90.2",))]
    assert [cell.id for cell in found.cells][2:6] == ["answer-90-1", "own-1", "own-2", "answer-90-2"]


@pytest.mark.parametrize(
    "below",
    [
        "waits = None",
        "waits.append('x')",
        "del waits[0]",
        "from math import *\nwaits = e",
        "class waits: pass",
        "for waits in range(3): pass",
        "ch.check('90.3', waits)",
    ],
)
def test_a_later_use_of_the_name_is_one_more_chance_and_never_the_only_one(
    below: str, tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    notebook = after(toy.answered(chapters, toy.RIGHT), "check-90-4", own(below))

    assert [id_ for id_, asked in asks(normal(tmp_path, chapter, notebook)) if "90.3" in asked] == [
        "answer-90-3",
        "own-1",
    ]


def test_many_chances_are_few_in_the_end(tmp_path: Path, chapters: Path, chapter: TrustedChapter) -> None:
    guesses = [own(f"waits = [{i}]\nch.check('90.3', waits)", f"guess-{i}") for i in range(30)]
    found = normal(tmp_path, chapter, after(toy.answered(chapters, toy.RIGHT), "check-90-3", *guesses))

    assert sum("90.3" in asked for _, asked in asks(found)) == 4


def test_what_a_left_out_cell_asked_is_asked_before_it(tmp_path: Path, chapters: Path, chapter: TrustedChapter) -> None:
    notebook = after(toy.answered(chapters, toy.RIGHT), "answer-90-1", own("requests += 0"))
    cells = {cell.id: cell for cell in normal(tmp_path, chapter, notebook).without(chapter, {"own-1", "answer-90-2"})}

    assert cells["answer-90-1"].asks == ("90.1",)
    assert cells["answer-90-2"].asks == ("90.2",)


def test_a_deleted_check_is_asked_where_the_chapter_has_it(
    tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    notebook = toy.answered(chapters, toy.RIGHT)
    del notebook["cells"][place(notebook, "check-90-2")]

    assert asks(normal(tmp_path, chapter, notebook))[1] == ("answer-90-2", ("90.2",))


# --- which cell is which --------------------------------------------------------------------------------------------

DRAFT = "in_system = lambda rate, time_s: 0"


@pytest.mark.parametrize("below", ["answer-90-2", "check-90-2", "check-90-5"])
def test_of_two_cells_with_one_id_the_last_before_the_check_counts(
    below: str, tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    notebook = toy.answered(chapters, toy.RIGHT)
    if below == "answer-90-2":  # the draft stands above
        notebook["cells"].insert(place(notebook, below), own(DRAFT, "answer-90-2"))
    else:
        after(notebook, below, own(DRAFT, "answer-90-2"))
    found = normal(tmp_path, chapter, notebook)

    assert found.answers["90.2"] == toy.RIGHT["90.2"]
    assert [cell.text for cell in found.cells if cell.id.startswith("own")] == [DRAFT]


def test_a_copied_cell_that_keeps_its_id_but_says_something_else_still_runs(
    tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    notebook = after(toy.answered(chapters, toy.RIGHT), "given", own("factor = 2", "given"))

    assert ("own-1", "factor = 2") in [(cell.id, cell.text) for cell in normal(tmp_path, chapter, notebook).cells]


def without_ids(notebook: Any) -> Any:
    for number, cell in enumerate(notebook["cells"]):
        del cell["id"]
        cell["metadata"] = {"id": f"colab-{number}"}
    return notebook


def with_new_ids(notebook: Any) -> Any:
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"{number:08x}"
    return notebook


def with_ids_in_the_metadata(notebook: Any) -> Any:
    for cell in notebook["cells"]:
        cell["metadata"] = {"id": cell.pop("id")}
    return notebook


@pytest.mark.parametrize("change", [without_ids, with_new_ids, with_ids_in_the_metadata])
@pytest.mark.parametrize("name", ["90_toy.ipynb", "Untitled3.ipynb"])
def test_without_ids_each_cell_is_still_found(
    change: Any, name: str, tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    plain = normal(tmp_path / "plain", chapter, toy.answered(chapters, toy.RIGHT))
    found = normal(tmp_path / "odd", chapter, change(toy.answered(chapters, toy.RIGHT)), name)

    assert found.cells == plain.cells
    assert found.answers == plain.answers
    assert [note for note in found.notes if "file is called" not in note] == []


def test_without_ids_the_answer_before_the_check_is_found_and_the_draft_below_is_not(
    tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    notebook = after(toy.answered(chapters, toy.RIGHT), "check-90-2", own(DRAFT))

    assert normal(tmp_path, chapter, without_ids(notebook)).answers["90.2"] == toy.RIGHT["90.2"]


def test_an_untouched_notebook_without_ids_needs_no_run(
    tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    found = normal(tmp_path, chapter, without_ids(toy.answered(chapters, {})))

    assert {verdict.status for verdict in found.verdicts} == {Status.NOT_TRIED}
    assert len(found.verdicts) == 5


def test_one_cell_may_answer_two_questions(tmp_path: Path, chapters: Path, chapter: TrustedChapter) -> None:
    notebook = with_new_ids(toy.answered(chapters, toy.RIGHT))
    at = next(i for i, cell in enumerate(notebook["cells"]) if cell["source"] == toy.RIGHT["90.1"])
    notebook["cells"][at]["source"] = f"{toy.RIGHT['90.1']}\n{toy.RIGHT['90.2']}"
    notebook["cells"] = [cell for cell in notebook["cells"] if cell["source"] != toy.RIGHT["90.2"]]

    assert normal(tmp_path, chapter, notebook).verdicts == ()


@pytest.mark.parametrize("magic", ["%%timeit", "%%timeit -n1 -r1", "%%bash", "%%capture\n%%timeit"])
def test_a_magic_that_keeps_no_names_is_said(
    magic: str, tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    answers = {**toy.RIGHT, "90.2": f"{magic}\n{toy.RIGHT['90.2']}"}
    (verdict,) = normal(tmp_path, chapter, toy.answered(chapters, answers)).verdicts

    assert verdict.status is Status.MISSING
    assert verdict.problem is not None
    assert "leaves no names" in verdict.problem.why


def test_a_check_that_was_given_another_name_is_told(tmp_path: Path, chapters: Path, chapter: TrustedChapter) -> None:
    notebook = toy.answered(chapters, toy.RIGHT)
    notebook["cells"][place(notebook, "check-90-3")]["source"] = 'ch.check("90.3", my_waits)'

    assert (
        "check-90-3 was given my_waits; the answer that counts is called waits."
        in normal(tmp_path, chapter, notebook).notes
    )


# --- who is to blame --------------------------------------------------------------------------------------------------


def correct(*ids: str) -> dict[str, Verdict]:
    return {id_: Verdict(id_, Status.CORRECT, credit=1.0) for id_ in ids}


def test_a_given_cell_is_not_blamed_for_a_kernel_that_a_learner_ended(
    tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    notebook = after(toy.answered(chapters, toy.RIGHT), "setup", own("start_a_slow_end()"))
    judging = Judging(chapter, normal(tmp_path, chapter, notebook))
    judging.take(NotebookRun(ready=True, blame="given", why="the kernel died"))

    assert judging.left_out == {"own-1"}


@pytest.mark.parametrize("all_right", [True, False])
def test_failures_of_given_cells_are_no_news_and_of_own_cells_only_where_a_question_is_lost(
    all_right: bool, tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    notebook = after(toy.answered(chapters, toy.RIGHT), "setup", own("oops"))
    toy.hand_in(tmp_path / "in", "ann", notebook)
    (handed,) = read_submissions(tmp_path / "in", {90: chapter})
    judging = Judging(chapter, normalise(handed, chapter))
    verdicts = correct(*chapter.questions)
    if not all_right:
        verdicts["90.3"] = Verdict("90.3", Status.WRONG)
    failed = {"given": "NameError: name 'rows' is not defined", "own-1": "NameError: name 'oops' is not defined"}
    judging.take(NotebookRun(ready=True, done=True, verdicts=verdicts, failed=failed))

    assert len(judging.sheet(handed).notes) == (0 if all_right else 1)


# --- with kernels -----------------------------------------------------------------------------------------------------


def graded(tmp_path: Path, chapters: Path, notebooks: dict[str, Any]) -> Graded:
    for learner, notebook in notebooks.items():
        toy.hand_in(tmp_path / "in", learner, notebook)
    order = Order(tmp_path / "in", limits=Limits(8.0, 90.0), jobs=2, course_folder=chapters, package=toy.PACKAGE)
    return grade(order, tmp_path / "out")[0]


def states(found: Graded, learner: str) -> list[str]:
    return [found.verdict(learner, id_).status.value for id_ in found.questions]


def spoilt_below(chapters: Path) -> Any:
    """Return a right notebook in which every name is used again below its check."""
    notebook = toy.answered(chapters, {**toy.RIGHT, "90.5": f"%%time\n{toy.RIGHT['90.5']}"})
    after(notebook, "setup", own("!rm -rf $PWD/*\nimport os\nos.chdir('/')"))
    after(notebook, "check-90-1", own("requests = [r for r in range(3)]  # scratch"))
    after(notebook, "check-90-2", own("in_system = None"))
    after(notebook, "check-90-3", own("waits.clear()\nfrom math import *"))
    after(notebook, "check-90-5", own("class LeastQueue: pass"), own("del reason, waits\nquit()"))
    return notebook


def ended_in_the_middle(chapters: Path) -> Any:
    """Return a notebook without ids in which one answer asks for input, and one leaves."""
    answers = {**toy.RIGHT, "90.1": "requests = float(input())", "90.2": f"{toy.RIGHT['90.2']}\nexit()"}
    return without_ids(toy.answered(chapters, answers))


def test_what_the_learner_saw_counts_and_exit_costs_its_own_question(tmp_path: Path, chapters: Path) -> None:
    found = graded(tmp_path, chapters, {"reuse": spoilt_below(chapters), "leaves": ended_in_the_middle(chapters)})

    assert states(found, "reuse") == HONEST
    assert states(found, "leaves") == ["error", "crashed", *HONEST[2:]]
    assert "input() gets no answer" in "\n".join(found.verdict("leaves", "90.1").lines())
    assert "exit()" in "\n".join(found.verdict("leaves", "90.2").lines())


@pytest.mark.full
def test_every_way_to_leave_costs_one_question(tmp_path: Path, chapters: Path) -> None:
    ways = {
        "exit": "\nexit()",
        "quit": "\nquit()",
        "exit-0": "\nexit(0)",
        "ask-exit": "\nget_ipython().ask_exit()",
        "shutdown": "\nget_ipython().kernel.do_shutdown(False)",
    }
    notebooks = {
        name: toy.answered(chapters, {**toy.RIGHT, "90.2": toy.RIGHT["90.2"] + way}) for name, way in ways.items()
    }
    keeps = "def in_system(rate, time_s):\n    exit(keep_kernel=True)\n    return rate * time_s"
    notebooks["keeps"] = toy.answered(chapters, {**toy.RIGHT, "90.2": keeps})
    notebooks["asked"] = toy.answered(chapters, {**toy.RIGHT, "90.2": keeps.replace("keep_kernel=True", "")})
    notebooks["own"] = after(toy.answered(chapters, toy.RIGHT), "check-90-2", own("quit()"))
    notebooks["later"] = after(
        toy.answered(chapters, {**toy.RIGHT, "90.3": "waits = [1.0]"}), "check-90-4", own(toy.RIGHT["90.3"])
    )
    found = graded(tmp_path, chapters, notebooks)

    for name in ("keeps", "own", "later"):
        assert states(found, name) == HONEST, name
    for name in (*ways, "asked"):
        assert states(found, name) == ["correct", "crashed", *HONEST[2:]], name


def test_a_question_that_lends_the_answers_of_others_waits_for_a_run_of_its_own(
    tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    question = chapter.questions["90.3"]
    lending = dataclasses.replace(
        chapter.questions["90.5"],
        id="90.3",
        name="waits",
        lends=(sorted,),
    )
    chapter = dataclasses.replace(chapter, questions={**chapter.questions, "90.3": lending})
    judging = Judging(chapter, normal(tmp_path, chapter, toy.answered(chapters, toy.RIGHT)))
    assert not lends(question)
    assert judging.next == {"90.1", "90.2", "90.4", "90.5"}

    judging.take(NotebookRun(ready=True, done=True, verdicts=correct("90.1", "90.2", "90.4", "90.5")))
    assert (judging.broken, judging.next) == ("", {"90.3"})

    judging.take(NotebookRun(ready=True, done=True, verdicts={}))
    assert "without a verdict on 90.3" in judging.broken
