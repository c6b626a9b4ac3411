"""What a question is: cases to ask an answer, and a judge of what comes back.

    cases(seed) ──> [Case] ──drive(answer, asked)──> Told ──judge(case, told)──> Problem or None

Cases come in layers, cheapest first; `check` stops at the first problem. Grading then asks the later layers as well
(`count_later_layers`), since credit is the share of all layers that pass: one slip in the first must not cost the rest.
`numbers.py` and `kinds.py` have the kinds of pen-and-paper questions, `code.py` the code questions; a chapter's
questions are a module `chapters/chNN_slug/questions.py` with a tuple `QUESTIONS`. It always computes the truth, by a
formula, a simulation or the library; it contains no answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import ClassVar

from miniserve import seeds
from miniserve.course.check.ask import SWALLOWED, Drive, Json, Told, ask, drive_value, is_blank
from miniserve.course.check.printed import first_line_only, with_print
from miniserve.course.check.verdict import Problem, Status, Verdict

Asker = Callable[[Drive, Json], Told]  # how one case reaches the answer: in this process, or in a learner's kernel
_SHRINK_TRIES = 200


@dataclass(frozen=True, slots=True)
class Case:
    """One thing asked. `smaller` proposes simpler versions of `asked`, for counterexamples that fit on a line."""

    asked: Json = None
    layer: str = "answer"
    smaller: Callable[[Json], Sequence[Json]] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The common part. `name` is the answer's name in the notebook; hints go from concept to worked number."""

    kind: ClassVar[str] = ""
    graded_by_hand: ClassVar[bool] = False
    banded: ClassVar[bool] = False  # an answer may be partly right in a notebook as well, and that is no error

    id: str  # "6.1": chapter and place
    name: str
    title: str
    hints: tuple[str, ...]
    minutes: int = 5
    difficulty: int = 2  # of 5
    weight: float = 1.0

    def cases(self, seed: int, learner: str) -> Sequence[Case]:
        """Return what to ask. `learner` is who answers: some parameters are drawn for each learner."""
        return (Case(),)

    @property
    def drive(self) -> Drive:
        return drive_value

    def judge(self, case: Case, told: Json, learner: str) -> Problem | None:
        """Return what is wrong with `told`, the plain value that came back for `case`; None if it is right."""
        raise NotImplementedError

    def not_tried(self, answer: object) -> bool:
        """Return whether this is still the placeholder, or a list of nothing else."""
        return is_blank(answer)

    def failed(self, case: Case, told: Told) -> Problem:
        """Return what went wrong when asking the answer failed."""
        kind, _, message = told.error.partition(": ")
        if kind == "NotPlain":
            return _not_plain(message)
        if kind == "TimeUp":
            return _out_of_time(message)
        next_ = (
            "Run this line alone, with values of your own." if told.line else "Run your code alone, outside the check."
        )
        return Problem("raises", told.error, "Your code raised this error.", next_, told.line)

    @property
    def in_parts(self) -> bool:
        """Whether the answer has parts that can be written, and judged, one after the other."""
        return False

    def explain_here(self, answer: object, problem: Problem) -> Problem:
        """Return the problem with what only a look at the answer itself can tell; `answer` lives in this process."""
        return problem

    def rng(self, *key: object) -> Random:
        """Return a random generator of this question and `key`."""
        return Random(seeds.number("question", self.id, *key))


def _not_plain(message: str) -> Problem:
    found = re.fullmatch(r"it holds `\.\.\.`, a place not filled in yet(.*)", message)
    if found is not None:
        where, next_ = found[1].strip(" ()"), "Replace the `...`."
        if where.startswith("row"):
            next_ = "Fill it in, or end the list before it: the rows above are checked then."
        return Problem("not-filled", "`...`, not filled in yet", "This place isn't filled in yet.", next_, where)
    if re.search(r"holds a \w*(function|method)", message):
        next_ = "Call it, with parentheses: `clock()` is a time, `clock` only a function."
        return Problem("not-plain", message, "A function stands where its result should be.", next_)
    return Problem("not-plain", message, "The answer must be a plain value.", "Convert it, or recompute it.")


def _out_of_time(message: str) -> Problem:
    if SWALLOWED in message:
        why = "The loop doesn't end, and its `except:` catches everything, even time limits and Kernel > Interrupt."
        next_ = "Write `except Exception:`, or name the error that you expect. And which condition ends the loop?"
        return Problem("swallows-all", message, why, next_)
    why = "A loop in your code doesn't end, or the code is only too slow, or it sleeps or waits for input."
    return Problem("never-ends", message, why, "Which condition is never met? Try it alone with a small case.")


def check(question: Question, ask_case: Asker, seed: int, learner: str = "") -> Verdict:
    """Ask every case, layer by layer, until something is wrong.

    A part that isn't written yet comes last: what is written is judged before that is said.
    """
    cases = question.cases(seed, learner)
    layers = list(dict.fromkeys(case.layer for case in cases))
    found: tuple[Case, Problem] | None = None
    passed = len(layers)
    for case in cases:
        problem = _problem(question, ask_case, case, learner)
        if problem is None:
            continue
        passed = min(passed, layers.index(case.layer))
        unwritten = question.in_parts and problem.id == "not-written"
        if not unwritten or found is None:
            found = case, problem
        if not unwritten:
            break
    if found is None:
        return Verdict(question.id, Status.CORRECT, None, 1.0, seed, f"{len(layers)} layers" if len(layers) > 1 else "")
    case, problem = _shrunk(question, ask_case, *found, learner)
    status = Status.PARTIAL if passed else Status.WRONG
    place = layers.index(case.layer) + 1
    note = f"layer {place} of {len(layers)}, {case.layer}; seed {seed}" if len(layers) > 1 else ""
    return Verdict(question.id, status, placed(question, problem), passed / len(layers), seed, note)


def count_later_layers(question: Question, verdict: Verdict, ask_case: Asker, learner: str = "") -> Verdict:
    """Return the verdict on a wrong answer with credit for every layer that passes, also after the one that failed.

    How cheaply an answer gets its results says nothing when none of them is right, so cost then earns nothing.
    """
    cases = question.cases(verdict.seed, learner)
    layers = list(dict.fromkeys(case.layer for case in cases))
    failed = round(verdict.credit * len(layers))
    later = [layer for layer in layers[failed + 1 :] if _passes(question, ask_case, cases, layer, learner)]
    passed = layers[:failed] + later
    if not set(passed) - {"contract", "cost"}:
        passed = [layer for layer in passed if layer != "cost"]
    if not passed:
        return verdict
    note = f"{len(passed)} of {len(layers)} layers pass: {', '.join(passed)}; seed {verdict.seed}"
    return replace(verdict, status=Status.PARTIAL, credit=len(passed) / len(layers), note=note)


def _passes(question: Question, ask_case: Asker, cases: Sequence[Case], layer: str, learner: str) -> bool:
    return all(_problem(question, ask_case, case, learner) is None for case in cases if case.layer == layer)


def placed(question: Question, problem: Problem) -> Problem:
    """Return the problem with a place: the whole answer, if the judge names no row, line or argument."""
    return problem if problem.where else replace(problem, where=question.name)


def check_here(question: Question, answer: object, seed: int, learner: str = "") -> Verdict:
    """Check an answer that lives in this process.

    Partly right counts as wrong here, and only grading gives part marks; unless the question has bands.
    """
    if question.not_tried(answer):
        return Verdict(question.id, Status.NOT_TRIED, seed=seed)
    with first_line_only() as printed:
        verdict = check(question, lambda drive, asked: ask(drive, answer, asked), seed, learner)
    if verdict.problem is not None:
        problem = with_print(question.explain_here(answer, verdict.problem), printed.first)
        status = verdict.status if question.banded else Status.WRONG
        return Verdict(question.id, status, problem, verdict.credit, seed, verdict.note)
    return verdict


def _problem(question: Question, ask_case: Asker, case: Case, learner: str) -> Problem | None:
    told = ask_case(question.drive, case.asked)
    return question.judge(case, told.value, learner) if told.ok else question.failed(case, told)


def _shrunk(question: Question, ask_case: Asker, case: Case, problem: Problem, learner: str) -> tuple[Case, Problem]:
    """Return the smallest case found that fails in the same way."""
    tries = 0
    progress = case.smaller is not None and problem.id not in ("never-ends", "swallows-all")
    while progress and case.smaller is not None:
        progress = False
        for asked in case.smaller(case.asked):
            tries += 1
            if tries > _SHRINK_TRIES:
                return case, problem
            candidate = Case(asked, case.layer, case.smaller)
            found = _problem(question, ask_case, candidate, learner)
            if found is not None and found.id == problem.id:
                case, problem, progress = candidate, found, True
                break
    return case, problem
