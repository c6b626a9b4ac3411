"""What a notebook works with: `ch = course.chapter(6)`, then `ch.check("6.1", answer)`, `ch.hint("6.1")`.

Knows the chapter's questions and who the learner is. Prints words; raises `NotCorrect` for a wrong answer only.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from miniserve import seeds
from miniserve.course import chapters
from miniserve.course.check.code import Code, reaches_for_library
from miniserve.course.check.numbers import Number, Params
from miniserve.course.check.question import Question, check_here, placed
from miniserve.course.check.verdict import NotCorrect, Status, Verdict
from miniserve.course.notebook.solutions import solution_of

T = TypeVar("T")
LEARNER_FILE = Path("learner_id.txt")  # beside the notebooks; start_here.ipynb writes it
GRADER = Path(__file__).resolve().parents[1] / "grade"  # absent from the copy of the package in a graded kernel
GIVEN_FILE = Path(__file__).resolve().parents[3] / "given.json"  # beside the package in a graded kernel


class Misused(KeyError):
    """A call of the notebook's that can't be answered; one line in place of a traceback through this package."""

    def __str__(self) -> str:
        return str(self.args[0])

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


_NO_ANSWER = object()


class Chapter:
    """One chapter's questions, for one learner."""

    def __init__(self, number: int, questions: Mapping[str, Question], learner: str = "") -> None:
        self.number = number
        self.learner = learner
        self._questions = dict(questions)
        self._hints: Counter[str] = Counter()
        self._tried: set[str] = set()

    def __repr__(self) -> str:
        return f"chapter {self.number}: {len(self._questions)} questions"

    def question(self, id_: str | float) -> Question:
        """Return a question; 5.1 will do for "5.1". Raises: Misused, naming the chapter's questions."""
        if str(id_) not in self._questions:
            raise Misused(f"Chapter {self.number} has no question {id_!r}; it has {', '.join(self._questions)}.")
        return self._questions[str(id_)]

    def given(self, id_: str | float) -> Params:
        """Return the parameters of a question: the same for every learner, or drawn for this one."""
        question = self.question(id_)
        return question.given(self.learner) if isinstance(question, Number) else {}

    def check(self, id_: str | float, answer: object = _NO_ANSWER, *, seed: int | None = None) -> None:
        """Print the verdict. `seed` repeats an earlier check with the numbers that it drew.

        Raises: NotCorrect if the answer is wrong; Misused without a question or an answer.
        """
        question = self.question(id_)
        if answer is _NO_ANSWER:
            raise Misused(f'The answer is missing. Write ch.check("{question.id}", {question.name}).')
        verdict = self.verdict(id_, answer, seed=seed)
        if verdict.status is not Status.NOT_TRIED:
            self._tried.add(question.id)
        if verdict.status is Status.WRONG:
            raise NotCorrect(verdict)
        print("\n".join(verdict.lines()))

    def verdict(self, id_: str | float, answer: object, *, seed: int | None = None) -> Verdict:
        """Return the verdict without printing or raising."""
        question = self.question(id_)
        id_ = question.id
        seed = seeds.bucket("check", id_, self.learner, buckets=10_000) if seed is None else seed
        if question.not_tried(answer):
            return Verdict(id_, Status.NOT_TRIED, seed=seed, note=f"fill in {question.name}, and run its cell first")
        if isinstance(question, Code) and (problem := reaches_for_library(question, answer)) is not None:
            return Verdict(id_, Status.WRONG, placed(question, problem), seed=seed)
        verdict = check_here(question, answer, seed, self.learner)
        if question.graded_by_hand and verdict.status is Status.CORRECT:
            return Verdict(id_, Status.NOTED, note="a person will read it", seed=seed)
        return verdict

    def yours(self, id_: str | float, answer: T) -> T | None:
        """Return the learner's piece for a run or a plot; None, with a sentence, until it is right.

        An open problem's is returned as soon as it keeps the rules.
        """
        status = self.verdict(id_, answer).status
        if status in (Status.CORRECT, Status.PARTIAL):
            return answer
        print(f"{id_} is {status.value}{' yet' if status is Status.NOT_TRIED else ''}: shown without your version.")
        return None

    def hint(self, id_: str | float) -> None:
        """Print the next hint of a question: concept, then formula, then a worked example with other numbers."""
        hints = self.question(id_).hints
        id_ = str(id_)
        self._hints[id_] = min(self._hints[id_] + 1, len(hints))
        number = self._hints[id_]
        print(f"Hint {number} of {len(hints)} for {id_}: {hints[number - 1]}")

    def solution(self, id_: str | float) -> None:
        """Print the solved answer of a question and its place, once the learner has made an attempt."""
        id_ = self.question(id_).id
        if id_ not in self._tried:
            print(f'{id_}: try it first, and check it; a failed attempt is enough. ch.hint("{id_}") helps.')
        elif (found := solution_of(self.number, id_)) is None:
            print(f"{id_}: this copy of the course has no solutions folder.")
        else:
            print(f"{id_}, from {found.place} (run and explained in {found.notebook}):\n\n{found.text}")


def set_learner(learner: str) -> None:
    """Record who you are, in a file beside the notebooks: some questions draw their numbers for each learner.

    Raises: ValueError for a name that can't be a folder's, because a grader finds it there.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", learner):
        raise ValueError(f"{learner!r} will not do: 1 to 64 letters, digits or . _ @ - (no spaces), as in ada.lovelace")
    LEARNER_FILE.write_text(learner + "\n", encoding="utf-8")
    print(f"You are {learner}. In chapters that are already open, run the first code cell again.")


def read_learner(raw: bytes) -> str:
    """Return the learner id in `learner_id.txt`. Editors add a byte-order mark, which would draw other numbers."""
    wide = raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return raw.decode("utf-16" if wide else "utf-8-sig", "replace").strip()


def chapter(number: int, learner: str | None = None) -> Chapter:
    """Open a chapter. Without `learner`, read it from `learner_id.txt` beside the notebook."""
    if learner is None:
        learner = read_learner(LEARNER_FILE.read_bytes()) if LEARNER_FILE.is_file() else ""
    if not GRADER.exists():
        return CheckedElsewhere(number, {}, learner)  # a kernel being graded has neither grader nor questions
    questions: tuple[Question, ...] = import_module(f"{chapters.folder(number)}.questions").QUESTIONS
    return Chapter(number, {question.id: question for question in questions}, learner)


class CheckedElsewhere(Chapter):
    """A chapter inside a kernel being graded: it knows the parameters but no truth; the judge is elsewhere."""

    def __repr__(self) -> str:
        return f"chapter {self.number}, checked elsewhere"

    def given(self, id_: str | float) -> Params:
        """Return the parameters of a question, from the file that the grader put where a notebook can't delete it."""
        given: dict[str, Params] = json.loads(GIVEN_FILE.read_text(encoding="utf-8")) if GIVEN_FILE.is_file() else {}
        return given.get(str(id_), {})

    def check(self, id_: str | float, answer: object = _NO_ANSWER, *, seed: int | None = None) -> None:
        print(f"{id_}  is checked outside this notebook")

    def verdict(self, id_: str | float, answer: object, *, seed: int | None = None) -> Verdict:
        return Verdict(str(id_), Status.NOT_TRIED, note="checked outside this notebook")

    def hint(self, id_: str | float) -> None:
        print(f"{id_}: no hints while grading")

    def solution(self, id_: str | float) -> None:
        print(f"{id_}: no solutions while grading")
