"""What a submission leaves is removed, however it was made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from miniserve.course.grade.clean import remove


def test_three_thousand_nested_folders_go(tmp_path: Path) -> None:
    top, before = tmp_path / "top", Path.cwd()
    top.mkdir()
    os.chdir(top)
    try:
        for _ in range(3_000):  # the path of the last is longer than the system allows
            os.mkdir("d")
            os.chdir("d")
            Path("file").write_text("x")
    finally:
        os.chdir(before)

    assert remove(top)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [b"ren\xe9", b"a\nb", b"-rf", b"\x1b[31m", b"x" * 255, "ä".encode() * 127, b"..."])
def test_odd_names_go(name: bytes, tmp_path: Path) -> None:
    inner = os.path.join(os.fsencode(tmp_path / "top"), name, name)
    os.makedirs(inner)
    with open(os.path.join(inner, name), "wb"):
        pass

    assert remove(tmp_path / "top")


def test_a_link_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "file").write_text("x")
    (tmp_path / "top" / "inner").mkdir(parents=True)
    (tmp_path / "top" / "folder").symlink_to(tmp_path / "ours")
    (tmp_path / "top" / "inner" / "up").symlink_to("..")
    (tmp_path / "top" / "nowhere").symlink_to("nowhere")

    assert remove(tmp_path / "top")
    assert (tmp_path / "ours" / "file").read_text() == "x"


def test_a_link_in_place_of_the_folder_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "file").write_text("x")
    (tmp_path / "top").symlink_to(tmp_path / "ours")

    assert remove(tmp_path / "top")
    assert (tmp_path / "ours" / "file").read_text() == "x"


def test_folders_without_any_right_go(tmp_path: Path) -> None:
    inner = tmp_path / "top" / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    for folder in (inner, inner.parent):
        folder.chmod(0)

    assert remove(tmp_path / "top")


def test_many_folders_side_by_side_and_below_go(tmp_path: Path) -> None:
    for place in range(300):
        (tmp_path / "top" / str(place % 7) / str(place)).mkdir(parents=True)

    assert remove(tmp_path / "top")


def test_what_is_not_there_is_gone(tmp_path: Path) -> None:
    assert remove(tmp_path / "nowhere")
