"""What an instructor should look at is found where it is used, and not in words that only look like it."""

from __future__ import annotations

import pytest
from course.submissions import make

from miniserve.course.grade.cells import odd
from miniserve.course.notebook.build import Course
from miniserve.course.notebook.source import read_source

CHAPTERS = [source.number for source in map(read_source, Course().sources()) if source.number]


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("import os\nos.kill(1, 9)", "kill"),
        ("import os\nos.getppid()", "getppid"),
        ("from os import getppid", "getppid"),
        ("import ctypes", "ctypes"),
        ("from ctypes import CDLL", "ctypes"),
        ("import socket as s", "socket"),
        ("from subprocess import run", "subprocess"),
        ("name = 'keyctl'", "keyctl"),
        ("open('/proc/self/environ')", "/proc"),
        ("import sys\nsys.modules['a'] = 1", "sys.modules"),
        ("object.__subclasses__()", "__subclasses__"),
        ("exec = lambda *a: None", "exec"),
        ("def globals(): ...", "globals"),
        ("from a import b as eval", "eval"),
        ("import math\nmath.isclose = lambda *a: True", "math.isclose"),
        ("import math\nsetattr(math, 'isclose', 1)", "setattr(math, ...)"),
        ("from a.b import Shell\nShell.showtraceback = 1", "showtraceback"),
        ("get_ipython().set_custom_exc((), f)", "set_custom_exc"),
        ("!rm -rf $PWD/*", "!rm -rf $PWD/*"),
        ("%%bash\nls", "%%bash"),
        ("x = open('../solutions/06.py')", "solutions/"),
        ("import socket\nx = = 1", "socket"),
    ],
)
def test_a_reach_is_told(text: str, sign: str) -> None:
    assert any(sentence.startswith(f"'{sign}': it ") for sentence in odd(text)), odd(text)


@pytest.mark.parametrize(
    "text",
    [
        "x = 1",
        "shell_socket = 3\nplug = wall.socket_of(shell_socket)",
        "forked = 2\nkill = 'a budget'\nkill = kill.upper()",
        "text = 'the subprocess forks'",
        "budget.modules = 3",
        "list = [1]\nmax = 3\nsum = 0",
        "self_exec = compiled = evaluate = 1",
        "import matplotlib.pyplot as plt\nplt.rcParams['font.size'] = 9\nplt.show()",
        "import numpy as np\nnp.random.seed(3)",
        "!pip list\n!ls\n%time x = 1",
        "class A:\n    def kill(self): ...",
    ],
)
def test_what_an_honest_learner_writes_is_no_sign(text: str) -> None:
    assert odd(text) == []


def test_a_module_that_another_cell_imports_may_not_be_changed_unseen() -> None:
    assert odd("math.isclose = 1", {"math"}) == ["'math.isclose': it changes something that it imports"]
    assert odd("mine.isclose = 1", {"math"}) == []


def test_each_sign_is_told_once() -> None:
    assert odd("import os\nos.kill(os.getppid(), 9)\nos.kill(2, 9)") == [
        "'kill': it sends signals to processes",
        "'getppid': it asks who its parent process is",
    ]


@pytest.mark.parametrize("number", CHAPTERS)
def test_the_solved_answers_of_the_course_show_none(number: int) -> None:
    _, _, right = make.solved(number)

    assert {id_: found for id_, text in right.items() if (found := odd(text))} == {}
