"""Code questions: layers, stubs, and answers that use what they should build."""

import dataclasses
import functools
import textwrap
from collections.abc import Sequence
from typing import Protocol

import pytest

from miniserve.course.check.ask import Told, drive_call
from miniserve.course.check.code import (
    CheckLayer,
    Code,
    comes_from_library,
    forbidden_use,
    is_stub,
    reaches_for_library,
)
from miniserve.course.check.question import check_here
from miniserve.course.check.verdict import Problem, Status
from miniserve.observe import percentiles
from miniserve.observe.percentiles import percentile
from miniserve.observe.percentiles import percentile as borrowed
from miniserve.policies.routing.balancer import Balancer, LeastOutstanding


def judge(asked, told):
    right = [percentile(case["values"], case["p"]) for case in asked]
    return None if told == right else Problem("rank", repr(told), "Another value has this rank.")


def on_error(asked, told):
    return Problem("empty", told.error, "No values are no reason to fail.") if "IndexError" in told.error else None


QUESTION = Code(
    id="0.1",
    name="percentile",
    title="t",
    hints=("a", "b", "c"),
    target="miniserve/observe/percentiles.py::percentile",
    driver=drive_call,
    forbidden=("percentiles", "percentiles_of_sorted"),
    layers=(
        CheckLayer("examples", lambda seed: [[{"values": [3, 1, 2], "p": 50}]], judge, on_error=on_error),
        CheckLayer(
            "properties", lambda seed: [[{"values": list(range(200, 0, -1)), "p": p}] for p in (1, 99, 100)], judge
        ),
    ),
)
METHODS = Code(
    id="0.2",
    name="Mine",
    title="t",
    hints=("a", "b", "c"),
    target="miniserve/policies/routing/balancer.py::LeastOutstanding.choose",
    driver=drive_call,
    layers=(),
)


def test_a_class_without_its_method_is_told_which_one_is_missing():
    error = "AttributeError: 'LeastOutstanding' object has no attribute 'choose'"
    question = dataclasses.replace(METHODS, layers=QUESTION.layers)
    case = question.cases(1, "")[0]
    assert question.failed(case, Told(error=error)).id == "method-missing"
    assert question.failed(case, Told(error=error, line="self.other.choose")).id == "raises", "a line of their own"
    assert question.failed(case, Told(error=error.replace("choose", "chose"))).id == "raises"
    assert question.failed(case, Told(error="NotImplementedError: 0.2", line="raise ...")).id == "not-written"


def mine(values, p):
    ordered = sorted(values)
    return ordered[max(1, -(-len(ordered) * p // 100)) - 1]


def stub(values, p):
    """Return the p-th percentile."""
    raise NotImplementedError("Exercise 0.1: write the body")


class Stub:
    def __init__(self):
        self.seen = 0

    def choose(self, request, replicas):
        """Return a replica's id."""
        raise NotImplementedError("Exercise 0.2: write the body")


class Written(Stub):
    def choose(self, request, replicas):
        return min(replicas, key=lambda view: view.outstanding).replica_id if replicas else None


def test_a_correct_version_passes_every_layer():
    assert check_here(QUESTION, mine, 1).status is Status.CORRECT


def test_a_wrong_version_fails_in_the_layer_that_sees_it():
    verdict = check_here(QUESTION, lambda values, p: sorted(values)[len(values) // 2], 1)
    assert (verdict.problem.id, verdict.credit) == ("rank", 0.5)


def test_a_layer_can_have_a_better_word_for_an_exception():
    assert check_here(QUESTION, lambda values, p: values[7], 1).problem.id == "empty"
    assert check_here(QUESTION, lambda values, p: 1 / 0, 1).problem.id == "raises"


@pytest.mark.parametrize("untouched", [stub, ...])
def test_an_untouched_function_is_not_tried(untouched):
    assert check_here(QUESTION, untouched, 1).status is Status.NOT_TRIED


@pytest.mark.parametrize(("answer", "tried"), [(Stub, False), (Written, True), (..., False)])
def test_a_class_is_tried_once_a_method_that_is_asked_for_is_written(answer, tried):
    assert METHODS.not_tried(answer) is not tried


def test_of_several_methods_one_that_is_written_is_an_attempt():
    both = dataclasses.replace(METHODS, target="x.py::Stub.choose+Stub.observe")
    assert both.methods == ("choose", "observe")
    half = type("Half", (Stub,), {"observe": lambda self, result: result})
    assert both.not_tried(type("None", (Stub,), {"observe": Stub.choose}))
    assert not both.not_tried(half)


def test_targets_name_a_symbol_and_the_methods_to_write():
    assert (QUESTION.symbol, QUESTION.methods) == ("percentile", ())
    assert (METHODS.symbol, METHODS.methods) == ("LeastOutstanding", ("choose",))
    assert QUESTION.denied == {"percentile", "percentiles", "percentiles_of_sorted"}


def test_a_library_class_is_no_stub():
    assert not is_stub(LeastOutstanding)
    assert not is_stub(3)


DENIED = frozenset({"percentile", "percentiles"})
IMPORT = "from miniserve.observe.percentiles import percentile"


@pytest.mark.parametrize(
    ("source", "use"),
    [
        (IMPORT, IMPORT),
        (f"{IMPORT} as p", IMPORT),
        ("from miniserve.observe.percentiles import *", "from miniserve.observe.percentiles import *"),
        ("import miniserve.observe.percentiles as m\nm.percentiles([1], (50,))", "m.percentiles"),
        ("import miniserve as m\nm.observe.percentiles.percentile([1], 5)", "m.observe.percentiles.percentile"),
        ("import inspect\ninspect.getsource(x)", "inspect.getsource(x)"),
        ("__import__('miniserve')", "__import__('miniserve')"),
        ("from importlib import import_module\nimport_module('miniserve')", "import_module('miniserve')"),
        (f"    def indented(self):\n        {IMPORT}\n", IMPORT),
    ],
)
def test_reaching_for_the_library_is_seen(source, use):
    assert forbidden_use(source, DENIED) == use


@pytest.mark.parametrize(
    "source",
    [
        "from miniserve.observe.percentiles import rank",
        "from statistics import quantiles as percentiles",
        "def percentile(values, p):\n    return sorted(values)[0]",
        "def broken(:",
        "'from miniserve.observe.percentiles import percentile'",
        "# from miniserve.observe.percentiles import percentile",
    ],
)
def test_what_is_allowed_is_not_refused(source):
    assert forbidden_use(source, DENIED) is None


def through_the_module(values, p):
    return percentiles.percentile(values, p)


def through_another_name(values, p):
    return borrowed(values, p)


def inside(values, p):
    from miniserve.observe.percentiles import percentiles as several

    return several(values, (p,))[0]


@pytest.mark.parametrize(
    "answer",
    [percentile, functools.partial(percentile, p=50), through_the_module, through_another_name, inside],
    ids=["itself", "partial", "module", "alias", "inside"],
)
def test_an_answer_that_uses_the_librarys_version_is_refused(answer):
    assert reaches_for_library(QUESTION, answer).id == "forbidden"


def test_an_own_function_is_not_refused():
    assert reaches_for_library(QUESTION, mine) is None


class Protocolled(Balancer):
    def choose(self, request, replicas):
        return None


class Child(LeastOutstanding):
    """Nothing of its own."""


class Taken:
    choose = LeastOutstanding.choose


@pytest.mark.parametrize(
    ("answer", "ours"),
    [(Written, False), (Protocolled, False), (Child, True), (Taken, True), (LeastOutstanding, True)],
)
def test_a_class_is_the_librarys_if_its_method_is(answer, ours):
    assert comes_from_library(answer, ("choose",)) is ours
    assert (reaches_for_library(METHODS, answer) is not None) is ours


def test_a_class_that_delegates_is_refused():
    made = {"LeastOutstanding": LeastOutstanding}
    exec(  # as a notebook's cells do: one imports, the other defines
        textwrap.dedent("""
        class Mine:
            def choose(self, request, replicas):
                return LeastOutstanding().choose(request, replicas)
        """),
        made,
    )
    assert reaches_for_library(METHODS, made["Mine"]).what == "LeastOutstanding"


def test_protocols_of_others_are_no_matter():
    class Shape(Protocol):
        def choose(self, request: object, replicas: Sequence[object]) -> str | None: ...

    assert not comes_from_library(Shape, ("choose",))
