"""Makes the verdict on one question, in a trusted process, from what the learner's kernel reports.

Knows how the answer's cell ended (`End`) and the kernel. A correct answer is correct however its cell ended, unless the
cell failed and hid that.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from queue import Empty

from miniserve.course.check.ask import Drive, Json, NotPlain, TimeUp, Told, limited
from miniserve.course.check.code import Code
from miniserve.course.check.question import Question, check
from miniserve.course.check.verdict import Problem, Status, Verdict
from miniserve.course.grade.kernel import GradedKernel, KernelGone
from miniserve.course.grade.sheet import MOST_CHARACTERS
from miniserve.course.grade.tell import ask_there, look

ASK_S = 15.0  # one case; the kernel's own limit of 10 s comes first
QUESTION_S = 28.0  # a whole question, including judging
TEXT_CHARACTERS = 20_000  # of an answer that a person reads: some ten pages


@dataclass(frozen=True, slots=True)
class End:
    """How a cell ended: well, if everything is empty."""

    error: str = ""
    hidden: bool = False  # it failed, and showed no error
    timeout: bool = False


def judge(question: Question, kernel: GradedKernel, end: End, seed: int, learner: str) -> tuple[Verdict, str | None]:
    """Return the verdict, and the text for a person to read if the question asks for one."""
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
    text = told_values[-1] if question.graded_by_hand and told_values and isinstance(told_values[-1], str) else None
    return _cut(replace(_finished(question, verdict, end), seed=seed)), text[:TEXT_CHARACTERS] if text else text


def _cut(verdict: Verdict) -> Verdict:
    """Return a verdict whose texts are short, whatever a judge quoted from an answer."""
    problem = verdict.problem and Problem(
        **{name: text[:MOST_CHARACTERS] for name, text in asdict(verdict.problem).items()}
    )
    return replace(verdict, problem=problem, note=verdict.note[:MOST_CHARACTERS])


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
            return failed(question.id, Status.ERROR, "raises", end.error)
        if seen.there:
            return Verdict(question.id, Status.NOT_TRIED)
        return failed(question.id, Status.MISSING, "missing", f"there is no {question.name} after the last cell")
    if isinstance(question, Code) and seen.borrowed:
        return failed(question.id, Status.FORBIDDEN, "forbidden", f"{question.name} comes from miniserve")
    return None


_WHY = {
    Status.TIMEOUT: ("A loop in your code doesn't end.", "Which condition is never met?"),
    Status.CRASHED: ("Your code ended the program that runs the notebook.", "Restart the kernel and run all cells."),
    Status.ERROR: ("The answer's cell stopped with this error.", "Restart the kernel and run all cells."),
    Status.MISSING: ("There is nothing to check.", "Restart the kernel and run all cells."),
    Status.FORBIDDEN: ("You should write this piece, not import it.", "Write the body yourself."),
    Status.TAMPERED: ("An answer must not change how errors are reported.", "Remove that code."),
    Status.WRONG: ("The answer doesn't have the right form.", "Compare it with the text of the question."),
}


def failed(question: str, status: Status, id_: str, seen: str) -> Verdict:
    """Return the verdict on an answer that the check could not ask."""
    why, next_ = _WHY[status]
    return Verdict(question, status, Problem(id_, seen, why, next_))


def _finished(question: Question, verdict: Verdict, end: End) -> Verdict:
    if question.graded_by_hand and verdict.status is Status.CORRECT:
        return Verdict(verdict.question_id, Status.NOTED, note="a person will read it")
    if verdict.status is Status.CORRECT and end.error:
        return replace(verdict, note=f"{verdict.note}; the cell also ended with {end.error}".lstrip("; ")[:200])
    return verdict
