"""Flags in a book: who has which, and what a flag's version does to a request."""

from __future__ import annotations

import pytest

from miniserve.control.flags import MOST_FLAGS, FlagBook, FlagSetting
from miniserve.errors import SetupError


def test_the_users_own_entry_beats_the_cohort_which_beats_the_share() -> None:
    book = FlagBook()
    book.put(FlagSetting("a", share=1.0, off=("bob",)))
    book.put(FlagSetting("b", on=("bob",), cohorts={"beta": 1.0}))
    assert book.on_for("bob", "") == ("b",)
    assert book.on_for("eve", "beta") == ("a", "b")
    assert book.on_for("eve", "") == ("a",)


def test_who_is_not_known_has_only_what_all_have() -> None:
    book = FlagBook()
    book.put(FlagSetting("almost", share=0.999))
    book.put(FlagSetting("all", share=1.0))
    assert book.on_for("", "") == ("all",)


def test_a_flag_brings_its_version_to_those_who_asked_for_the_model_alone() -> None:
    book = FlagBook()
    book.put(FlagSetting("told"))
    book.put(FlagSetting("new", serves="large@2"))
    book.put(FlagSetting("newer", serves="large@3"))
    flags = ("told", "new", "newer")
    assert book.version_of("large", flags, lambda version: True) == "large@2"
    assert book.version_of("large", flags, lambda version: version == "large@3") == "large@3"
    assert book.version_of("large", flags, lambda version: False) == "large"
    assert book.version_of("large@1", flags, lambda version: True) == "large@1"
    assert book.version_of("small", flags, lambda version: True) == "small"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (FlagSetting("a", share=1.5), "between 0 and 1"),
        (FlagSetting("a", on=("ann",), off=("ann",)), "both on and off"),
        (FlagSetting("a", serves="large"), "must serve a version"),
        (FlagSetting("a", serves="@2"), "must serve a version"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(setting: FlagSetting, said: str) -> None:
    book = FlagBook()
    book.put(FlagSetting("a", share=0.25))
    with pytest.raises(SetupError, match=said):
        book.put(setting)
    assert book.settings()["a"].share == 0.25


def test_there_is_an_end_to_flags() -> None:
    book = FlagBook()
    for number in range(MOST_FLAGS):
        book.put(FlagSetting(f"f{number}"))
    book.put(FlagSetting("f0", share=0.5))
    with pytest.raises(SetupError, match="flags already"):
        book.put(FlagSetting("one more"))
    book.drop("f0")
    book.put(FlagSetting("one more"))
