"""Only plain values pass from an answer to a judge, and nothing that an answer does raises here."""

import asyncio
import contextlib
import json
import math
import signal
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.course.check.ask import SWALLOWED, NotPlain, ask, drive_call, drive_value, lent, plain
from miniserve.course.check.code import lend
from miniserve.observe.buckets import Buckets


class AlwaysEqual(float):
    def __eq__(self, other):
        return True

    __hash__ = None


class Count(int):
    pass


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**300), 10**300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_plain_values_pass_as_they_are(value):
    assert plain(value) == value
    assert json.loads(json.dumps(plain(value))) == value


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        np.float64("nan"),
        AlwaysEqual(1.0),
        Count(1),
        1 + 2j,
        object(),
        {1, 2},
        b"x",
        [1, {"a": AlwaysEqual(0)}],
        {(1, 2): 3},
        10**301,
        np.array([1.0, math.inf]),
        np.array([object()]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_plain_is_refused(value):
    with pytest.raises(NotPlain):
        plain(value)


def test_numpy_values_become_pythons():
    told = plain({"a": np.int64(3), "b": np.array([1.5, 2.0]), "c": np.bool_(True), 4: (1, 2)})
    assert told == {"a": 3, "b": [1.5, 2.0], "c": True, "4": [1, 2]}
    assert type(told["a"]) is int
    assert told["c"] is True


def test_what_holds_itself_is_refused():
    value = []
    value.append(value)
    with pytest.raises(NotPlain, match="20 levels"):
        plain(value)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        SystemExit(3),
        GeneratorExit(),
        asyncio.CancelledError(),
        RecursionError("deep"),
        BaseException("mine"),
    ],
)
def test_whatever_an_answer_raises_is_told(error):
    def answer():
        raise error

    told = ask(drive_call, answer, [{}])
    assert not told.ok
    assert told.error == f"{type(error).__name__}: {error}"
    assert told.line == "raise error"


def test_an_error_whose_message_raises_is_told_too():
    class Evil(Exception):
        def __str__(self):
            raise RuntimeError

    def answer():
        raise Evil

    assert ask(drive_call, answer, [{}]).error == "Evil: (its message raises an error too)"


def test_ctrl_c_is_not_the_answers_fault():
    def answer():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(drive_call, answer, [{}])


def test_the_line_is_the_learners_not_that_of_a_library():
    def answer():
        return np.percentile([], 200)

    assert ask(drive_call, answer, [{}]).line == "return np.percentile([], 200)"


def test_an_answer_cannot_change_what_the_judge_compares_with():
    asked = [{"values": [3, 1, 2]}]
    ask(drive_call, lambda values: values.clear(), asked)
    assert asked == [{"values": [3, 1, 2]}]


def test_a_loop_without_end_is_stopped():
    def answer():
        while True:
            pass

    told = ask(drive_call, answer, [{}], limit_s=0.05)
    assert told.error.startswith("TimeUp")


def test_a_loop_that_swallows_exceptions_is_stopped():
    def answer():
        while True:
            try:
                math.sqrt(2)
            except Exception:  # the very mistake
                continue

    assert ask(drive_call, answer, [{}], limit_s=0.05).error.startswith("TimeUp")


def bare():
    while True:
        try:  # noqa: SIM105
            time.sleep(0.001)
        except:  # noqa: E722 - the very mistake
            pass


def base():
    while True:
        try:
            _sleeps_and_tidies_up()
        except BaseException:
            continue


def _sleeps_and_tidies_up():
    try:
        time.sleep(100)
    finally:
        len("tidy")


def nested():
    while True:
        try:
            try:
                time.sleep(0.001)
            except:  # noqa: E722
                len("a handler that does something")
        except:  # noqa: E722
            pass


def suppressed():
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(100)


@pytest.mark.parametrize("answer", [bare, base, nested, suppressed])
def test_a_loop_that_swallows_even_the_time_limit_is_stopped(answer):
    traced_by = sys.gettrace()
    told = ask(drive_call, answer, [{}], limit_s=0.05)
    assert told.error.startswith("TimeUp")
    assert told.error.endswith(SWALLOWED)
    assert sys.gettrace() is traced_by
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_alarm_is_off_afterwards_and_belongs_to_whom_it_did():
    before = signal.getsignal(signal.SIGALRM)
    assert ask(drive_value, 3, None, limit_s=5).value == 3
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_another_thread_can_ask_without_a_limit():
    told = []
    thread = threading.Thread(target=lambda: told.append(ask(drive_value, [1, 2], None)))
    thread.start()
    thread.join(10)
    assert told[0].value == [1, 2]


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ([(2, 3), ...], "row 2"),
        ([(2, 3), (4, ...)], "row 2, place 2"),
        ((3, ...), "place 2"),
        ({"a": "up", "h": ...}, "item 'h'"),
        (..., ""),
    ],
)
def test_a_gap_is_told_with_its_place(answer, place):
    where = f" ({place})" if place else ""
    assert ask(drive_value, answer, None).error == f"NotPlain: it holds `...`, a place not filled in yet{where}"


def test_an_answer_that_is_no_plain_value_is_told_as_that():
    assert ask(drive_value, {1, 2}, None).error.startswith("NotPlain: it holds a set")


# --- pieces of the library that an answer builds upon --------------------------------------------------------------

GAMMA, KEY = lend(Buckets.gamma, Buckets.key)
SEVEN = Buckets(1 / 3).key(7.0)  # in a library that is whole


@pytest.fixture
def stubbed(monkeypatch):
    """The library as a kernel that is graded has it: what the exercises ask for is not there."""

    def stub(self, *arguments):
        raise NotImplementedError

    for method in (Buckets.gamma, Buckets.key):
        monkeypatch.setattr(method, "__code__", stub.__code__)
    with pytest.raises(NotImplementedError):
        Buckets(1 / 3).key(7.0)


def test_lent_pieces_are_plain_texts():
    assert json.loads(json.dumps([GAMMA, KEY])) == [GAMMA, KEY]
    assert (KEY["module"], KEY["name"]) == ("miniserve.observe.buckets", "Buckets.key")
    assert KEY["text"].startswith("def key(self")


def test_a_lent_piece_works_for_as_long_as_it_is_lent(stubbed):
    with lent([GAMMA, KEY]):
        assert Buckets(1 / 3).key(7.0) == SEVEN == 3
    with pytest.raises(NotImplementedError):
        Buckets(1 / 3).key(7.0)


def test_what_is_not_lent_stays_away(stubbed):
    with lent([KEY]), pytest.raises(NotImplementedError):
        Buckets(1 / 3).key(7.0)  # it needs gamma


def test_a_lent_piece_is_taken_back_when_the_answer_raises(stubbed):
    with pytest.raises(ZeroDivisionError), lent([GAMMA, KEY]):
        1 / 0  # noqa: B018
    with pytest.raises(NotImplementedError):
        Buckets(1 / 3).gamma()


def test_the_first_piece_is_taken_back_when_a_later_one_cannot_be_lent(stubbed):
    with pytest.raises(AttributeError), lent([GAMMA, {**KEY, "name": "Buckets.keys"}]):
        pass
    with pytest.raises(NotImplementedError):
        Buckets(1 / 3).gamma()
