"""The checks are checked: wrong answers are caught and called by their names, right ones are taken, whatever the seed.

For each chapter there is a bank `bank/chNN/`:

    wrong_12.1.diff               answers with one mistake, each as its difference from the solution (see `answers.py`)
    right_14.2.diff               other correct answers
    wrong_18.4_recursion.py       an answer that has little in common with the solution: the text of its cell
    wrong.py, right.py            short answers: WRONG = [("6.1", answer, "problem-id"), ...], RIGHT = [("6.1", answer)]
    equivalent.toml               mutants that are no mistakes (`python -m miniserve course mutate`)

A wrong answer's name is the id of the problem that it must be told, with two underscores and a word if several have the
same one: `herds__first`.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from course.answers import BANK, answers, solution

from miniserve.course.check import question as asking
from miniserve.course.check.chapter import Chapter, chapter
from miniserve.course.check.code import Code
from miniserve.course.check.kinds import FreeText, Kill, Predict, Witness
from miniserve.course.check.numbers import Formula, Number
from miniserve.course.check.open_problem import OpenProblem
from miniserve.course.check.question import Question
from miniserve.course.check.verdict import MAX_LINES, Status, Verdict
from miniserve.course.mutation import run as mutate

CHAPTERS = sorted(int(path.name.removeprefix("ch")) for path in BANK.glob("ch[0-9][0-9]"))
SEEDS = 10
LEARNERS = ("", "ada", "grace")  # some questions have parameters of one's own


@dataclass(frozen=True)
class Entry:
    """One answer of a bank. `problem` is the id that it must be told; empty for a right one."""

    question_id: str
    problem: str
    name: str
    make: Callable[[str], Any]  # the answer's name -> the answer

    @property
    def number(self) -> int:
        return int(self.question_id.partition(".")[0])

    @functools.cached_property
    def told(self) -> Verdict:
        """The verdict that this answer gets in a notebook."""
        return self.verdict()

    def verdict(self, seed: int | None = None, learner: str = "") -> Verdict:
        ch = opened(self.number, learner)
        return ch.verdict(self.question_id, self.make(ch.question(self.question_id).name), seed=seed)


def opened(number: int, learner: str = "") -> Chapter:
    return chapter(number, learner=learner)


def entries(number: int) -> Iterator[Entry]:
    for path in sorted((BANK / f"ch{number:02}").glob("*.py")):
        if path.stem in ("wrong", "right"):
            yield from _short(path)
    for answer in answers(number):
        yield Entry(
            answer.question_id,
            answer.problem,
            answer.name,
            lambda name, answer=answer: mutate.answer_in(answer.full_text(), name),
        )


def _short(path: Path) -> Iterator[Entry]:
    module = _module(path)
    rows = [(*row, "")[:3] for row in getattr(module, path.stem.upper())]
    for i, (question_id, answer, problem) in enumerate(rows):
        name = f"{path.stem}_{question_id}_{problem or i}"
        yield Entry(question_id, problem, name, lambda _, answer=answer: answer)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bank_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ENTRIES = [entry for number in CHAPTERS for entry in entries(number)]
WRONG = [entry for entry in ENTRIES if entry.problem]
RIGHT = [entry for entry in ENTRIES if not entry.problem]
QUESTIONS = [question for number in CHAPTERS for question in opened(number)._questions.values()]
each_wrong = pytest.mark.parametrize("entry", WRONG, ids=lambda entry: entry.name)
each_right = pytest.mark.parametrize("entry", RIGHT, ids=lambda entry: entry.name)
each_question = pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)


# --- verdicts ------------------------------------------------------------------------------------------------------


@each_wrong
def test_a_wrong_answer_is_caught_and_called_by_its_name(entry: Entry) -> None:
    verdict = entry.told
    in_a_band = opened(entry.number).question(entry.question_id).banded and verdict.credit > 0
    assert verdict.status is (Status.PARTIAL if in_a_band else Status.WRONG), verdict.lines()
    assert verdict.problem is not None
    assert verdict.problem.id == entry.problem, "\n".join(verdict.lines())


@each_wrong
def test_its_message_says_what_where_why_and_what_next_in_eight_lines(entry: Entry) -> None:
    verdict = entry.told
    problem = verdict.problem
    assert problem is not None
    assert problem.what
    assert problem.why
    assert problem.next
    assert problem.where
    assert len(verdict.lines()) <= MAX_LINES + 1, "the headline, and eight lines"
    assert not any(line.endswith("…") for line in verdict.lines()), "nothing had to be cut"


@each_right
def test_a_right_answer_is_taken(entry: Entry) -> None:
    verdict = entry.told
    assert verdict.status in (Status.CORRECT, Status.NOTED), "\n".join(verdict.lines())


def holds(entry: Entry, seed: int, learner: str = "") -> None:
    verdict = entry.verdict(seed, learner)
    told = verdict.problem.id if verdict.problem else ""
    assert told == entry.problem, f"{entry.name}, seed {seed}: {verdict.lines()}"


def _of_functions(entries: list[Entry]) -> list[Entry]:
    """Return those whose check draws: an answer that is a value meets no seed."""
    return [e for e in entries if isinstance(opened(e.number).question(e.question_id), Code | Formula | OpenProblem)]


@pytest.mark.parametrize("entry", _of_functions(ENTRIES), ids=lambda entry: entry.name)
def test_no_seed_changes_a_verdict(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_SHRINK_TRIES", 0)  # a shrunk case has the same problem, by construction
    for seed in range(SEEDS):
        holds(entry, seed)


@pytest.mark.full
@pytest.mark.parametrize("number", CHAPTERS)
def test_two_hundred_seeds_change_no_verdict(
    number: int, record_property: Callable[[str, object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_SHRINK_TRIES", 0)
    drawn = [entry for entry in _of_functions(ENTRIES) if entry.number == number]
    for entry in drawn:
        for seed in range(200):
            holds(entry, seed)
    record_property("course_bank_seeds", 200)
    record_property("course_bank_answers", len(drawn))


# --- what a question has -------------------------------------------------------------------------------------------


@each_question
def test_a_question_has_enough_in_its_bank(question: Question) -> None:
    chaffs = Counter(entry.question_id for entry in WRONG)[question.id]
    wheats = Counter(entry.question_id for entry in RIGHT)[question.id]
    if isinstance(question, Code):
        assert (chaffs >= 6, wheats >= 3) == (True, True), f"{chaffs} wrong answers and {wheats} right ones"
    elif isinstance(question, OpenProblem):
        assert (chaffs >= 4, wheats >= 3) == (True, True), f"{chaffs} wrong answers and {wheats} right ones"
    elif isinstance(question, Number | Formula):
        assert len(question.misconceptions) >= 4
    elif isinstance(question, FreeText):
        assert question.rubric
    else:
        assert chaffs >= 4, f"{chaffs} wrong answers"


@each_question
def test_the_solution_is_taken(question: Question) -> None:
    number = int(question.id.partition(".")[0])
    texts = {solution.question_id: solution.text for solution in mutate.solutions(number)}
    if question.id in texts:
        assert mutate.passes(question.id, texts[question.id])


@each_question
def test_hints_go_in_three_steps_and_none_tells_the_answer(question: Question) -> None:
    assert len(question.hints) >= 3
    assert len(set(question.hints)) == len(question.hints)
    said = " ".join(question.hints)
    if isinstance(question, Number):
        for learner in LEARNERS:
            truth = question.truth(**question.given(learner))
            numbers = [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*\.?\d*", said)]
            near = [n for n in numbers if truth and abs(n / truth - 1) <= question.rtol]
            assert not near, f"a hint says {near}, and the answer is {truth:g}"
    if isinstance(question, Code):
        body = {line.strip() for line in solution(question.id).splitlines() if len(line.strip()) > 25}
        told = [line for line in body if line in said]
        assert not told, f"a hint holds the solution's line {told}"


def _draws(question: Number | Formula, count: int) -> Iterator[dict[str, Any]]:
    if isinstance(question, Formula):
        rng = question.rng("diagnosable")
        yield from (question.draw(rng) for _ in range(count))
    else:
        learners = [f"learner{i}" for i in range(count)] if question.draw is not None else [""]
        yield from (question.given(learner) for learner in learners)


@each_question
def test_each_mistake_gives_a_number_of_its_own(question: Question) -> None:
    """Truth and misconceptions are pairwise more than five tolerances apart: for each set of a Number's parameters, and
    somewhere in 64 sets for a Formula, whose check sees all of them.
    """
    if not isinstance(question, Number | Formula):
        return
    named = {"truth": question.truth} | {mistake.id: mistake.value for mistake in question.misconceptions}
    assert len(named) == len(question.misconceptions) + 1, "two misconceptions have the same id"
    apart: Counter[tuple[str, str]] = Counter()
    draws = list(_draws(question, 200))
    for given in draws:
        values = [(name, value(**given)) for name, value in named.items()]
        for i, (one, a) in enumerate(values):
            for other, b in values[:i]:
                apart[one, other] += abs(a - b) > 5 * question.rtol * max(abs(a), abs(b))
    needed = len(draws) if isinstance(question, Number) else len(draws) // 16
    confused = [pair for pair, count in apart.items() if count < needed]
    assert not confused, f"{confused} give the same number"


@pytest.mark.parametrize("number", CHAPTERS)
def test_pen_and_paper_chapters_ask_in_many_ways(number: int) -> None:
    if number > 10:
        return
    kinds = {type(question) for question in opened(number)._questions.values()}
    assert len(kinds) >= 4
    assert kinds & {Witness, Kill}
    assert Predict in kinds


# --- mutants -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", CHAPTERS)
def test_small_mistakes_in_the_solutions_are_noticed(number: int) -> None:
    """A few mutants of each solution; `--every 1` is for the full run."""
    for result in mutate.scores(number, every=8):
        assert not result.survivors, "\n".join(result.lines())


@pytest.mark.full
@pytest.mark.parametrize("number", CHAPTERS)
def test_at_least_95_percent_of_all_mutants_are_noticed(
    number: int, record_property: Callable[[str, object], None]
) -> None:
    results = list(mutate.scores(number))
    assert all(result.good for result in results), "\n".join(line for result in results for line in result.lines())
    assert mutate.few_equivalent(results)
    record_property(f"course_mutants_ch{number:02}", sum(result.total for result in results))
    killed = sum(result.killed for result in results) / sum(result.total - result.equivalent for result in results)
    record_property(f"course_mutants_killed_ch{number:02}", round(killed, 4))
