"""`miniserve grade`: what can be said without running a notebook; the rest is in tests/course/grade and exploits."""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from course.grade import toy

from miniserve.commands import grade as command


@pytest.fixture(scope="module")
def chapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_chapter(tmp_path_factory.mktemp("toy"))


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def of_the_toy(chapters: Path) -> list[object]:
    return ["--course", chapters, "--questions", toy.PACKAGE, "--sandbox", toy.sandbox()]


def test_untouched_and_broken_notebooks_need_no_kernel(
    tmp_path: Path, chapters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.hand_in(tmp_path / "in", "ann", toy.answered(chapters, {}))
    assert run(tmp_path / "in", "--out", tmp_path / "out", *of_the_toy(chapters)) == 0

    toy.hand_in(tmp_path / "in", "bob", "{")
    assert run(tmp_path / "in", "--out", tmp_path / "out", *of_the_toy(chapters)) == 2

    rows = list(csv.DictReader((tmp_path / "out/grades.csv").read_text().splitlines()))
    assert [(row["learner"], row["points"], row["of"]) for row in rows] == [("ann", "0", "5"), ("bob", "0", "5")]
    assert "bob  bob/90_toy.ipynb  unreadable: It is not a notebook" in capsys.readouterr().out
    assert (tmp_path / "out/learners/ann.html").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--chapters", "91"], "no chapter 91"),
        (["--weights", "nowhere.toml"], "nowhere.toml does not exist"),
        (["--marks", "nowhere.csv"], "nowhere.csv does not exist"),
    ],
)
def test_what_the_instructor_got_wrong_is_one_line_and_exit_code_3(
    options: list[str], said: str, tmp_path: Path, chapters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.hand_in(tmp_path / "in", "ann", toy.answered(chapters, {}))
    assert run(tmp_path / "in", "--out", tmp_path / "out", *of_the_toy(chapters), *options) == 3
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_marks_and_roster_are_files_of_ones_own_and_need_an_earlier_grading(
    tmp_path: Path, chapters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.hand_in(tmp_path / "in", "ann", toy.answered(chapters, {}))
    (tmp_path / "m.csv").write_text("learner,question,mark\nann,90.1,1\nbob,90.1,1\n")
    where = [tmp_path / "in", "--out", tmp_path / "out", *of_the_toy(chapters)]
    assert run(*where, "--marks", tmp_path / "m.csv") == 3
    assert "grade once without --marks" in capsys.readouterr().err

    assert run(*where) == 0
    assert run(*where, "--marks", tmp_path / "m.csv") == 2
    assert "look: " in (said := capsys.readouterr().out)
    assert "line 3: there is no learner 'bob'" in said
    (row,) = csv.DictReader((tmp_path / "out/grades.csv").read_text().splitlines())
    assert (row["90.1"], row["90.1 state"]) == ("1", "not tried")

    (tmp_path / "r.csv").write_text("learner\nann\ncem\n")
    assert run(*where, "--no-run", "--roster", tmp_path / "r.csv") == 0
    rows = list(csv.DictReader((tmp_path / "out/grades.csv").read_text().splitlines()))
    assert [row["learner"] for row in rows] == ["ann", "cem"]


def test_each_line_says_how_far_it_is_and_how_long_it_takes(
    tmp_path: Path, chapters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for learner in ("ann", "mal\nann  90  5 correct"):
        toy.hand_in(tmp_path / "in", learner, toy.answered(chapters, {}))
    run(tmp_path / "in", "--out", tmp_path / "out", *of_the_toy(chapters))
    first, second, *_ = capsys.readouterr().out.splitlines()

    assert re.fullmatch(r"ann  90  5 not tried  \(1/2, about \d+ s left\)", first)
    assert second == "mal\\nann  90  5 correct  90  5 not tried  (2/2)"


def test_the_help_shows_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    said = parser.format_help()

    for text in (
        "examples:",
        "--marks OUT/free_text.csv",
        "--regrade ann 6.3 bob/6.4",
        "--roster",
        "--late",
        "GRADING.md",
    ):
        assert text in said, text
    assert max(map(len, said.splitlines())) <= 120


def test_a_folder_that_is_not_there_is_exit_code_3(tmp_path: Path, chapters: Path) -> None:
    assert run(tmp_path / "nowhere", "--out", tmp_path / "out", *of_the_toy(chapters)) == 3


def test_pytest_shows_a_question_as_a_test_and_writes_the_same_reports(tmp_path: Path, chapters: Path) -> None:
    toy.hand_in(tmp_path / "in", "ann", toy.answered(chapters, {}))
    toy.hand_in(tmp_path / "in", "bob", "{")
    assert run(tmp_path / "in", "--out", tmp_path / "one", *of_the_toy(chapters)) == 2
    options = ["--nbval-lax", "-p", "miniserve.course.grade", "-p", "nbval.plugin", "-rA", "-c", "/dev/null"]
    where = ["--submissions", tmp_path / "in", "--report", tmp_path / "two"]
    course = ["--grade-course", chapters, "--grade-questions", toy.PACKAGE, "--grade-sandbox", toy.sandbox()]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *map(str, [*where, *course])],
        env={"PYTHONPATH": toy.PATH, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "bob.90::q90.1" in ran.stdout
    assert "5 failed, 5 skipped" in ran.stdout
    for name in ("grades.csv", "report.html", "junit.xml", "free_text.csv", "learners/bob.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
