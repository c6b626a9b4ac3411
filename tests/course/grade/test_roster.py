"""A learner is found on the roster under whatever name a platform has for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from miniserve.course.grade.roster import NOBODY, Roster, read_roster
from miniserve.errors import SetupError

CANVAS = """Student,ID,SIS User ID,SIS Login ID,Section,Homework (1)
"    Points Possible",,,,,10
"Lovelace, Ada",4711,s001,ada.l,A,
"Hopper, Grace",4712,s002,grace.h,A,
"Student, Test",9,,abc,A,
"""
WORKSHEET = """Identifier,Full name,Email address,Status,Grade,Maximum grade,Feedback comments
Participant 4711,Ada Lovelace,ada.l@example.org,Submitted,,10,
Participant 4712,Grace Hopper,grace.h@example.org,Submitted,,10,
"""
GRADEBOOK = """First name,Last name,ID number,Email address
Ada,Lovelace,4711,ada.l@example.org
Grace,Hopper,4712,grace.h@example.org
"""


def roster(tmp_path: Path, text: str) -> Roster:
    (tmp_path / "roster.csv").write_text(text)
    return read_roster(tmp_path / "roster.csv")


@pytest.mark.parametrize(
    ("text", "ada"), [(CANVAS, "ada.l"), (WORKSHEET, "ada.l@example.org"), (GRADEBOOK, "ada.l@example.org")]
)
def test_what_platforms_export_is_read_as_it_is(text: str, ada: str, tmp_path: Path) -> None:
    found = roster(tmp_path, text)

    assert len(found.people) == 2
    for folder in ("Ada Lovelace", "lovelaceada", "ada.l", "ADA LOVELACE"):
        assert found.id_of(folder) == ada, folder
    assert found.id_of("?", "4711") == ada
    assert found.id_of("Grace Brewster", "") == "Grace Brewster"


def test_a_list_of_ids_is_a_roster_too(tmp_path: Path) -> None:
    assert [one.id for one in roster(tmp_path, "learner\nann\nbob\n").people] == ["ann", "bob"]


def test_the_column_learner_says_the_id(tmp_path: Path) -> None:
    found = roster(tmp_path, "Learner;Full name;Email\nada.lovelace;Ada Lovelace;al@example.org\n")

    assert found.id_of("Ada Lovelace") == "ada.lovelace"
    assert found.ids_of("ada.lovelace") == ["al@example.org", "al"]


def test_a_name_that_two_have_is_nobodys(tmp_path: Path) -> None:
    found = roster(tmp_path, "learner,name\na1,Ada Lovelace\na2,Ada Lovelace\n")

    assert found.id_of("Ada Lovelace") == "Ada Lovelace"
    assert found.id_of("a2") == "a2"
    assert NOBODY.id_of("ann", "7") == "ann"


@pytest.mark.parametrize(
    ("text", "said"),
    [("learner\n", "no learner in it"), ("grade\n3\n", "line 2"), ("learner\nann\nann\n", "ann is there twice")],
)
def test_a_roster_that_names_nobody_or_one_twice_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=said):
        roster(tmp_path, text)
    with pytest.raises(SetupError, match="does not exist"):
        read_roster(tmp_path / "nowhere.csv")
