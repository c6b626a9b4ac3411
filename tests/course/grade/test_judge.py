"""Verdicts from what a kernel tells: here a namespace in this process; the grading itself uses real kernels."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict
from queue import Empty
from typing import Any

import pytest
from course.grade import toy
from course.grade.toy_course.ch90_toy.questions import QUESTIONS

from miniserve.course.check.ask import NotPlain, drive_call
from miniserve.course.check.code import CheckLayer, Code
from miniserve.course.check.question import Question
from miniserve.course.check.verdict import Problem, Status, Verdict
from miniserve.course.grade import kernel as kernels
from miniserve.course.grade.judge import End, judge
from miniserve.course.grade.kernel import KernelGone
from miniserve.course.grade.tell import look

BY_ID = {question.id: question for question in QUESTIONS}


class Namespace:
    """Evaluates what is asked where `cells` ran, and hands the answer on as a kernel would."""

    def __init__(self, *cells: str, fails: BaseException | None = None) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__", "p": BY_ID["90.1"].given("ann")}  # type: ignore[attr-defined]
        self.fails = fails
        for cell in cells:
            exec(cell, self.names)

    def value(self, expression: str, timeout_s: float) -> Any:
        if self.fails is not None:
            raise self.fails
        try:
            text = repr(eval(expression, self.names))
        except Exception as error:
            return kernels._plain_value(replied(status="error", ename=type(error).__name__, evalue=str(error)))
        return kernels._plain_value(replied(status="ok", data={"text/plain": text}))

    def settle(self) -> bool:
        return True


def replied(**answer: Any) -> dict[str, Any]:
    return {"user_expressions": {"v": answer}}


def verdict(question: str, *cells: str, end: End | None = None, fails: BaseException | None = None) -> Verdict:
    kernel: Any = Namespace(*cells, fails=fails)
    return judge(BY_ID[question], kernel, end or End(), 5, "ann")[0]


@pytest.mark.parametrize("question", ["90.1", "90.2", "90.3", "90.5"])
def test_right_answers_are_correct(question: str) -> None:
    assert verdict(question, toy.RIGHT[question]).status is Status.CORRECT


def test_the_numbers_are_the_learners_own() -> None:
    given = BY_ID["90.1"].given("bob")  # type: ignore[attr-defined]
    theirs = verdict("90.1", f"requests = {given['rate'] * given['time_s']}")

    assert theirs.status is Status.WRONG


def test_a_text_is_noted_and_handed_on() -> None:
    kernel: Any = Namespace(toy.RIGHT["90.4"])
    found, text = judge(BY_ID["90.4"], kernel, End(), 5, "ann")

    assert found.status is Status.NOTED
    assert text is not None
    assert text.startswith("Most are quick")


@pytest.mark.parametrize(
    ("question", "cell", "status", "problem"),
    [
        ("90.1", "requests = ...", Status.NOT_TRIED, ""),
        ("90.1", "requests = (..., ...)", Status.NOT_TRIED, ""),
        ("90.1", "", Status.MISSING, "missing"),
        ("90.1", "requests = True", Status.WRONG, "no-number"),
        ("90.1", "requests = p['rate'] / p['time_s']", Status.WRONG, "divided"),
        ("90.1", "requests = float('nan')", Status.WRONG, "not-plain"),
        ("90.1", "requests = type('M', (float,), {})(1)", Status.WRONG, "not-plain"),
        ("90.2", "in_system = lambda rate, time_s: ...", Status.NOT_TRIED, ""),
        ("90.2", "in_system = 7", Status.WRONG, "signature"),
        ("90.3", "waits = []\nwaits.append(waits)", Status.WRONG, "not-plain"),
        ("90.4", "reason = 'short'", Status.WRONG, "too-short"),
        ("90.5", "class LeastQueue:\n def choose(self, r, v): raise NotImplementedError('x')", Status.NOT_TRIED, ""),
        ("90.5", "from miniserve.policies.routing.balancer import LeastQueue", Status.FORBIDDEN, "forbidden"),
        ("90.5", "class LeastQueue:\n def choose(self, r, v): 1 / 0", Status.WRONG, "raises"),
        (
            "90.5",
            "class LeastQueue:\n def choose(self, r, v): return 'r1' if v else None",
            Status.PARTIAL,
            "not-shortest",
        ),
    ],
)
def test_each_other_answer_has_its_state(question: str, cell: str, status: Status, problem: str) -> None:
    found = verdict(question, cell)

    assert found.status is status
    assert (found.problem.id if found.problem else "") == problem


def test_a_cell_that_raised_before_it_answered_is_an_error_and_says_which() -> None:
    found = verdict("90.1", "requests = ...", end=End("ZeroDivisionError: division by zero"))

    assert found.status is Status.ERROR
    assert "ZeroDivisionError" in "\n".join(found.lines())


def test_an_answer_that_is_right_counts_even_if_its_cell_raised_later() -> None:
    found = verdict("90.3", toy.RIGHT["90.3"], end=End("ValueError: a plot"))

    assert found.status is Status.CORRECT
    assert "ValueError" in found.note


def test_an_error_that_was_hidden_is_tampering_even_with_a_right_answer() -> None:
    found = verdict("90.3", toy.RIGHT["90.3"], end=End("ValueError: x", hidden=True))

    assert (found.status, found.credit) == (Status.TAMPERED, 0.0)


@pytest.mark.parametrize(
    ("fails", "status"), [(Empty(), Status.TIMEOUT), (KernelGone("the kernel died"), Status.CRASHED)]
)
def test_a_kernel_that_does_not_answer(fails: BaseException, status: Status) -> None:
    assert verdict("90.3", toy.RIGHT["90.3"], fails=fails).status is status


@pytest.mark.parametrize(
    "patch",
    [
        'import json\njson.dumps = lambda *a, **k: \'{"tried": true, "value": true, "error": "", "line": ""}\'',
        'exec = lambda *a: a[1].update(tell=lambda *a: \'{"value": {"status": "correct", "credit": 1}}\')',
        "globals = lambda: {'requests': 1}",
    ],
)
def test_a_kernel_that_lies_gains_nothing(patch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "dumps", json.dumps)  # put back what the cell patches here
    for question in ("90.1", "90.2", "90.3", "90.4", "90.5"):
        assert verdict(question, patch).status not in (Status.CORRECT, Status.PARTIAL, Status.NOTED)


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "error", "ename": "E", "evalue": "e"},
        {"status": "ok", "data": {"text/plain": "__import__('os').getpid()"}},
        {"status": "ok", "data": {"text/plain": "'{}' + '{}'"}},
        {"status": "ok", "data": {"text/plain": "'[NaN]'"}},
        {"status": "ok", "data": {"text/plain": "'[1e999]'"}},
        {"status": "ok", "data": {"text/plain": "'" + "[" * 5_000 + "'"}},
        {"status": "ok", "data": {"text/plain": "'" + "9" * 5_000 + "'"}},
        {"status": "ok", "data": {"text/plain": 7}},
        {"status": "ok", "data": {}},
        {},
    ],
)
def test_only_quoted_json_of_plain_values_is_read(answer: dict[str, Any]) -> None:
    with pytest.raises(NotPlain):
        kernels._plain_value(replied(**answer))


@pytest.mark.parametrize("piece", ["error", "line"])
def test_what_a_kernel_says_about_an_error_is_bounded(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "dumps", json.dumps)  # put back what the cell patches here
    forged = {"tried": True, "value": None, "error": "ValueError: x", "line": ""} | {piece: "X\n\x1b y" * 200_000}
    found = verdict("90.2", f"import json\njson.dumps = lambda *a, real=json.dumps, **k: real({forged!r})")

    assert found.problem is not None
    assert all(len(text) <= 2_000 for text in asdict(found.problem).values())
    assert "\n" not in found.problem.what + found.problem.where


def test_what_a_judge_quotes_is_bounded() -> None:
    question = dataclasses.replace(
        BY_ID["90.3"],
        judge_value=lambda told: Problem("long", "x" * 9_999_999, "y" * 99_999),  # type: ignore[call-arg]
    )
    kernel: Any = Namespace(toy.RIGHT["90.3"])
    found = judge(question, kernel, End(), 5, "ann")[0]

    assert found.problem is not None
    assert [len(text) for text in asdict(found.problem).values()] == [4, 2_000, 2_000, 0, 5]


def test_a_text_for_a_person_has_a_limit() -> None:
    kernel: Any = Namespace("reason = 'a word ' * 500_000")

    assert judge(BY_ID["90.4"], kernel, End(), 5, "ann")[1] == ("a word " * 20_000)[:20_000]


def test_a_value_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "VALUE_CHARACTERS", 10)
    with pytest.raises(NotPlain, match="larger"):
        kernels._plain_value(replied(status="ok", data={"text/plain": "'[1, 2, 3, 4]'"}))


def layered() -> Code:
    names = ("contract", "examples", "properties", "differential", "cost")
    return Code(
        id="90.6",
        name="knows",
        title="",
        hints=(),
        target="miniserve/policies/routing/balancer.py::knows",
        driver=drive_call,
        layers=tuple(
            CheckLayer(name, lambda seed, name=name: [[{"layer": name}]], lambda asked, told: _known(told))
            for name in names
        ),
    )


def _known(told: Any) -> Problem | None:
    return None if told == [True] else Problem("unknown", repr(told), "It doesn't know this layer.")


@pytest.mark.parametrize(
    ("body", "status", "credit"),
    [
        ("return layer != 'contract'", Status.PARTIAL, 0.8),
        ("return layer in ('contract', 'cost')", Status.PARTIAL, 0.2),
        ("return layer == 'cost'", Status.WRONG, 0.0),
        ("return layer == 'examples' or 1 / 0", Status.PARTIAL, 0.2),
        ("return True", Status.CORRECT, 1.0),
    ],
)
def test_part_marks_are_the_share_of_layers_that_pass(body: str, status: Status, credit: float) -> None:
    kernel: Any = Namespace(f"def knows(layer):\n    {body}")
    found = judge(layered(), kernel, End(), 5, "ann")[0]

    assert (found.status, found.credit) == (status, pytest.approx(credit))


def test_when_a_later_layer_ends_the_kernel_the_first_verdict_stands() -> None:
    class Dies(Namespace):
        def value(self, expression: str, timeout_s: float) -> Any:
            if "differential" in expression:
                raise KernelGone("the kernel died")
            return super().value(expression, timeout_s)

    kernel: Any = Dies("def knows(layer):\n    return layer == 'contract'")
    found = judge(layered(), kernel, End(), 5, "ann")[0]

    assert (found.status, found.credit) == (Status.PARTIAL, 0.2)


def test_a_number_that_is_right_for_somebody_else_says_for_whom() -> None:
    bob = BY_ID["90.1"].given("bob")  # type: ignore[attr-defined]
    kernel: Any = Namespace(f"requests = {bob['rate'] * bob['time_s']}")
    found = judge(BY_ID["90.1"], kernel, End(), 5, "ann", ("zoe", "bob"))[0]

    assert (found.status, found.right_for) == (Status.WRONG, "bob")
    assert "bob" not in "\n".join(found.lines())
    assert judge(BY_ID["90.1"], kernel, End(), 5, "ann", ("zoe",))[0].right_for == ""
    assert judge(BY_ID["90.1"], kernel, End(), 5, "bob", ("ann",))[0].right_for == ""


def test_a_number_without_an_id_is_told_as_such() -> None:
    nobody = BY_ID["90.1"].given("")  # type: ignore[attr-defined]
    kernel: Any = Namespace(f"requests = {nobody['rate'] * nobody['time_s']}")

    assert judge(BY_ID["90.1"], kernel, End(), 5, "ann", ("", "bob"))[0].right_for == "no learner id"


ANSWERS = [
    "...",
    "(..., ...)",
    "[...]",
    "None",
    "7",
    "'...'",
    "lambda *a, **k: ...",
    "lambda *a, **k: None",
    "lambda *a, **k: 1",
    "type('C', (), {})",
    "type('C', (), {'choose': lambda self, r, v: ...})",
    "type('C', (), {'choose': lambda self, r, v: None, 'other': lambda self: ...})",
    "type('C', (), {'choose': lambda self, r, v: v[0]})",
    "type('C', (), {'other': lambda self: ...})",
]
TWO_METHODS = dataclasses.replace(layered(), target="miniserve/policies/routing/balancer.py::Two.choose+Two.gamma")
HALF = "type('Two', (), {'choose': lambda self: ..., 'gamma': lambda self: 3})"


@pytest.mark.parametrize("text", [*ANSWERS, HALF])
@pytest.mark.parametrize("question", [*QUESTIONS, layered(), TWO_METHODS], ids=lambda one: f"{one.id}-{one.kind}")
def test_not_tried_means_the_same_in_a_notebook_and_when_graded(question: Question, text: str) -> None:
    kernel: Any = Namespace(f"{question.name} = {text}")

    assert look(kernel, question, 5.0).tried is not question.not_tried(kernel.names[question.name])
