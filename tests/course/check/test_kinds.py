"""The kinds of questions: right answers pass, each mistake is named, and no value that comes along breaks a judge."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniserve.course.check.ask import SWALLOWED, Told, ask, plain
from miniserve.course.check.kinds import Classify, FreeText, Kill, Predict, Trace, Witness, locked
from miniserve.course.check.numbers import Formula, Misconception, Number, in_unit, is_placeholder
from miniserve.course.check.question import Case, check_here
from miniserve.course.check.verdict import Problem, Status

COMMON = {"name": "mine", "title": "t", "hints": ("a", "b", "c")}

NUMBER = Number(
    id="0.1",
    truth=lambda n, size: n * size,
    params={"n": 6},
    draw=lambda rng: {"size": rng.randrange(10, 90)},
    unit="s",
    misconceptions=(Misconception("added", "You added.", lambda n, size: n + size),),
    **COMMON,
)
FORMULA = Formula(
    id="0.2",
    truth=lambda p, k: 1 - (1 - p) ** k,
    draw=lambda rng: {"p": rng.uniform(0.001, 0.2), "k": rng.randrange(2, 60)},
    misconceptions=(Misconception("times", "p times k.", lambda p, k: p * k),),
    **COMMON,
)
TRACE = Trace(
    id="0.3",
    truth=lambda: [("a", 1, 0.5), ("b", 2, 0.25)],
    columns=("name", "count", "share"),
    explain=lambda row, column, seen, right: (f"wrong-{column}", f"It is not {seen!r}."),
    **COMMON,
)
CLASSIFY = Classify(
    id="0.4",
    items={"x": "about x", "y": "about y"},
    options=("up", "down"),
    keys={"x": locked("0.4", "x", "up"), "y": locked("0.4", "y", "down")},
    because={"x": "x goes up.", "y": "y goes down."},
    **COMMON,
)
WITNESS = Witness(
    id="0.5",
    judge_value=lambda told: None if told == [1, 2] else Problem("no-witness", repr(told)[:80], "Not that."),
    **COMMON,
)
PREDICT = Predict(id="0.6", experiment=lambda: 10.0, too_low="More.", too_high="Less.", unit="s", **COMMON)
KILL = Kill(
    id="0.7",
    admissible=lambda told: (
        None
        if isinstance(told, list) and told and all(type(v) in (int, float) for v in told)
        else Problem("no-input", repr(told)[:80], "A list of numbers.")
    ),
    correct=max,
    buggy={
        "last": (lambda values: values[-1], "Its last value is the largest."),
        "third": (lambda values: values[2], ""),
    },
    **COMMON,
)
TEXT = FreeText(id="0.8", rubric=("a",), model_answer="m", at_least_words=5, **COMMON)
QUESTIONS = (NUMBER, FORMULA, TRACE, CLASSIFY, WITNESS, PREDICT, KILL, TEXT)


def problem(question, answer, learner="ada", seed=1):
    verdict = check_here(question, answer, seed, learner)
    return None if verdict.status is Status.CORRECT else verdict.problem.id


SIZE = NUMBER.given("ada")["size"]

RIGHT = [
    (NUMBER, 6 * SIZE),
    (NUMBER, 6.0 * SIZE * 1.009),
    (NUMBER, f"{6 * SIZE} s"),
    (NUMBER, f"{6000 * SIZE:,} ms"),
    (NUMBER, f"{SIZE / 10} min"),
    (FORMULA, lambda p, k: 1 - (1 - p) ** k),
    (TRACE, [["a", 1, 0.5], ["b", 2, 0.25]]),
    (TRACE, [("a", 1.0, 0.501), ("b", 2, 0.25)]),
    (CLASSIFY, {"x": "up", "y": "down"}),
    (WITNESS, (1, 2)),
    (PREDICT, (6, 18)),
    (PREDICT, [10, 10]),
    (PREDICT, (9.98, 9.995)),  # as the message shows it, rounded
    (KILL, [1, 3, 2, 0]),
    (TEXT, "five words are enough here"),
]

WRONG = [
    (NUMBER, 6 + SIZE, "added"),
    (NUMBER, True, "no-number"),
    (NUMBER, str(6 * SIZE), "no-number"),  # '42' for 42
    (NUMBER, "about 5 s", "no-number"),
    (NUMBER, "1.2.3 s", "no-number"),
    (NUMBER, "1,5 s", "no-number"),  # would be 15 to a careless reader
    (NUMBER, f"{6 * SIZE} B", "wrong-unit"),
    (NUMBER, f"{6 * SIZE} furlong", "wrong-unit"),
    (NUMBER, float("nan"), "not-plain"),
    (NUMBER, 10**400, "not-plain"),
    (NUMBER, [6 * SIZE], "no-number"),
    (NUMBER, None, "no-number"),
    (NUMBER, -6 * SIZE, "off"),
    (FORMULA, lambda p, k: p * k, "times"),
    (FORMULA, lambda p, k: 0.5, "off"),
    (FORMULA, lambda p, k: True, "no-number"),
    (FORMULA, lambda p, k: "0.5", "no-number"),
    (FORMULA, lambda p, k: float("nan"), "not-plain"),
    (FORMULA, lambda p, n: 1 - (1 - p) ** n, "signature"),
    (FORMULA, 0.5, "signature"),
    (FORMULA, lambda p, k: 1 / 0, "raises"),
    (TRACE, [["a", 2, 0.5], ["b", 2, 0.25]], "wrong-count"),
    (TRACE, [["a", 1, 0.5]], "rows-missing"),
    (TRACE, [["a", 1, 0.5], ...], "not-filled"),
    (TRACE, [["a", 1, 0.5], ["b", 2]], "columns"),
    (TRACE, [["a", 1, 0.5], ["b", 2, 0.3]], "wrong-share"),
    (TRACE, [["a", True, 0.5], ["b", 2, 0.25]], "no-number"),
    (TRACE, [["a", "1", 0.5], ["b", 2, 0.25]], "no-number"),
    (TRACE, [["a", 1, 0.5], ["b", 2, 0.25], ["c", 3, 0]], "rows-extra"),
    (TRACE, "a", "no-table"),
    (CLASSIFY, {"x": "up"}, "items-missing"),
    (CLASSIFY, {"x": "up", "y": "sideways"}, "no-option"),
    (CLASSIFY, {"x": "up", "y": "up"}, "item-y"),
    (CLASSIFY, {"x": "down", "y": "up"}, "item-x"),
    (CLASSIFY, {"x": ["up"], "y": "down"}, "no-option"),
    (CLASSIFY, {"x": "up", "y": "down", "z": "up"}, "items-unknown"),
    (CLASSIFY, {"X": "up", "y": "down"}, "items-missing"),
    (CLASSIFY, {"x": "Up ", "y": "down"}, "no-option"),
    (CLASSIFY, ["up", "down"], "no-dict"),
    (WITNESS, [2, 1], "no-witness"),
    (PREDICT, (1, 100), "too-wide"),
    (PREDICT, (1, 2), "too-low"),
    (PREDICT, (20, 30), "too-high"),
    (PREDICT, (30, 20), "no-interval"),
    (PREDICT, (0, 20), "no-interval"),
    (PREDICT, (True, 20), "no-interval"),
    (PREDICT, 10, "no-interval"),
    (KILL, [1, 2, 3], "alive-last"),
    (KILL, [1, 2, 3, 0], "alive-third"),
    (KILL, [], "no-input"),
    (TEXT, "too short", "too-short"),
    (TEXT, 5, "no-text"),
    (TEXT, "word " * 300, "repeats"),
    (FORMULA, lambda p, k: print(p), "returns-nothing"),
]


@pytest.mark.parametrize(("question", "answer"), RIGHT, ids=lambda value: getattr(value, "kind", None))
def test_right_answers_pass(question, answer):
    assert problem(question, answer) is None


@pytest.mark.parametrize(("question", "answer", "id_"), WRONG, ids=lambda value: getattr(value, "kind", None))
def test_wrong_answers_are_told_what_is_wrong(question, answer, id_):
    assert problem(question, answer) == id_


@pytest.mark.parametrize(("question", "answer", "id_"), WRONG, ids=lambda value: getattr(value, "kind", None))
def test_every_message_says_what_where_why_and_what_next(question, answer, id_):
    told = check_here(question, answer, 1, "ada").problem
    assert told.what
    assert told.where
    assert told.why
    assert told.next or question in (WITNESS, KILL)  # these two have only the words that this file gives them


@pytest.mark.parametrize(("interval", "said"), [((800, 1200), "100 times"), ((0.01, 0.02), "over 1000"), ((3, 4), "")])
def test_a_prediction_in_another_unit_is_told_so(interval, said):
    told = check_here(PREDICT, interval, 1).problem.next
    assert said in told
    assert bool(said) == ("is that the unit?" in told)


@pytest.mark.parametrize("interval", [(1, 2), (20, 30)])
def test_a_wrong_prediction_does_not_learn_the_result(interval):
    said = " ".join(check_here(PREDICT, interval, 1).lines()[1:])
    assert f"{PREDICT.experiment():g}" not in said.replace(f"({interval[0]}, {interval[1]})", "")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda p, k: "0.5", "without str()"),
        (lambda p, k: [0.5], "not a list"),
        (lambda p, k: {"p": 0.5}, "not a dictionary"),
        (lambda p, k: True, "not whether"),
    ],
)
def test_what_is_no_number_is_told_how_it_becomes_one(answer, said):
    assert said in check_here(FORMULA, answer, 1).problem.next


def test_a_function_that_prints_its_result_is_told_so_and_not_all_of_it_is_shown(capsys):
    told = check_here(FORMULA, lambda p, k: print(f"p is {p}", "\nand more"), 1).problem
    shown = capsys.readouterr().out.splitlines()
    assert (told.id, told.what[:16]) == ("returns-nothing", "it printed 'p is")
    assert "`return`" in told.next
    assert len(shown) == 2, "one line of 64 calls, and how many there were"
    assert "127 more lines" in shown[1]


def test_what_an_answer_prints_does_not_make_it_wrong(capsys):
    assert check_here(FORMULA, lambda p, k: print(p) or 1 - (1 - p) ** k, 1).status is Status.CORRECT
    assert "more lines" in capsys.readouterr().out


def test_the_case_shown_is_the_one_that_shows_the_mistake_best():
    question = replace(FORMULA, truth=lambda p, k: k, misconceptions=())
    sets = [{"p": 0.5, "k": k} for k in (9, 1, 2)]
    judged = question.judge(Case(sets), [given["k"] + 1 for given in sets], "")
    assert judged.where == "p=0.5, k=1", "twice too large, not a ninth"


def test_loops_that_swallow_everything_are_told_what_does():
    told = FORMULA.failed(FORMULA.cases(1, "")[0], Told(error=f"TimeUp: it was still running after 10 s{SWALLOWED}"))
    assert told.id == "swallows-all"
    assert "except Exception:" in told.next
    slow = FORMULA.failed(FORMULA.cases(1, "")[0], Told(error="TimeUp: it was still running after 10 s"))
    assert "slow" in slow.why
    assert "input" in slow.why


def test_a_function_in_place_of_its_result_is_told_about_parentheses():
    told = check_here(WITNESS, [len, max.__call__], 1).problem
    assert told.id == "not-plain"
    assert "parentheses" in told.next


def test_a_place_is_named_where_there_is_one():
    assert check_here(PREDICT, (1, 2), 1).problem.where == "the upper end"
    assert check_here(KILL, [1, 2, 3], 1).problem.where == "the version 'last'"
    assert check_here(TEXT, "short", 1).problem.what == "1 word"
    assert "'up', letter for letter" in check_here(CLASSIFY, {"x": "Up ", "y": "down"}, 1).problem.next
    assert check_here(NUMBER, None, 1).problem.where == "mine", "the answer as a whole, by its name"


def test_a_version_that_raises_where_the_right_one_does_not_is_found_out():
    assert problem(KILL, [2, 1]) is None  # there is no third value


def test_placeholders_are_not_tried():
    assert all(check_here(question, ..., 1).status is Status.NOT_TRIED for question in QUESTIONS)
    assert check_here(PREDICT, (..., ...), 1).status is Status.NOT_TRIED
    assert "not filled in" in check_here(PREDICT, (3, ...), 1).problem.what


def factory(y):
    return lambda p, k: y


def written(p, k):
    """Has a branch left to write."""
    if p > 2:
        raise NotImplementedError
    return p


def documented(p, k):
    """Says what it will do."""
    raise NotImplementedError("Exercise 0.2: write the body")


def passes(p, k):
    pass


async def later(p, k):
    raise NotImplementedError("Exercise 0.2: write the body")


@pytest.mark.parametrize("stub", [lambda p, k: ..., lambda p, k: None, documented, passes, later])
def test_stubs_are_not_tried(stub):
    assert is_placeholder(stub)


@pytest.mark.parametrize(
    "tried", [lambda p, k: 0, lambda p, k: p, lambda p, k: [], lambda p, k: 0.5, written, factory(0.5), max, 3]
)
def test_everything_else_is_tried(tried):
    assert not is_placeholder(tried)


def test_numbers_are_drawn_for_each_learner_and_stay():
    drawn = {learner: NUMBER.given(learner) for learner in "abcdefgh"}
    assert len({params["size"] for params in drawn.values()}) > 3
    assert all(NUMBER.given(learner) == params for learner, params in drawn.items())


def test_a_neighbours_number_is_wrong():
    assert problem(NUMBER, 6 * SIZE, learner="bob") is not None


@pytest.mark.parametrize(
    ("factor", "word"),
    [
        (1000, "1,000 times too large"),
        (1 / 1024, "1,024 times too small"),
        (1.3, "too large, but"),
        (1.04, "three digits"),
        (3e9, "3e+09 times too large: something divides"),
        (7, "factor of two"),
    ],
)
def test_what_matches_no_misconception_is_told_how_far_off_it_is(factor, word):
    assert word in check_here(NUMBER, 6 * SIZE * factor, 1, "ada").problem.why


def test_a_formula_is_not_to_be_rounded():
    told = check_here(FORMULA, lambda p, k: 1.01 * (1 - (1 - p) ** k), 1).problem
    assert "round nothing" in told.why


def test_a_formula_that_is_right_at_times_is_told_how_often():
    def answer(p, k):
        return 1 - (1 - p) ** k if k % 2 else p

    assert "of 64 sets" in check_here(FORMULA, answer, 1).problem.why


@pytest.mark.parametrize(
    ("told", "unit", "value"),
    [
        (3, "GiB", 3.0),
        ("1.5 GiB", "GiB", 1.5),
        ("1536 MiB", "GiB", 1.5),
        ("2GB", "B", 2e9),
        ("1,234.5 s", "s", 1234.5),
        ("25 %", "", 0.25),
        ("-2e3 ms", "s", -2.0),
        ("120 req/min", "req/s", 2.0),
    ],
)
def test_quantities_are_read_in_any_unit_of_their_dimension(told, unit, value):
    assert in_unit(told, unit) == pytest.approx(value)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([10**300, "1e999 s", "up"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.kind)
@given(told=anything)
@settings(max_examples=60, deadline=None)
def test_a_judge_stands_whatever_comes_out_of_a_kernel(question, told):
    """Even what `plain` would refuse, such as nan: a kernel that was tampered with sends what it likes."""
    for case in question.cases(1, "ada"):
        found = question.judge(case, told, "ada")
        assert found is None or len(found.lines()) <= 7


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.kind)
def test_every_failure_to_answer_is_a_problem(question):
    for error in (
        "NotPlain: it holds a set",
        "TimeUp: still running",
        "TypeError: 'int' object is not callable",
        "Odd",
    ):
        assert question.failed(question.cases(1, "")[0], Told(error=error)).id


def test_the_boundary_and_the_judge_together_refuse_what_equals_everything():
    class Equal(float):
        def __eq__(self, other):
            return True

        __hash__ = None

    assert not ask(lambda answer, asked: answer, Equal(3), None).ok
    assert plain([1, 2]) == [1, 2]
    assert NUMBER.judge(Case(), "inf s", "ada").id == "no-number"
