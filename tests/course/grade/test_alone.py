"""No submission ends a grading: whatever it holds, the others get their sheets, and what is ready stays ready."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from course.grade import toy

from miniserve.commands.grade import _progress
from miniserve.course.check.verdict import Status, Verdict
from miniserve.course.grade import cells, folder, supervise
from miniserve.course.grade.books import Order
from miniserve.course.grade.clean import remove
from miniserve.course.grade.find import Found, find_files
from miniserve.course.grade.folder import ALL_GRADED, NO_GRADING, SOME_NOT, Grading, grade
from miniserve.course.grade.graded import Graded
from miniserve.course.grade.handed_in import read_submissions
from miniserve.course.grade.normalise import normalise
from miniserve.course.grade.sheet import Sheet
from miniserve.course.grade.supervise import Grader, Settings
from miniserve.course.grade.trusted import TrustedChapter, read_course
from miniserve.course.grade.watch import NotebookRun


@pytest.fixture
def chapter(chapters: Path) -> TrustedChapter:
    return read_course(chapters, package=toy.PACKAGE)[90]


def order(tmp_path: Path, chapters: Path, **rest: Any) -> Order:
    return Order(tmp_path / "in", sandbox="none", course_folder=chapters, package=toy.PACKAGE, **rest)


def runs(monkeypatch: pytest.MonkeyPatch, run: Callable[..., NotebookRun] | None = None) -> list[str]:
    """Let `run` stand in for all runs of notebooks, by default one in which all is right; return who was run."""
    seen: list[str] = []

    def stand_in(self: Grader, handed: Any, chapter: TrustedChapter, judging: Any) -> NotebookRun:
        seen.append(handed.learner)
        if run is not None:
            return run(handed)
        noted = {"90.4": Verdict("90.4", Status.NOTED)}
        right = {id_: Verdict(id_, Status.CORRECT, credit=1.0) for id_ in judging.open} | noted
        return NotebookRun(ready=True, done=True, verdicts=right, texts={"90.4": "a text"})

    monkeypatch.setattr(Grader, "_run", stand_in)
    return seen


# --- texts that take Python's parser to its limits ------------------------------------------------------------------

DEEP = {
    "a deep tree": "x = lambda: a" + ".b" * 1_500,
    "a deeper one": "x = lambda: a" + ".b" * 95_000,
    "a long sum": "x = " + "+".join("1" for _ in range(90_000)),
    "many subscripts": "x = a" + "[0]" * 60_000,
    "many calls": "x = a" + "()" * 90_000,
    "many signs": "z = lambda: " + "-" * 50_000 + "1",
    "many nots": "x = " + "not " * 40_000 + "1",
    "many lambdas": "x = " + "lambda: " * 20_000 + "1",
    "many brackets": "x = " + "(" * 5_000 + ")" * 5_000,
    "many exponents": "x = " + "a**" * 40_000 + "1",
    "a call of a deep name": "a" + ".b" * 1_500 + ".getsource(x)",
    "many magics": "%time\n" * 3_000 + "x = ",
    "a null byte": "x = 1\0",
    "a form of indentation": "if 1:\n" + "".join(" " * n + "if 1:\n" for n in range(1, 99)) + " " * 99 + "pass",
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP.keys())
def test_no_text_ends_the_reading_of_a_notebook(
    text: str, tmp_path: Path, chapters: Path, chapter: TrustedChapter
) -> None:
    own = {"cell_type": "code", "id": "mine", "metadata": {}, "source": text}
    for place, answers in enumerate(
        [{**toy.RIGHT, "90.5": text}, {**toy.RIGHT, "90.5": f"{toy.RIGHT['90.5']}\n{text}"}]
    ):
        notebook = toy.answered(chapters, answers)
        notebook["cells"].insert(3, own)
        toy.hand_in(tmp_path / "in", f"learner-{place}", notebook)
    found = [normalise(one, chapter) for one in read_submissions(tmp_path / "in", {90: chapter})]

    for one in found:
        assert {"answer-90-1", "answer-90-5", "own-1"} <= {cell.id for cell in one.cells}
        assert {verdict.question_id for verdict in one.verdicts} <= {"90.5"}


def test_a_text_that_takes_too_long_is_unknown_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = f"""import json, runpy, sys
known = runpy.run_path({cells.facts.__file__!r})
for text in json.load(sys.stdin):
    while "without end" in text: pass
    print(json.dumps(known["cell_facts"](text)), flush=True)"""
    (tmp_path / "slow.py").write_text(slow)
    monkeypatch.setattr(cells.facts, "__file__", str(tmp_path / "slow.py"))
    monkeypatch.setattr(cells, "_READING_CPU_S", 2)
    cells.learn(["y = 1", "x = 'without end'"])

    assert "y" in cells.names("y = 1").binds
    assert not cells.names("x = 'without end'").known
    assert cells.same_code("x = 'without end'", "x = 'without end'\n")
    assert cells.forbidden("x = 'without end'", frozenset({"x"})) is None


def test_each_cell_is_read_once_however_many_questions_there_are(
    tmp_path: Path, chapters: Path, chapter: TrustedChapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = toy.answered(chapters, toy.RIGHT)
    for number in range(30):
        notebook["cells"].append({"cell_type": "code", "id": f"n{number}", "metadata": {}, "source": f"x{number} = 1"})
    toy.hand_in(tmp_path / "in", "ann", notebook)
    (handed,) = read_submissions(tmp_path / "in", {90: chapter})
    read: list[int] = []
    monkeypatch.setattr(cells, "_read", lambda texts, real=cells._read: read.append(1) or real(texts))
    normalise(handed, chapter)

    assert len(read) == 1


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: {"cells": [{"cell_type": "code", "source": ""}] * 2_001}, "2,001 code cells; the limit is 2,000"),
        (
            lambda: {"cells": [{"cell_type": "code", "source": "x" * 199_999}] * 11},
            "characters; the limit is 2,000,000",
        ),
        (lambda: {"cells": [{}] * 300_001}, "300,002 objects; the limit is 300,000"),
        (lambda: {"cells": [[]] * 300_001}, "300,002 lists"),
        (lambda: {"cells": [0] * 3_000_002}, "commas; the limit is 3,000,000"),
        (lambda: {"cells": [], "metadata": ['\\"' * 3_000_001]}, "quotes; the limit"),
    ],
    ids=["cells", "characters", "objects", "lists", "commas", "quotes"],
)
def test_what_is_too_much_is_refused_with_a_number(
    made: Callable[[], Any], said: str, tmp_path: Path, chapter: TrustedChapter
) -> None:
    toy.hand_in(tmp_path / "in", "ann", json.dumps(made()))

    assert said in read_submissions(tmp_path / "in", {90: chapter})[0].problem


def test_a_file_that_cannot_be_opened_is_unreadable(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "link.ipynb").symlink_to("/etc/passwd")

    assert [Found(name, source=tmp_path / name).read()[1] for name in ("pipe.ipynb", "link.ipynb")] == [
        "It is a link or no ordinary file, so it was not read."
    ] * 2
    assert "No such file" in Found("nowhere", source=tmp_path / "nowhere.ipynb").read()[1]


def test_folders_nested_without_end_are_not_followed(tmp_path: Path) -> None:
    top, before = tmp_path / "ann", Path.cwd()
    (top / "a").mkdir(parents=True)
    (top / "a" / "one.ipynb").touch()
    (top / ".hidden").mkdir()
    (top / ".hidden" / "two.ipynb").touch()
    os.chdir(top)
    try:
        for _ in range(1_500):
            os.mkdir("d")
            os.chdir("d")
        Path("three.ipynb").touch()
    finally:
        os.chdir(before)

    found = find_files(tmp_path)
    assert [one.path for one in found if not one.ignored] == ["ann/a/one.ipynb"]
    assert {one.ignored for one in found} == {"", "hidden", "a folder too deep inside others"}
    remove(top)  # pytest's own way would go too deep


# --- each sheet stands alone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("x"), RecursionError("deep"), MemoryError(), OSError(28, "No space left"), KeyError("k")]
)
def test_a_failure_at_one_submission_is_told_on_its_sheet(
    error: Exception, tmp_path: Path, chapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(handed: Any) -> NotebookRun:
        if handed.learner == "bob":
            raise error
        return NotebookRun(ready=True, done=True, verdicts=right)

    right = {id_: Verdict(id_, Status.CORRECT, credit=1.0) for id_ in toy.RIGHT}
    runs(monkeypatch, run)
    for learner in ("ann", "bob", "cleo"):
        toy.hand_in(tmp_path / "in", learner, toy.answered(chapters, toy.RIGHT))
    graded, code = grade(order(tmp_path, chapters), tmp_path / "out")

    assert code == NO_GRADING
    assert [graded.verdict(learner, "90.1").status for learner in ("ann", "bob", "cleo")] == [
        Status.CORRECT, Status.NOT_GRADED, Status.CORRECT,
    ]  # fmt: skip
    assert type(error).__name__ in graded.of("bob")[0].broken
    assert type(error).__name__ in (tmp_path / "out/report.html").read_text()
    assert "5 of 5" not in (tmp_path / "out/learners/bob.html").read_text()


@pytest.mark.parametrize(
    ("raw", "learner"),
    [
        (b"ren\xe9", "rené"),
        ("x" * 255, "x" * 255),
        ("ä" * 127, "ä" * 127),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        ("=x", "=x"),
    ],
)
def test_a_learner_with_an_odd_name_is_graded_like_the_others(
    raw: bytes | str, learner: str, tmp_path: Path, chapters: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    runs(monkeypatch)
    toy.hand_in(tmp_path / "in", "ann", toy.answered(chapters, toy.RIGHT))
    odd = os.path.join(os.fsencode(tmp_path / "in"), os.fsencode(raw))
    os.mkdir(odd)
    with open(os.path.join(odd, b"90_toy.ipynb"), "w") as file:
        json.dump(toy.answered(chapters, toy.RIGHT), file)
    graded, code = grade(order(tmp_path, chapters, told=_progress()), tmp_path / "out")
    printed = capsys.readouterr().out

    assert code == ALL_GRADED
    assert graded.points(learner) == graded.points("ann") == 4
    assert len(list((tmp_path / "out/learners").iterdir())) == 2
    assert printed.count("\n") == 2
    assert "\x1b" not in printed


def test_the_id_of_a_learner_with_an_odd_name_reaches_the_kernel(
    tmp_path: Path, chapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In René's own notebook the numbers are drawn for the same id, written as UTF-8."""
    jobs: list[str] = []

    def watched(job: Any, folder: Path, room: Any, *rest: Any) -> NotebookRun:
        jobs.append((room.given / "learner_id.txt").read_text(encoding="utf-8"))
        return NotebookRun(ready=False)

    monkeypatch.setattr(supervise, "watch", watched)
    os.makedirs(os.fsencode(tmp_path) + b"/in/ren\xe9")
    with open(os.fsencode(tmp_path) + b"/in/ren\xe9/90_toy.ipynb", "w") as file:
        json.dump(toy.answered(chapters, toy.RIGHT), file)
    grade(order(tmp_path, chapters), tmp_path / "out")

    assert jobs == ["rené"]


def test_names_that_look_alike_are_for_a_person_to_look_at(
    tmp_path: Path, chapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A letter of another alphabet can't be seen, and is told; a space without width is spelt out."""
    for learner in ("ann", "\u0430nn", "ann\u200b", "bob"):
        toy.hand_in(tmp_path / "in", learner, toy.answered(chapters, {}))
    graded, _ = grade(order(tmp_path, chapters), tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()

    assert [note for note in graded.notes if "look alike" in note] == [
        "ann and \u0430nn look alike: are they one learner?"
    ]
    assert "\u200b" not in page
    assert "ann\\u200b" in page


# --- reports come as sheets come, and a grading goes on where it was ------------------------------------------------


def rows(out: Path) -> dict[str, str]:
    return {row["learner"]: row["points"] for row in csv.DictReader((out / "grades.csv").read_text().splitlines())}


def hand_in_three(tmp_path: Path, chapters: Path) -> None:
    for learner in ("ann", "bob", "cleo"):
        toy.hand_in(tmp_path / "in", learner, toy.answered(chapters, toy.RIGHT))


def test_reports_are_there_before_the_last_sheet(
    tmp_path: Path, chapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, str]] = []

    def written(graded: Graded, out: Path, write: Callable[..., None] = folder.write) -> None:
        write(graded, out)
        seen.append(rows(out))

    monkeypatch.setattr(folder, "write", written)
    runs(monkeypatch)
    hand_in_three(tmp_path, chapters)
    grade(order(tmp_path, chapters), tmp_path / "out")

    assert sorted(seen[0].values()) == ["0", "0", "4"]  # whichever came first
    assert rows(tmp_path / "out") == {"ann": "4", "bob": "4", "cleo": "4"}


def test_what_was_ready_before_an_interruption_is_written_and_not_run_again(
    tmp_path: Path, chapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_in_three(tmp_path, chapters)

    def interrupted(sheet: Sheet, done: int, of: int) -> None:
        if sheet.learner == "bob":
            raise KeyboardInterrupt

    runs(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        grade(order(tmp_path, chapters, told=interrupted), tmp_path / "out")
    assert rows(tmp_path / "out")["ann"] == "4"
    assert folder.NOT_YET in (tmp_path / "out/report.html").read_text()

    again = runs(monkeypatch)
    _, code = grade(order(tmp_path, chapters), tmp_path / "out")

    assert "ann" not in again
    assert code == ALL_GRADED
    assert rows(tmp_path / "out") == {"ann": "4", "bob": "4", "cleo": "4"}


def test_a_second_grading_takes_over_what_has_not_changed(
    tmp_path: Path, chapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_in_three(tmp_path, chapters)
    assert runs(monkeypatch) == []
    grade(order(tmp_path, chapters), tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.csv")}

    toy.hand_in(tmp_path / "in", "bob", toy.answered(chapters, {**toy.RIGHT, "90.1": "requests = 7"}))
    seen = runs(monkeypatch)
    grade(order(tmp_path, chapters), tmp_path / "out")

    assert seen == ["bob"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.csv")} == before


@pytest.mark.parametrize("change", [{"seed": 2}, {"fresh": True}])
def test_another_seed_or_the_wish_for_it_runs_all_again(
    change: dict[str, Any], tmp_path: Path, chapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_in_three(tmp_path, chapters)
    runs(monkeypatch)
    grade(order(tmp_path, chapters), tmp_path / "out")
    seen = runs(monkeypatch)
    grade(order(tmp_path, chapters, **change), tmp_path / "out")

    assert sorted(seen) == ["ann", "bob", "cleo"]


def _whole(told: dict[str, Any]) -> None:
    told["verdicts"][3] |= {"status": "correct", "credit": 1.0}


def _lacking(told: dict[str, Any]) -> None:
    del told["verdicts"][0]


def _twice(told: dict[str, Any]) -> None:
    told["verdicts"][0]["credit"] = 7.0


@pytest.mark.parametrize("change", [_whole, _lacking, _twice, dict.clear])
def test_a_kept_sheet_that_says_what_cannot_be_is_not_taken_over(
    change: Callable[[dict[str, Any]], None], tmp_path: Path, chapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.hand_in(tmp_path / "in", "ann", toy.answered(chapters, toy.RIGHT))
    runs(monkeypatch)
    grade(order(tmp_path, chapters), tmp_path / "out")
    (kept,) = (tmp_path / "out/sheets").iterdir()
    told = json.loads(kept.read_text())
    change(told)
    kept.write_text(json.dumps(told))
    seen = runs(monkeypatch)
    grade(order(tmp_path, chapters), tmp_path / "out")

    assert seen == ["ann"]


def test_a_sheet_that_we_failed_at_is_tried_again(
    tmp_path: Path, chapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.hand_in(tmp_path / "in", "ann", toy.answered(chapters, toy.RIGHT))
    runs(monkeypatch, lambda handed: NotebookRun(ready=False, log="no space left"))
    assert grade(order(tmp_path, chapters), tmp_path / "out")[1] == NO_GRADING
    runs(monkeypatch)
    assert grade(order(tmp_path, chapters), tmp_path / "out")[1] == ALL_GRADED


def test_where_nothing_can_be_written_nothing_is_run(
    tmp_path: Path, chapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.hand_in(tmp_path / "in", "ann", toy.answered(chapters, toy.RIGHT))
    (tmp_path / "out").write_text("a file")
    seen = runs(monkeypatch)
    with pytest.raises(folder.SetupError, match="cannot be written to"):
        grade(order(tmp_path, chapters), tmp_path / "out")

    assert seen == []


def test_an_unreadable_file_does_not_stop_the_rest(
    tmp_path: Path, chapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_in_three(tmp_path, chapters)
    toy.hand_in(tmp_path / "in", "bob", "[" * 100_000)
    runs(monkeypatch)

    assert grade(order(tmp_path, chapters), tmp_path / "out")[1] == SOME_NOT
    assert rows(tmp_path / "out") == {"ann": "4", "bob": "0", "cleo": "4"}


# --- each run is made from what we hold -----------------------------------------------------------------------------


def test_what_a_run_does_to_its_package_is_gone_in_the_next(
    tmp_path: Path, chapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def watched(job: Any, folder: Path, room: Any, *rest: Any) -> NotebookRun:
        ask = room.package / "miniserve/course/check/ask.py"
        seen.append("poison" in ask.read_text())
        for path in (tmp_path / "work").rglob("*.py"):  # every file that a submission without a sandbox can reach
            path.write_text("poison")
        return NotebookRun(ready=True, done=True, verdicts={id_: Verdict(id_, Status.WRONG) for id_ in toy.RIGHT})

    monkeypatch.setattr(supervise, "watch", watched)
    hand_in_three(tmp_path, chapters)
    course = read_course(chapters, package=toy.PACKAGE)
    (tmp_path / "work").mkdir()
    grader = Grader(tmp_path / "work", Settings("none"), course.values())
    for handed in read_submissions(tmp_path / "in", course):
        grader.grade(handed, course[90])

    assert seen == [False, False, False]
    assert list((tmp_path / "work").iterdir()) == []


def test_a_grading_leaves_no_temporary_files(tmp_path: Path, chapters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder.tempfile, "mkdtemp", lambda prefix: str(tmp_path / "temporary"))
    (tmp_path / "temporary" / "nested").mkdir(parents=True)
    toy.hand_in(tmp_path / "in", "ann", toy.answered(chapters, {}))
    grading = Grading(order(tmp_path, chapters), tmp_path / "out")
    grading.close()

    assert not (tmp_path / "temporary").exists()
