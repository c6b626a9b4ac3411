"""A chapter of two questions in a folder of its own: what the tests of the course's machine build."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from miniserve.course.check.code import CheckLayer, Code
from miniserve.course.check.numbers import Number
from miniserve.course.check.question import Question
from miniserve.course.check.verdict import Problem
from miniserve.course.notebook.build import Course

LIBRARY = '''"""A library of one class and one function."""


def decorated(function):
    return function


class Least:
    """Takes the least loaded."""

    def __init__(self) -> None:
        self.calls = 0  # kept

    @decorated
    def choose(
        self,
        loads: list[int],
    ) -> int:
        """Return the place of the smallest load.

        The first one wins a tie.
        """
        # this comment belongs to the body
        self.calls += 1
        smallest = min(loads)
        return loads.index(smallest)

    async def forget(self) -> None:
        # so does this one
        self.calls = 0


def double(x: float) -> float:
    doubled = x + x
    return doubled
'''

SOURCE = """# %% [markdown] id="intro"
# # A small chapter
#
# Runs in {{run_time}}.

# %% id="setup"
import sys
sys.path.insert(0, TESTS)
from miniserve.course.check.chapter import Chapter
from small_chapter import questions
ch = Chapter(7, questions(7))

# %% [markdown] id="card-7.1"
# ## How much?

# %% id="answer-7.1" tags=["answer"] question="7.1"
# SOLUTION
wait_s = 2 * 21.0
# END SOLUTION

# %% id="check-7.1" tags=["check"]
ch.check("7.1", wait_s)

# %% id="answer-7.2" tags=["answer"] question="7.2" target="lib/least.py::Least.choose"
decorated = staticmethod

# %% id="check-7.2" tags=["check"]
ch.check("7.2", Least)

# %% id="shown" tags=["nbval-check-output"]
print(Least, len("two"))

# %% id="address"
object()
""".replace("decorated = staticmethod", "def decorated(function):\n    return function")


def _judge(asked: Any, told: Any) -> Problem | None:
    return None if told == [1] else Problem("off", repr(told), "Not the smallest.")


def drive(answer: Any, asked: list[list[int]]) -> list[int]:
    """Let the learner's class choose once per list of loads."""
    return [answer().choose(loads) for loads in asked]


def questions(number: int) -> Mapping[str, Question]:
    """Return the two questions of chapter 7."""
    if number == 0:
        return {}
    hints = ("a", "b", "c")
    layers = (CheckLayer("examples", lambda seed: [[[3, 1, 2]]], _judge),)
    target = "lib/least.py::Least.choose"
    one = Number(id="7.1", name="wait_s", title="Wait", hints=hints, truth=lambda: 42.0)
    two = Code(id="7.2", name="Least", title="Least", hints=hints, driver=drive, layers=layers, target=target)
    return {"7.1": one, "7.2": two}


def write(folder: Path, source: str = SOURCE, name: str = "07_small") -> Course:
    """Write the library and one source; return the course."""
    for sub in ("solutions", "chapters", "lib"):
        (folder / sub).mkdir(exist_ok=True)
    (folder / "lib/least.py").write_text(LIBRARY)
    (folder / f"solutions/{name}.py").write_text(source.replace("TESTS", repr(str(Path(__file__).parent))))
    return Course(folder, questions)
