"""The reports say what was graded, in words, readable in both themes; nothing from a submission can act in them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from course.grade import toy

from miniserve.course.check.verdict import Problem, Status, Verdict
from miniserve.course.grade.folder import exit_code
from miniserve.course.grade.graded import Graded
from miniserve.course.grade.handed_in import FileFate
from miniserve.course.grade.marks import Mark
from miniserve.course.grade.pages import COLOURS, items, learner_page, page_name, report_page
from miniserve.course.grade.platforms import canvas_csv, moodle_csv
from miniserve.course.grade.roster import Person, Roster
from miniserve.course.grade.sheet import Sheet
from miniserve.course.grade.submission import Submission
from miniserve.course.grade.tables import free_text_csv, grades_csv, junit_xml, results_json
from miniserve.course.grade.trusted import read_course

EVIL = "<script>alert(1)</script>\x00\x1b[31m & \"'"


@pytest.fixture
def graded(chapters: Path) -> Graded:
    course = read_course(chapters, package=toy.PACKAGE)
    ids = list(course[90].questions)
    right = {id_: Verdict(id_, Status.CORRECT, credit=1.0) for id_ in ids}
    noted = right | {"90.4": Verdict("90.4", Status.NOTED)}
    wrong = {id_: Verdict(id_, Status.WRONG, Problem("no-tail", EVIL, "It has no tail.")) for id_ in ids}
    half = {**right, "90.5": Verdict("90.5", Status.PARTIAL, Problem("slow", "7", "Too slow."), 0.5)}
    sheets = [
        Sheet(Submission("ann", 90, "ann/a.ipynb"), 90, noted, {"90.4": "=SUM(1)"}),
        Sheet(Submission(EVIL, 90, "x.ipynb"), 90, wrong, notes=(EVIL,)),
        Sheet(Submission("cleo", 90, "cleo/a.ipynb"), 90, half),
        Sheet(Submission("dan", 0, "dan/diary.ipynb", problem="No chapter."), 0, {}),
    ]
    return Graded(sheets, course, dict.fromkeys(ids, 2.0), {}, "none", 1)


def test_points_are_credits_times_weights_and_wait_for_marks(graded: Graded) -> None:
    rows = {row["learner"]: row for row in csv.DictReader(io.StringIO(grades_csv(graded)))}

    assert (rows["ann"]["points"], rows["ann"]["of"], rows["ann"]["to be marked"]) == ("8", "10", "90.4")
    assert rows["ann"]["90.4"] == ""
    assert rows["cleo"]["90.5"] == "1"
    assert rows["dan"]["points"] == "0"


def test_a_mark_that_is_read_in_counts(graded: Graded) -> None:
    marked = Graded(graded.sheets, graded.course, graded.weights, {("ann", "90.4"): Mark(0.5, "short")}, "none", 1)
    rows = {row["learner"]: row for row in csv.DictReader(io.StringIO(grades_csv(marked)))}

    assert (rows["ann"]["points"], rows["ann"]["to be marked"]) == ("9", "")
    assert "short" in learner_page(marked, "ann")
    assert "0.5" in free_text_csv(marked)


def test_texts_are_exported_beside_rubric_and_model_answer_and_are_no_formulas(graded: Graded) -> None:
    (row,) = csv.DictReader(io.StringIO(free_text_csv(graded)))

    assert (row["learner"], row["answer"], row["rubric"]) == ("ann", "'=SUM(1)", "names the tail")
    assert row["model answer"] == "Because the mean hides the tail."


def test_results_hold_all_and_only_one_line_is_the_moment(graded: Graded) -> None:
    one, other = results_json(graded, "now"), results_json(graded, "later")
    whole = json.loads(one)

    assert [a for a, b in zip(one.splitlines(), other.splitlines(), strict=True) if a != b] == [' "graded_at": "now",']
    assert whole["schema"] == 2
    assert len(whole["chapters"]["90"]["sha256"]) == 64
    assert whole["submissions"][0]["questions"][0]["lines"] == ["90.1  CORRECT"]


def test_junit_counts_what_failed_and_what_was_skipped(graded: Graded) -> None:
    suites = ET.fromstring(junit_xml(graded)).findall("testsuite")

    assert [(s.get("tests"), s.get("failures"), s.get("skipped")) for s in suites] == [
        ("5", "0", "1"),
        ("5", "5", "0"),
        ("5", "1", "0"),
        ("1", "1", "0"),
    ]


def test_the_most_frequent_problem_of_each_question_is_told(graded: Graded) -> None:
    found = {item.question: item for item in items(graded)}

    assert (found["90.1"].answered, found["90.1"].correct) == (3, 2)
    assert found["90.1"].commonest == "no-tail (1 of 3): It has no tail."
    assert "67%" in report_page(graded)


class Reader(HTMLParser):
    """Notes tags, in order, and checks that they are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def pages(graded: Graded) -> list[str]:
    return [report_page(graded), *(learner_page(graded, learner) for learner in graded.learners)]


def test_pages_are_whole_documents_that_fetch_and_run_nothing(graded: Graded) -> None:
    for page in pages(graded):
        reader = Reader()
        reader.feed(page)
        tags = [tag for tag, _ in reader.seen]
        headings = [int(tag[1]) for tag in tags if tag in ("h1", "h2", "h3")]

        assert reader.open == []
        assert tags.count("h1") == 1
        assert headings[0] == 1
        assert all(after - before <= 1 for before, after in pairwise(headings))
        assert not {"script", "link", "img", "iframe"} & set(tags)
        assert ("html", {"lang": "en"}) in reader.seen
        assert all(found.get("scope") for tag, found in reader.seen if tag == "th")
        assert tags.count("caption") == tags.count("table")


def test_a_learners_page_has_the_lines_of_the_check(graded: Graded) -> None:
    page = learner_page(graded, "cleo")

    assert "90.5  PARTIAL\n  Seen:  7\n  Why:   Too slow." in page
    assert "1.00 of 2" in page


def test_states_are_words_and_links_lead_to_pages(graded: Graded) -> None:
    page = report_page(graded)

    assert "partial 50%" in page
    assert "Sandbox: none" in page
    assert all(f'href="learners/{page_name(learner)}"' in page for learner in graded.learners)


def test_learners_never_share_a_page() -> None:
    names = ["ann", "a/b", "a_b", "a b", "..", EVIL, "Ä", "ß"]

    assert len({page_name(name) for name in names}) == len(names)
    assert not any("/" in page_name(name) or page_name(name).startswith(".") for name in names)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("name", sorted(COLOURS))
def test_contrast_is_at_least_4_5_in_both_themes(name: str) -> None:
    for text, back in COLOURS[name]:
        light, dark = sorted((luminance(text), luminance(back)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_the_exit_code_says_what_was_graded_not_what_was_right(graded: Graded) -> None:
    def code(*sheets: Sheet) -> int:
        return exit_code(Graded(sheets, graded.course, graded.weights, {}, "none", 1))

    ours = Sheet(Submission("eve", 90, "e.ipynb"), 90, {}, broken="no kernel could be started")
    assert code(graded.sheets[1]) == 0
    assert code(*graded.sheets) == 2
    assert code(*graded.sheets, ours) == 3


# --- what an instructor sees ------------------------------------------------------------------------------------------


def with_more(graded: Graded, **changed: Any) -> Graded:
    return dataclasses.replace(graded, **changed)


def test_a_question_that_we_failed_to_grade_is_not_a_wrong_one(graded: Graded) -> None:
    ids = list(graded.questions)
    ours = Sheet(
        Submission("eve", 90, "e.ipynb"), 90, {id_: Verdict(id_, Status.NOT_GRADED) for id_ in ids}, broken="x"
    )
    lost = Sheet(
        Submission("fay", 90, "f.ipynb", problem="No."), 90, {id_: Verdict(id_, Status.UNREADABLE) for id_ in ids}
    )
    found = with_more(graded, sheets=[*graded.sheets, ours, lost], known=("gus",))
    rows = {row["learner"]: row for row in csv.DictReader(io.StringIO(grades_csv(found)))}

    assert (rows["eve"]["90.1"], rows["eve"]["90.1 state"]) == ("", "not graded")
    assert (rows["fay"]["90.1"], rows["fay"]["90.1 state"]) == ("0", "unreadable")
    assert (rows["gus"]["90.1"], rows["gus"]["90.1 state"]) == ("0", "not handed in")
    assert (rows["cleo"]["90.5 state"], rows["ann"]["90.4 state"]) == ("partial", "noted")
    assert rows["eve"]["to be marked"] == ""


def test_every_cell_of_a_table_is_in_quotes_and_none_is_a_formula(graded: Graded) -> None:
    for text in (grades_csv(graded), free_text_csv(graded)):
        assert text.startswith('"learner"')
        for row in csv.reader(io.StringIO(text)):
            assert not any(cell[:1] in tuple("=+-@\t\r\n") for cell in row if cell)
        assert all(line.startswith('"') for line in grades_csv(graded).splitlines())


def test_the_code_stands_beside_the_verdict_and_cannot_act(graded: Graded) -> None:
    sheet = dataclasses.replace(graded.sheets[2], answers={"90.5": f"class LeastQueue: pass  # {EVIL}\u202e"})
    page = learner_page(with_more(graded, sheets=[*graded.sheets[:2], sheet]), "cleo")

    assert '<div class="beside"><pre class="bad">90.5  PARTIAL' in page
    assert "class LeastQueue: pass  # &lt;script&gt;" in page
    assert "\u202e" not in page
    assert page.count('class="code"') == 1


def test_a_huge_answer_is_cut(graded: Graded) -> None:
    sheet = dataclasses.replace(graded.sheets[2], answers={"90.5": "x = 1\n" * 100_000})

    assert len(learner_page(with_more(graded, sheets=[sheet]), "cleo")) < 20_000


def test_every_file_is_in_the_report(graded: Graded) -> None:
    files = (
        FileFate("cleo/copy.ipynb", "cleo", "left out: cleo/a.ipynb is the same chapter and counts"),
        FileFate("x.ipynb", "", "not read: no learner", look=True),
    )
    page = report_page(with_more(graded, files=files))
    shown = page.partition("<h2>Files</h2>")[2]

    for text in (
        "cleo/a.ipynb",
        "graded as chapter 90",
        "cleo/copy.ipynb",
        "left out",
        "unreadable: No chapter.",
        "nobody",
    ):
        assert text in shown, text
    assert "6 files" in shown
    looks = page.partition("<h2>To look at</h2>")[2].partition("<h2>")[0]
    assert "x.ipynb" in looks
    assert "copy.ipynb" not in looks


def test_what_a_person_should_look_at_is_in_one_place(graded: Graded) -> None:
    wrong = Verdict("90.1", Status.WRONG, Problem("off", "3", "No."), right_for="bob")
    sheet = dataclasses.replace(graded.sheets[2], verdicts={**graded.sheets[2].verdicts, "90.1": wrong})
    found = with_more(
        graded,
        sheets=[sheet],
        notes=("One level.",),
        lost_marks=("m.csv, line 2: there is no learner '7'.",),
        known=("gus",),
    )
    looks = report_page(found).partition("<h2>To look at</h2>")[2].partition("<h2>")[0]

    for text in ("One level.", "there is no learner &#x27;7&#x27;", "gus</strong> has handed in no notebook"):
        assert text in looks, text
    assert "90.1 is wrong for cleo&#x27;s numbers, but right for those of bob." in looks
    assert "bob" not in learner_page(found, "cleo")


def test_of_perfect_learners_there_is_nothing_to_look_at(graded: Graded) -> None:
    perfect = [
        dataclasses.replace(graded.sheets[0], handed=Submission(name, 90, f"{name}.ipynb")) for name in ("a", "b")
    ]
    looks = report_page(with_more(graded, sheets=perfect)).partition("<h2>To look at</h2>")[2].partition("<h2>")[0]

    assert looks.strip() == "<p>Nothing.</p>"


def test_moodle_and_canvas_wait_for_marks(graded: Graded) -> None:
    row = {"identifier": "Participant 7", "full name": "Ann A", "email address": "ann@example.org"}
    roster = Roster((Person("ann", "Ann A", row), Person("cleo", "Cleo C", {"full name": "Cleo C"})))
    found = with_more(graded, roster=roster, marks={("cleo", "90.5"): Mark(None, "=well done")})
    moodle = list(csv.DictReader(io.StringIO(moodle_csv(found))))
    canvas = list(csv.DictReader(io.StringIO(canvas_csv(found))))

    assert [row["Grade"] for row in moodle] == ["", "9"]
    assert [row["Identifier"] for row in moodle] == ["Participant 7", ""]
    assert moodle[1]["Feedback comments"] == "90.5: =well done"
    assert [row["Chapter 90: toy"] for row in canvas] == ["10", "", "9"]


def test_a_learners_page_has_a_name_that_fits_a_disk() -> None:
    names = ["a" * 300, "a" * 299 + "b", "é" * 200]

    assert len({page_name(name) for name in names}) == 3
    assert all(len(page_name(name)) < 120 for name in names)


def test_what_was_lost_is_in_the_exit_code(graded: Graded) -> None:
    fine = with_more(graded, sheets=graded.sheets[1:2])

    assert exit_code(fine) == 0
    assert exit_code(with_more(fine, files=(FileFate("a.pdf", "ann", "not read: not a notebook (.pdf)"),))) == 0
    assert exit_code(with_more(fine, files=(FileFate("a.rar", "ann", "not read: an archive", look=True),))) == 2
    assert exit_code(with_more(fine, lost_marks=("m.csv, line 2: no learner.",))) == 2
