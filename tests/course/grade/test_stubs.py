"""In a learner's kernel the reference is not there, and the rest of the package works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from course.grade.toy_course.ch90_toy.questions import QUESTIONS

from miniserve.course.grade.stubs import stub, stubbed, write_package

TEXT = '''"""A module."""

LIMIT = 3


class Kept:
    @property
    def value(self):
        """Say three."""
        # a comment
        return LIMIT

    def other(self):
        return 4


def least(xs):
    return min(xs)
'''


def test_a_method_keeps_its_head_and_loses_its_body() -> None:
    text = stub(TEXT, frozenset({"Kept.value"}), frozenset(), "9.1")
    names: dict[str, object] = {}
    exec(text, names)
    kept = names["Kept"]()  # type: ignore[operator]

    assert '"""Say three."""' in text
    assert kept.other() == 4
    with pytest.raises(NotImplementedError, match=r"exercise 9\.1"):
        _ = kept.value


def test_of_a_forbidden_name_nothing_is_left() -> None:
    text = stub(TEXT, frozenset(), frozenset({"Kept", "least"}), "9.1")

    assert "min(xs)" not in text
    assert "return" not in text
    assert text.count("raise NotImplementedError") == 3


def test_what_two_exercises_want_away_is_named_by_the_first() -> None:
    once = stub(TEXT, frozenset({"least"}), frozenset(), "9.1")

    assert stub(once, frozenset(), frozenset({"least"}), "9.2") == once


def test_other_modules_are_untouched() -> None:
    assert stub(TEXT, frozenset({"Other.value"}), frozenset({"unknown"}), "9.1") == TEXT


def test_the_copy_has_no_questions_and_no_reference_and_opens_a_chapter(tmp_path: Path) -> None:
    write_package(stubbed(QUESTIONS), tmp_path)
    program = """
import miniserve.policies.routing.balancer as b
from miniserve import course
from miniserve.types import ReplicaView, Request
ch = course.chapter(90)
ch.check("90.1", 5)
print(course.__file__, ch, ch.yours("90.5", 1), ch.given("90.1"))
print(b.RoundRobin().choose(None, [ReplicaView("r1")]))
try:
    b.LeastQueue().choose(Request("x", "m", (1,)), [ReplicaView("r1")])
except NotImplementedError as error:
    print("kind:", error)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert ran.stderr == ""
    assert str(tmp_path) in ran.stdout
    assert "kind: This is what exercise 90.5 asks you to write" in ran.stdout
    assert "90.1  is checked outside" in ran.stdout
    chapters = tmp_path / "miniserve/course/chapters"
    assert {path.name for path in chapters.glob("*/*.py")} == {"__init__.py", "lab.py"}
    assert not (tmp_path / "miniserve/course/grade").exists()
