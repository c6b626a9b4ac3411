"""Cases in layers, the first problem told, and counterexamples made small."""

from dataclasses import dataclass

import pytest

from miniserve.course.check.ask import Told, ask, drive_call
from miniserve.course.check.question import Case, Question, check, check_here, count_later_layers
from miniserve.course.check.verdict import Problem, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorts(Question):
    """Asks for a sorting function: first that it returns a list, then that it sorts."""

    def cases(self, seed, learner):
        rng = self.rng(seed)
        values = [rng.randrange(100) for _ in range(12)]
        return [
            Case([{"values": []}], "contract"),
            Case([{"values": [seed]}], "contract"),
            Case([{"values": values}], "properties", smaller),
        ]

    @property
    def drive(self):
        return drive_call

    def judge(self, case, told, learner):
        if not isinstance(told[0], list):
            return Problem("no-list", repr(told[0]), "A list is asked for.")
        values = case.asked[0]["values"]
        if len(told[0]) != len(values):
            return Problem("lost", repr(told[0]), "Some are missing.", where=repr(values))
        return (
            None if told[0] == sorted(values) else Problem("order", repr(told[0]), "Not in order.", where=repr(values))
        )


def smaller(asked):
    values = asked[0]["values"]
    return [[{"values": values[:i] + values[i + 1 :]}] for i in range(len(values))]


QUESTION = Sorts(id="0.1", name="mine", title="Sort", hints=("a", "b", "c"))


def state(answer, seed=1):
    return check_here(QUESTION, answer, seed)


def test_a_right_answer_passes_all_layers():
    verdict = state(lambda values: sorted(values))
    assert (verdict.status, verdict.credit) == (Status.CORRECT, 1.0)


def test_the_placeholder_is_not_tried():
    assert state(...).status is Status.NOT_TRIED


def test_a_problem_in_the_first_layer_earns_nothing():
    verdict = state(lambda values: None)
    assert (verdict.status, verdict.problem.id, verdict.credit) == (Status.WRONG, "no-list", 0.0)


def test_layers_that_passed_are_credited_and_named():
    verdict = state(lambda values: values)
    assert (verdict.status, verdict.problem.id, verdict.credit) == (Status.WRONG, "order", 0.5)
    assert verdict.note == "layer 2 of 2, properties; seed 1"


def test_while_grading_that_is_partly_right():
    verdict = check(QUESTION, lambda drive, asked: ask(drive, lambda values: values, asked), 1)
    assert verdict.status is Status.PARTIAL


class Layered(Sorts):
    """Five layers, each of which the answer passes if it knows the layer's name."""

    def cases(self, seed, learner):
        return [Case([{"values": [layer]}], layer) for layer in LAYERS]

    def judge(self, case, told, learner):
        return None if told[0] else Problem("fails", case.layer, "It fails.")


LAYERS = ("contract", "examples", "properties", "differential", "cost")
LAYERED = Layered(id="0.3", name="mine", title="", hints=())


@pytest.mark.parametrize(
    ("passes", "credit"),
    [
        ("examples properties differential cost", 0.8),  # right, but without the ValueError that the contract asks for
        ("contract cost", 0.2),  # cheap and wrong: cost says nothing
        ("cost", 0.0),
        ("contract", 0.2),
        ("contract examples", 0.4),
        ("contract properties", 0.4),
        ("contract examples differential", 0.6),
        ("contract examples properties differential", 0.8),
        ("", 0.0),
    ],
)
def test_graded_all_layers_count_wherever_the_first_one_fails(passes, credit):
    def ask_case(drive, asked):
        return ask(drive, lambda values: values[0] in passes.split(), asked)

    verdict = count_later_layers(LAYERED, check(LAYERED, ask_case, 1), ask_case)
    first = next(layer for layer in LAYERS if layer not in passes.split())

    assert verdict.credit == pytest.approx(credit)
    assert verdict.status is (Status.PARTIAL if credit else Status.WRONG)
    assert verdict.problem.what == first
    assert not credit or verdict.note.startswith(f"{round(credit * 5)} of 5 layers pass: ")


def test_the_counterexample_is_as_small_as_it_gets():
    verdict = state(lambda values: values)
    assert verdict.problem.where.count(",") == 1  # two values in the wrong order


def test_shrinking_keeps_to_the_same_problem():
    """Short lists lose a value, long ones are out of order: the problem found first is the one that is told."""
    verdict = state(lambda values: values if len(values) >= 6 or len(values) < 2 else values[1:])
    assert verdict.problem.id == "order"
    assert verdict.problem.where.count(",") == 5


def test_shrinking_ends():
    endless = Case([{"values": [3, 1, 2]}], "properties", lambda asked: [asked])

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Endless(Sorts):
        def cases(self, seed, learner):
            return [endless]

    question = Endless(id="0.2", name="mine", title="", hints=())
    assert check_here(question, lambda values: values, 1).problem.id == "order"


def test_what_never_ends_is_asked_once():
    asked_times = []

    def ask_case(drive, asked):
        asked_times.append(asked)
        return Told(error="TimeUp: it was still running after 10 s")

    verdict = check(QUESTION, ask_case, 1)
    assert (verdict.problem.id, len(asked_times)) == ("never-ends", 1)


def test_an_error_is_told_with_the_line_that_raised():
    def answer(values):
        return values[0]

    verdict = state(answer)
    assert (verdict.problem.id, verdict.problem.where) == ("raises", "return values[0]")
    assert "IndexError" in verdict.problem.what


def test_the_same_seed_asks_the_same():
    assert QUESTION.cases(3, "") == QUESTION.cases(3, "")
    assert QUESTION.cases(3, "") != QUESTION.cases(4, "")
