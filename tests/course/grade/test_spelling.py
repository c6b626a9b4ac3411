"""Names that others chose can be shown anywhere, and names that look alike are told apart."""

from __future__ import annotations

import os

import pytest

from miniserve.course.grade.spelling import alike, file_stem, printable, readable


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ann", "ann"),
        ("René 李", "René 李"),
        ("mal\nann  90  5 correct", "mal\\nann  90  5 correct"),
        ("a\rb\tc\0", "a\\rb\\tc\\x00"),
        ("\x1b]0;title\x07\x1b[31mred", "\\x1b]0;title\\x07\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("an\u202en", "an\\u202en"),
        ("\u2066ann\u2069", "\\u2066ann\\u2069"),
        ("ann\u200b", "ann\\u200b"),
        ("a\u00adn\u2060n\ufeff", "a\\xadn\\u2060n\\ufeff"),
        ("a\u00a0b\u2003c", "a\\xa0b\\u2003c"),
        ("ann\ufe0f", "ann\\ufe0f"),
        ("ann\U000e0041", "ann\\U000e0041"),
        ("\udce9", "\\udce9"),
        ("e\u0301", "e\u0301"),
    ],
)
def test_what_is_invisible_or_moves_others_is_shown_as_an_escape(name: str, text: str) -> None:
    assert printable(name) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("René".encode(), "René"),
        (b"Ren\xe9", "René"),
        (b"\x80uro", "€uro"),
        (b"\x81", "\x81"),
        (b"ann/90.ipynb", "ann/90.ipynb"),
    ],
)
def test_a_name_in_an_old_encoding_is_read(raw: bytes, text: str) -> None:
    assert readable(os.fsdecode(raw)) == text


@pytest.mark.parametrize(
    "other",
    [
        "ann\u200b",
        "Ann",
        "a\u202dnn",
        "\u0430nn",
        "ann ",
        "\uff41nn",
        "a\u00adnn",
        "\u03b1nn",
    ],  # Cyrillic, fullwidth, Greek
)
def test_names_that_look_alike_are_found(other: str) -> None:
    assert alike(["ann", "bob", other]) == {"ann": [other], other: ["ann"]}


def test_composed_and_decomposed_letters_look_alike() -> None:
    assert alike(["Ren\u00e9", "Rene\u0301"]).keys() == {"Ren\u00e9", "Rene\u0301"}


def test_names_that_differ_are_not_found() -> None:
    assert alike(["ann", "anne", "bob", "René", "Rene", "ann", "Анна", "Инна"]) == {}


def test_learners_never_share_a_file_name_and_none_is_too_long() -> None:
    names = ["ann", "a/b", "a_b", "a b", "..", "x" * 300, "x" * 301, "ä" * 127, "\udce9", "\x1b", "René"]
    stems = [file_stem(name) for name in names]

    assert len(set(stems)) == len(names)
    assert all(stem.isascii() and len(stem) < 100 and not {*stem} & {*"/.\\"} for stem in stems)
