"""Makes the verdict on one question, in a trusted process, from what the learner's kernel reports.

Knows how the answer's cell ended (`End`) and the kernel. A correct answer is correct however its cell ended, unless the
cell failed and hid that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from queue import Empty

from miniserve.course.check.ask import Drive, Json, NotPlain, TimeUp, Told, limited
from miniserve.course.check.code import Code
from miniserve.course.check.numbers import Number
from miniserve.course.check.question import Asker, Case, Question, check, count_later_layers
from miniserve.course.check.verdict import Problem, Status, Verdict
from miniserve.course.grade.kernel import GradedKernel, KernelGone
from miniserve.course.grade.sheet import MOST_CHARACTERS
from miniserve.course.grade.tell import ask_there, look

ASK_S = 15.0  # one case; the kernel's own limit of 10 s comes first
QUESTION_S = 28.0  # a whole question, including judging
LATER_S = 10.0  # the layers after the first that failed; the supervisor waits longer than both together
TEXT_CHARACTERS = 20_000  # of an answer that a person reads: some ten pages


@dataclass(frozen=True, slots=True)
class End:
    """How a cell ended: well, if everything is empty."""

    error: str = ""
    hidden: bool = False  # it failed, and showed no error
    timeout: bool = False


def judge(
    question: Question, kernel: GradedKernel, end: End, seed: int, learner: str, others: Sequence[str] = ()
) -> tuple[Verdict, str | None]:
    """Return the verdict, and the text for a person to read if the question asks for one.

    `others` are learner ids whose numbers a wrong answer may fit: for an instructor to look at.
    """
    told_values: list[Json] = []

    def ask_case(drive: Drive, asked: Json) -> Told:
        told = ask_there(kernel, question, drive, asked, ASK_S)
        told_values.append(told.value)
        return told

    try:
        with limited(QUESTION_S):
            verdict = _before(question, kernel, end) or check(question, ask_case, seed, learner)
    except (Empty, TimeUp):
        kernel.settle()
        verdict = failed(question.id, Status.TIMEOUT, "no-end", "it was still running when its time was over")
    except KernelGone as gone:
        verdict = failed(question.id, Status.CRASHED, "crashed", str(gone))
    except NotPlain as error:
        verdict = failed(question.id, Status.WRONG, "not-plain", str(error))
    except Exception as error:  # a judge met something that its author didn't foresee
        verdict = failed(question.id, Status.WRONG, "unjudgeable", f"{type(error).__name__}: {error}"[:200])
    if verdict.status in (Status.WRONG, Status.PARTIAL):
        verdict = replace(verdict, right_for=_right_for(question, told_values[:1], learner, others))
        verdict = _with_later_layers(question, kernel, verdict, ask_case, learner)
    text = told_values[-1] if question.graded_by_hand and told_values and isinstance(told_values[-1], str) else None
    return _cut(replace(_finished(question, verdict, end), seed=seed)), text[:TEXT_CHARACTERS] if text else text


def _cut(verdict: Verdict) -> Verdict:
    """Return a verdict whose texts are short, whatever a judge quoted from an answer."""
    problem = verdict.problem and Problem(
        **{name: text[:MOST_CHARACTERS] for name, text in asdict(verdict.problem).items()}
    )
    return replace(verdict, problem=problem, note=verdict.note[:MOST_CHARACTERS])


def _with_later_layers(
    question: Question, kernel: GradedKernel, verdict: Verdict, ask_case: Asker, learner: str
) -> Verdict:
    """Return the verdict with credit for later layers; as it is, if asking them hangs or ends the kernel."""
    if verdict.problem is None or verdict.problem.id in ("never-ends", "not-plain", "unjudgeable", "forbidden"):
        return verdict
    try:
        with limited(LATER_S):
            return count_later_layers(question, verdict, ask_case, learner)
    except (Empty, TimeUp):
        kernel.settle()
    except Exception:  # the kernel is gone, or a judge met something unforeseen: the first verdict stands
        pass
    return verdict


def _right_for(question: Question, told: list[Json], learner: str, others: Sequence[str]) -> str:
    """Return the first of `others` whose drawn numbers a wrong answer fits; many forget to set an id at all."""
    if not (isinstance(question, Number) and question.draw is not None and told):
        return ""
    own = question.given(learner)
    different = (one for one in others if question.given(one) != own)
    return next((one or "no learner id" for one in different if question.judge(Case(), told[0], one) is None), "")


def lends(question: Question) -> bool:
    """Return whether asking the question brings the text of other answers into the kernel."""
    return isinstance(question, Code) and bool(question.lends)


def _before(question: Question, kernel: GradedKernel, end: End) -> Verdict | None:
    """Return the verdict that follows from the cell's end and a first look; None if the check should ask the answer."""
    if end.hidden:
        return failed(
            question.id, Status.TAMPERED, "hidden-error", f"the cell failed, but showed no error: {end.error}"
        )
    seen = look(kernel, question, ASK_S)
    if not (seen.there and seen.tried):
        if end.timeout:
            return failed(question.id, Status.TIMEOUT, "no-end", end.error)
        if end.error:
            return failed(question.id, Status.ERROR, "asks" if "input()" in end.error else "raises", end.error)
        if seen.there:
            return Verdict(question.id, Status.NOT_TRIED)
        return failed(question.id, Status.MISSING, "missing", f"there is no {question.name} where its check stands")
    if isinstance(question, Code) and seen.borrowed:
        return failed(question.id, Status.FORBIDDEN, "forbidden", f"{question.name} comes from miniserve")
    return None


_WHY = {
    Status.TIMEOUT: ("A loop in your code doesn't end.", "Which condition is never met?"),
    Status.CRASHED: ("Your code ended the program that runs the notebook.", "Remove what ends it, such as exit()."),
    Status.ERROR: ("The answer's cell stopped with this error.", "Restart the kernel and run all cells."),
    Status.MISSING: ("There is nothing to check.", "Restart the kernel and run all cells."),
    Status.FORBIDDEN: ("You should write this piece, not import it.", "Write the body yourself."),
    Status.TAMPERED: ("An answer must not change how errors are reported.", "Remove that code."),
    Status.WRONG: ("The answer doesn't have the right form.", "Compare it with the text of the question."),
}


_NO_INPUT = ("Nobody is there to type while your notebook is graded.", "Write the value into the cell.")


def failed(question: str, status: Status, id_: str, seen: str) -> Verdict:
    """Return the verdict on an answer that the check could not ask."""
    why, next_ = _NO_INPUT if id_ == "asks" else _WHY[status]
    return Verdict(question, status, Problem(id_, seen, why, next_))


def _finished(question: Question, verdict: Verdict, end: End) -> Verdict:
    if question.graded_by_hand and verdict.status is Status.CORRECT:
        return Verdict(verdict.question_id, Status.NOTED, note="a person will read it")
    if verdict.status is Status.CORRECT and end.error:
        return replace(verdict, note=f"{verdict.note}; the cell also ended with {end.error}".lstrip("; ")[:200])
    return verdict
