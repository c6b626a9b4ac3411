"""However a platform packs submissions, each learner is found, and every file is told what became of it."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import pytest
from course.grade import toy

from miniserve.course.grade.align import answers_in
from miniserve.course.grade.find import find_files, whose
from miniserve.course.grade.handed_in import HandedIn, read_folder
from miniserve.course.grade.roster import read_roster
from miniserve.course.grade.trusted import TrustedChapter, read_course
from miniserve.errors import SetupError


@pytest.fixture
def course(chapters: Path) -> dict[int, TrustedChapter]:
    return read_course(chapters, package=toy.PACKAGE)


@pytest.fixture
def right(chapters: Path) -> bytes:
    return json.dumps(toy.answered(chapters, toy.RIGHT)).encode()


@pytest.fixture
def given(chapters: Path) -> bytes:
    return json.dumps(toy.answered(chapters, {})).encode()


def put(folder: Path, path: str, raw: bytes) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(raw)


def fates(found: HandedIn) -> dict[str, str]:
    return {file.path: file.became for file in found.files}


def graded(found: HandedIn) -> list[tuple[str, str]]:
    return [(one.learner, one.file) for one in found.submissions]


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (
            "Ada Lovelace_4711_assignsubmission_file_06_toy.ipynb",
            ("Ada Lovelace", "4711", "06_toy.ipynb"),
        ),
        ("Ada Lovelace_4711_assignsubmission_file", ("Ada Lovelace", "4711", "")),
        ("hal_LATE_4711_06_percentiles.ipynb", ("hal", "4711", "06_percentiles.ipynb")),
        ("lovelaceada_4711_98765_06_percentiles-2.ipynb", ("lovelaceada", "4711", "06_percentiles-2.ipynb")),
        ("HW 1_ada_attempt_2026-02-01-10-00-00_06.ipynb", ("ada", "", "06.ipynb")),
        ("ida__06_percentiles.ipynb", ("ida", "", "06_percentiles.ipynb")),
        ("06_percentiles.ipynb", ("", "", "06_percentiles.ipynb")),
        ("12_balancer.ipynb", ("", "", "12_balancer.ipynb")),
        ("__06.ipynb", ("", "", "__06.ipynb")),
    ],
)
def test_a_files_name_says_whose_it_is(name: str, found: tuple[str, str, str]) -> None:
    assert whose(name, is_folder=False) == found


@pytest.mark.parametrize(
    ("folder", "learner"),
    [
        ("Ada Lovelace_4711_assignsubmission_file", "Ada Lovelace"),
        ("Ada Lovelace_4711_assignsubmission_file_", "Ada Lovelace"),
        ("ann_2026_notes", "ann_2026_notes"),
        ("Zoë", "Zoë"),
        ("Zoe\u0308", "Zoë"),
        ("mal\nann  90  5 correct", "mal\\nann  90  5 correct"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202enna", "\\u202enna"),
        (" ann ", "ann"),
    ],
)
def test_a_folders_name_is_the_learners_fit_to_be_shown(
    folder: str, learner: str, tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]
) -> None:
    put(tmp_path, f"{folder}/90_toy.ipynb", right)

    assert [one.learner for one in read_folder(tmp_path, course).submissions] == [learner]


def test_a_name_that_windows_packed_is_read(tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]) -> None:
    folder = os.fsencode(tmp_path) + b"/ren\xe9"
    os.mkdir(folder)
    Path(os.fsdecode(folder), "90_toy.ipynb").write_bytes(right)

    assert graded(read_folder(tmp_path, course)) == [("rené", "rené/90_toy.ipynb")]


def test_namesakes_with_two_numbers_are_two(tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]) -> None:
    for number in (1, 2):
        put(tmp_path, f"Ada_{number}_assignsubmission_file/90_toy.ipynb", right)
    put(tmp_path, "Bo_3_assignsubmission_file/90_toy.ipynb", right)
    put(tmp_path, "Bo_3_assignsubmission_onlinetext/note.html", b"<p>")

    assert read_folder(tmp_path, course).learners == ("Ada (1)", "Ada (2)", "Bo")


def test_two_folders_whose_names_look_the_same_are_told(
    tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]
) -> None:
    for name in ("ann", "Ann", "cem"):
        put(tmp_path, f"{name}/90_toy.ipynb", right)

    assert read_folder(tmp_path, course).notes == ("Ann and ann look alike: are they one learner?",)


def test_two_folders_of_one_spelling_are_not_one_learner(
    tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]
) -> None:
    put(tmp_path, "Zoë/90_toy.ipynb", right)
    put(tmp_path, "Zoe\u0308/90_toy.ipynb", right)

    assert len(read_folder(tmp_path, course).submissions) == 2


# --- layouts --------------------------------------------------------------------------------------------------------


def test_one_level_too_many_is_seen(tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]) -> None:
    for who in ("ann", "bob", "Cem K_7_assignsubmission_file"):
        put(tmp_path, f"submissions/{who}/90_toy.ipynb", right)
    put(tmp_path, "submissions/readme.txt", b"hello")
    (tmp_path / "submissions/gus").mkdir()
    found = read_folder(tmp_path, course)

    assert [one.learner for one in found.submissions] == ["Cem K", "ann", "bob"]
    assert found.learners == ("Cem K", "ann", "bob", "gus")
    assert "submissions: no learner, but a folder of learners" in found.notes[0]
    assert fates(found)["submissions/readme.txt"].startswith("not read")


def test_two_levels_and_groups_are_seen(tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]) -> None:
    for path in ("all/a/ann", "all/a/bob", "all/b/cem", "all/b/dan"):
        put(tmp_path, f"{path}/90_toy.ipynb", right)

    assert [one.learner for one in read_folder(tmp_path, course).submissions] == ["ann", "bob", "cem", "dan"]


@pytest.mark.parametrize("tries", [("attempt 1", "attempt 2"), ("v1", "final"), ("1", "2"), ("old", "new")])
def test_tries_in_folders_are_one_learners(
    tries: tuple[str, str], tmp_path: Path, right: bytes, given: bytes, course: dict[int, TrustedChapter]
) -> None:
    put(tmp_path, f"ann/{tries[0]}/90_toy.ipynb", given)
    put(tmp_path, f"ann/{tries[1]}/90_toy.ipynb", right)

    assert graded(read_folder(tmp_path, course)) == [("ann", f"ann/{tries[1]}/90_toy.ipynb")]


def test_the_same_folders_in_everyones_folder_are_no_learners(
    tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]
) -> None:
    for who in ("ann", "bob"):
        for part in ("monday", "tuesday"):
            put(tmp_path, f"{who}/{part}/90_toy.ipynb", right)

    assert [one.learner for one in read_folder(tmp_path, course).submissions] == ["ann", "bob"]


def test_a_single_learner_one_level_down_is_asked_about(
    tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]
) -> None:
    put(tmp_path, "submissions/ann/90_toy.ipynb", right)
    found = read_folder(tmp_path, course)

    assert found.learners == ("submissions",)
    assert "if ann is the learner, grade submissions/" in found.notes[0]


def zipped(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return raw.getvalue()


def test_archives_are_read_or_refused_by_name(tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]) -> None:
    mac = {"kim/90_toy.ipynb": right, "__MACOSX/kim/._90_toy.ipynb": b"\0\5", "kim/data.csv": b"1"}
    put(tmp_path, "kim.zip", zipped(mac))
    put(tmp_path, "lea/work.zip", zipped({"..\\90_toy.ipynb": right}))
    put(tmp_path, "Max M_9_assignsubmission_file_work.zip", zipped({"90_toy.ipynb": right}))
    put(tmp_path, "nia.zip", b"PK\x05\x06" + b"\0" * 18)
    put(tmp_path, "olu.zip", b"PK no archive")
    put(tmp_path, "pia.tar.gz", b"\x1f\x8b")
    put(tmp_path, "quy/work.rar", b"Rar!")
    found = read_folder(tmp_path, course)

    assert [one.learner for one in found.submissions] == ["Max M", "kim", "lea"]
    assert {"nia", "olu", "quy"} <= set(found.learners)
    assert fates(found)["kim.zip/__MACOSX/kim/._90_toy.ipynb"] == "not read: bookkeeping of macOS"
    assert fates(found)["nia.zip"] == "not read: an archive without notebooks"
    assert fates(found)["olu.zip"].startswith("not read: an archive that can't be read")
    assert fates(found)["quy/work.rar"] == "not read: an archive that is not read: unpack it"
    assert all(file.look for file in found.files if file.path.endswith((".zip", ".gz", ".rar")))


def test_a_whole_class_in_one_archive_is_a_class(
    tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]
) -> None:
    put(tmp_path, "all.zip", zipped({"ann/90_toy.ipynb": right, "bob/90_toy.ipynb": right}))

    assert [one.learner for one in read_folder(tmp_path, course).submissions] == ["ann", "bob"]


def test_an_archive_that_explodes_is_not_unpacked(tmp_path: Path, course: dict[int, TrustedChapter]) -> None:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("90_toy.ipynb", b"[" * 3_000_000)
    put(tmp_path, "kim.zip", raw.getvalue())
    (one,) = find_files(tmp_path)

    assert one.read(limit=1_000_000)[1].startswith("It has 1,000,001 bytes; the limit is 1,000,000.")


# --- every file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["90_toy.ipynb.txt", "90_toy.ipynb.json", "90_TOY.IPYNB", "90_toy.json", "toy.txt", "x.Ipynb"]
)
def test_a_notebook_that_was_renamed_on_its_way_is_read(
    name: str, tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]
) -> None:
    put(tmp_path, f"dora/{name}", right)
    put(tmp_path, f"eve__{name}", b"\xef\xbb\xbf" + right)

    found = read_folder(tmp_path, course).submissions

    assert [(one.learner, one.problem) for one in found] == [("dora", ""), ("eve", "")]


def test_everything_in_the_folder_is_named(tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]) -> None:
    put(tmp_path, "ann/90_toy.ipynb", right)
    litter = [
        "__MACOSX/ann/._90_toy.ipynb",
        ".DS_Store",
        "ann/.ipynb_checkpoints/90_toy-checkpoint.ipynb",
        "ann/Thumbs.db",
        "ann/.90_toy.ipynb",
        "ann/notes.pdf",
        "ann/plan.txt",
        "grades.csv",
    ]
    lost = ["x.ipynb", "__06.ipynb", "jo/deep/work.7z"]
    for path in (*litter, *lost):
        put(tmp_path, path, right if path.endswith(".ipynb") else b"?")
    (tmp_path / "gus").mkdir()
    (tmp_path / "hal").symlink_to(tmp_path / "ann")
    (tmp_path / "ann/linked").symlink_to(tmp_path / "jo")
    found = read_folder(tmp_path, course)
    told = {file.path: file for file in found.files}

    assert [one.learner for one in found.submissions] == ["ann"]
    assert found.learners == ("ann", "gus", "hal", "jo")
    for path in litter:
        named = next(name for name in told if path == name or path.startswith(f"{name}/"))  # a folder for all in it
        assert not told[named].look, path
    for path in (*lost, "hal", "ann/linked"):
        assert told[path].look, path
    assert told["gus/"].became == "not read: an empty folder"
    assert "ada__06.ipynb" in told["x.ipynb"].became


def test_many_files_of_one_kind_are_one_line(tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]) -> None:
    put(tmp_path, "ann/90_toy.ipynb", right)
    for number in range(50):
        put(tmp_path, f"ann/venv/{number:02}.py", b"")
    found = read_folder(tmp_path, course)

    assert len(found.files) == 21
    assert found.files[-1].path == "ann/venv/20.py and 29 more"


def test_folders_without_end_are_left_at_some_depth(
    tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]
) -> None:
    put(tmp_path, "ann/90_toy.ipynb", right)
    put(tmp_path, f"bob/{'d/' * 60}90_toy.ipynb", right)
    found = read_folder(tmp_path, course)

    assert [one.learner for one in found.submissions] == ["ann"]
    assert found.files[0].look


def test_nobody_is_an_error_that_says_what_is_there(tmp_path: Path, course: dict[int, TrustedChapter]) -> None:
    put(tmp_path, "notes.pdf", b"?")
    with pytest.raises(SetupError, match=r"no notebooks.*notes\.pdf: not a notebook"):
        read_folder(tmp_path, course)


# --- which of several -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copy", ["90_toy (1).ipynb", "90_toy-Copy1.ipynb", "my final.ipynb", "a.ipynb"])
def test_the_answered_notebook_counts_and_the_untouched_one_is_said_to_hold_nothing(
    copy: str, tmp_path: Path, right: bytes, given: bytes, course: dict[int, TrustedChapter]
) -> None:
    put(tmp_path, "ann/90_toy.ipynb", given)
    put(tmp_path, f"ann/{copy}", right)
    found = read_folder(tmp_path, course)

    assert graded(found) == [("ann", f"ann/{copy}")]
    assert "holds no answers" in fates(found)["ann/90_toy.ipynb"]
    assert any("ann/90_toy.ipynb" in note and "left out" in note for note in found.submissions[0].notes)


def test_what_is_left_out_says_which_answers_go_with_it(
    tmp_path: Path, chapters: Path, right: bytes, course: dict[int, TrustedChapter]
) -> None:
    put(tmp_path, "ann/90_toy.ipynb", right)
    put(tmp_path, "ann/90_toy (1).ipynb", right.replace(b"0.1] * 99", b"0.2] * 99"))
    put(tmp_path, "ann/90_toy (2).ipynb", right)
    found = read_folder(tmp_path, course)

    assert graded(found) == [("ann", "ann/90_toy.ipynb")]
    assert "it holds 5 answers, and those to 90.3 differ" in fates(found)["ann/90_toy (1).ipynb"]
    assert "it holds 5 answers, the same" in fates(found)["ann/90_toy (2).ipynb"]


def test_a_readable_notebook_counts_before_a_broken_one(
    tmp_path: Path, given: bytes, course: dict[int, TrustedChapter]
) -> None:
    put(tmp_path, "ann/90_toy.ipynb", b"{")
    put(tmp_path, "ann/90_toy (1).ipynb", given)

    assert graded(read_folder(tmp_path, course)) == [("ann", "ann/90_toy (1).ipynb")]


def test_answers_are_counted_where_they_differ_from_what_was_given(
    tmp_path: Path, right: bytes, given: bytes, course: dict[int, TrustedChapter]
) -> None:
    put(tmp_path, "ann/90_toy.ipynb", right)
    put(tmp_path, "bob/90_toy.ipynb", given)
    ann, bob = read_folder(tmp_path, course).submissions

    assert answers_in(ann.cells, course[90]) == toy.RIGHT
    assert answers_in(bob.cells, course[90]) == {}


# --- whose numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw", [b"ada.lovelace\n", b"\xef\xbb\xbfada.lovelace\r\n", "ada.lovelace\r\n".encode("utf-16")]
)
def test_the_id_that_a_learner_set_draws_the_numbers(
    raw: bytes, tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]
) -> None:
    put(tmp_path, "Ada Lovelace_4711_assignsubmission_file/90_toy.ipynb", right)
    put(tmp_path, "Ada Lovelace_4711_assignsubmission_file/learner_id.txt", raw)
    (one,) = read_folder(tmp_path, course).submissions

    assert (one.learner, one.drawn_for) == ("Ada Lovelace", "ada.lovelace")


def test_nobody_takes_another_learners_numbers(tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]) -> None:
    for who in ("ann", "bob"):
        put(tmp_path, f"{who}/90_toy.ipynb", right)
    put(tmp_path, "ann/learner_id.txt", b"bob")
    ann = read_folder(tmp_path, course).submissions[0]

    assert ann.drawn_for == ""
    assert "says bob, who is another learner" in ann.notes[-1]


def test_the_ids_that_a_learner_may_have_worked_with_are_known(
    tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]
) -> None:
    put(tmp_path, "Ada Lovelace_4711_assignsubmission_file/90_toy.ipynb", right)
    put(tmp_path, "ada.lovelace2/90_toy.ipynb", right)
    ada, other = read_folder(tmp_path, course).submissions

    assert {"", "ada.lovelace", "Ada.Lovelace", "alovelace", "ada.lovelace2"} <= set(ada.others)
    assert {"", "ada.lovelace", "Ada.Lovelace"} <= set(other.others)


def test_the_roster_says_who_a_folder_is(tmp_path: Path, right: bytes, course: dict[int, TrustedChapter]) -> None:
    put(tmp_path, "in/Ada Lovelace_4711_assignsubmission_file/90_toy.ipynb", right)
    put(tmp_path, "in/hopperg_LATE_12345_06_percentiles.ipynb", right)
    put(tmp_path, "roster.csv", b'learner,name,ID\nada.l,Someone Else,4711\ngrace,"Hopper, Grace",12345\n')
    found = read_folder(tmp_path / "in", course, read_roster(tmp_path / "roster.csv"))

    assert found.learners == ("ada.l", "grace")
