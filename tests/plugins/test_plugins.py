"""A user's own policy file: whatever is wrong with it is one line that names file and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from miniserve.errors import SetupError
from miniserve.plugins.load import is_plugin, load_class, load_object
from miniserve.policies.routing.balancer import Balancer
from miniserve.types import ReplicaView, Request

GOOD = """
from dataclasses import dataclass

@dataclass
class Mine:
    favourite: str = "r1"

    def choose(self, request, replicas):
        return self.favourite
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(GOOD)
    return tmp_path


def write(folder: Path, text: str) -> str:
    (folder / "bad.py").write_text(text)
    return "bad.py:Mine"


def test_a_good_file_gives_a_working_balancer(folder: Path) -> None:
    balancer = load_object("mine.py:Mine", Balancer, folder)
    assert balancer.choose(Request("q", "m", (1,)), (ReplicaView("r0"), ReplicaView("r1"))) == "r1"
    assert load_class("mine.py:Mine", Balancer, folder)(favourite="r0").favourite == "r0"


def test_an_absolute_path_and_the_current_folder_work_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_object(f"{folder}/mine.py:Mine", Balancer).favourite == "r1"
    monkeypatch.chdir(folder)
    assert load_object("mine.py:Mine", Balancer).favourite == "r1"
    assert load_object("mine.py:Mine", Balancer, folder / "elsewhere").favourite == "r1"


def test_a_method_may_be_static_or_take_more_with_defaults(folder: Path) -> None:
    text = "class Mine:\n    @staticmethod\n    def choose(request, replicas, extra=1): return None\n"
    assert load_object(write(folder, text), Balancer, folder).choose(None, ()) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def oops(:\n", r"bad\.py:1: the file does not import: SyntaxError: "),
        (
            "x = 1\nimport no_such_module\n",
            r"bad\.py:2: the file does not import: ModuleNotFoundError: No module named",
        ),
        ("x = 1\n\ny = x / 0\n", r"bad\.py:3: the file does not import: ZeroDivisionError: division by zero"),
        ("def f():\n    raise ValueError\nf()\n", r"bad\.py:2: the file does not import: ValueError$"),
        ("raise SystemExit('bye')\n", r"bad\.py:1: the file does not import: SystemExit: bye"),
        ("class Other: pass\nclass More: pass\n", r"bad\.py has no class Mine; its classes are Other, More"),
        ("x = 1\n", r"bad\.py has no class Mine; it has no classes"),
        ("def Mine(): pass\n", r"bad\.py has something that is not a class called Mine"),
        ("\nclass Mine:\n    pass\n", r"bad\.py:2: Mine lacks the method choose\(request, replicas\)"),
        ("class Mine:\n    choose = 3\n", r"bad\.py:1: Mine lacks the method choose"),
        (
            "class Mine:\n    def choose(self, request): pass\n",
            r"bad\.py:2: Mine\.choose\(self, request\) cannot be called as choose\(request, replicas\): too many",
        ),
        (
            "class Mine:\n    def __init__(self, alpha): pass\n    def choose(self, request, replicas): pass\n",
            r"bad\.py:Mine: the constructor needs alpha: give every argument a default",
        ),
        (
            "class Mine:\n    def __init__(self):\n        {}['a']\n    def choose(self, request, replicas): pass\n",
            r"bad\.py:3: Mine\(\) failed: KeyError: 'a'",
        ),
    ],
)
def test_each_thing_wrong_is_one_line(folder: Path, text: str, problem: str) -> None:
    with pytest.raises(SetupError) as caught:
        load_object(write(folder, text), Balancer, folder)
    assert re.search(problem, str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_says_where_it_was_looked_for(folder: Path) -> None:
    with pytest.raises(SetupError, match=rf"none\.py does not exist \(looked for {folder}/none\.py, .*none\.py\)"):
        load_object("none.py:Mine", Balancer, folder)
    (folder / "notes.txt").write_text("")
    with pytest.raises(SetupError, match=r"notes\.txt is not a Python file"):
        load_object("notes.txt:Mine", Balancer, folder)


@pytest.mark.parametrize("spec", ["mine.py:", ":Mine", "mine.py:not a name"])
def test_another_form_is_refused(spec: str) -> None:
    with pytest.raises(SetupError, match="is not of the form"):
        load_object(spec, Balancer)


def test_names_and_files_are_told_apart() -> None:
    assert is_plugin("a.py:B")
    assert not is_plugin("p2c")
