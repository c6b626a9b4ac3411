"""A chapter of two questions in a folder of its own: what the tests of the course's machine build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from miniserve.course.build import Course
from miniserve.course.code import Code, Layer
from miniserve.course.kinds import Number
from miniserve.course.question import Question
from miniserve.course.verdict import Problem

LIBRARY = '''"""A library of one class."""


class Least:
    """Takes the least loaded."""

    def __init__(self) -> None:
        self.calls = 0  # kept

    def choose(self, loads: list[int]) -> int:
        """Return the place of the smallest load."""
        # the first one wins a tie
        self.calls += 1
        smallest = min(loads)
        return loads.index(smallest)


def double(x: float) -> float:
    """Return twice `x`."""
    doubled = x + x
    return doubled
'''

QUESTIONS = """
from small_chapter import questions
from miniserve.course.chapter import Chapter
ch = Chapter(7, questions())
"""

SOURCE = """# %% [markdown] id="intro"
# # A small chapter
#
# Runs in {{run_time}}.

# %% id="setup"
import sys
sys.path.insert(0, TESTS)
from miniserve.course.chapter import Chapter
from small_chapter import questions
ch = Chapter(7, questions(7))

# %% [markdown] id="one"
# ## How much?

# %% id="answer-7.1" tags=["answer"] question="7.1"
# SOLUTION
wait_s = 2 * 21.0
# END SOLUTION

# %% id="check-7.1" tags=["check"]
ch.check("7.1", wait_s)

# %% id="answer-7.2" tags=["answer"] question="7.2" target="lib/least.py::Least.choose"
from collections.abc import Sequence

# %% id="check-7.2" tags=["check"]
ch.check("7.2", Least)

# %% id="shown" tags=["nbval-check-output"]
print(object() is None, [1, 2])
"""


def _judge(asked: object, told: object) -> Problem | None:
    return None if told == [1] else Problem("off", repr(told), "Not the smallest.")


def drive(answer: type, asked: list[list[int]]) -> list[int]:
    return [answer().choose(loads) for loads in asked]


def questions(number: int) -> Mapping[str, Question]:
    """Return the two questions of chapter 7."""
    if number == 0:
        return {}
    layer = Layer("examples", lambda seed: [[[3, 1, 2]]], _judge)
    one = Number(id="7.1", name="wait_s", title="Wait", hints=("a", "b", "c"), truth=lambda: 42.0)
    two = Code(
        id="7.2",
        name="Least",
        title="Least",
        hints=("a", "b", "c"),
        driver=drive,
        layers=(layer,),
        target="lib/least.py::Least.choose",
    )
    return {"7.1": one, "7.2": two}


def write(folder: Path, source: str = SOURCE, name: str = "07_small", change: Callable[[str], str] = str) -> Course:
    """Write the library and one source; return the course."""
    for sub in ("solutions", "chapters", "lib"):
        (folder / sub).mkdir(exist_ok=True)
    (folder / "lib/least.py").write_text(LIBRARY)
    text = change(source).replace("TESTS", repr(str(Path(__file__).parent)))
    (folder / f"solutions/{name}.py").write_text(text)
    return Course(folder, questions)
