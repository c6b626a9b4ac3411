"""An open problem earns its marks in bands, and the bars move with the instances."""

import pytest

from miniserve.course.check.ask import ask
from miniserve.course.check.chapter import Chapter
from miniserve.course.check.open_problem import Bar, OpenProblem
from miniserve.course.check.question import check, check_here, count_later_layers
from miniserve.course.check.verdict import Problem, Status


def _keeps_rules(told):
    return None if type(told) is int and told >= 0 else Problem("no-count", repr(told), "Give a whole number.", "Do.")


OPEN = OpenProblem(
    id="1.1",
    name="cost",
    title="Cheap",
    hints=("a", "b", "c"),
    keeps_rules=_keeps_rules,
    score=lambda told, seed: told + seed,
    bars=(
        Bar("naive", lambda seed: 30 + seed, "Try."),
        Bar("the library", lambda seed: 20 + seed, "Try harder."),
        Bar("par", lambda seed: 10 + seed, "Try hardest."),
    ),
    unit="USD",
)


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize(
    ("cost", "status", "credit", "problem"),
    [
        (5, Status.CORRECT, 1.0, ""),
        (10, Status.PARTIAL, 0.75, "above-par"),
        (15, Status.PARTIAL, 0.75, "above-par"),
        (20, Status.PARTIAL, 0.5, "above-the library"),
        (30, Status.PARTIAL, 0.25, "above-naive"),  # the naive answer itself
        (-1, Status.WRONG, 0.0, "no-count"),
        ("5", Status.WRONG, 0.0, "no-count"),
    ],
)
def test_marks_come_in_bands_on_any_instances(cost, status, credit, problem, seed):
    verdict = check_here(OPEN, cost, seed)
    assert (verdict.status, verdict.credit) == (status, credit)
    assert (verdict.problem.id if verdict.problem else "") == problem


@pytest.mark.parametrize(("cost", "credit"), [(15, 0.75), (25, 0.5), (35, 0.25), (-1, 0.0)])
def test_grading_gives_the_same_marks(cost, credit):
    def there(drive, asked):
        return ask(drive, cost, asked)

    graded = count_later_layers(OPEN, check(OPEN, there, 3), there)
    assert graded.credit == credit


def test_a_message_shows_the_score_beside_all_bars():
    verdict = check_here(OPEN, 25, 2)
    assert verdict.problem.what == "27 USD; naive 32, the library 22, par 12"


def test_an_untouched_answer_is_not_tried():
    assert check_here(OPEN, ..., 0).status is Status.NOT_TRIED


def test_a_chapter_shows_an_answer_in_a_band_and_raises_nothing(capsys):
    ch = Chapter(1, {"1.1": OPEN})
    ch.check("1.1", 15, seed=2)
    assert capsys.readouterr().out.startswith("1.1  PARTIAL  layer 4 of 4, par; seed 2\n")
    assert ch.yours("1.1", 15) == 15
    assert ch.yours("1.1", -1) is None
