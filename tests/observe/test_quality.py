"""The quality monitor: what it sees in an answer, and how often it is right about a change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from miniserve.observe.quality import (
    METRICS,
    QualityMonitor,
    ServedAnswer,
    Shift,
    answers_needed,
    compare_versions,
    is_refusal,
    quality_note,
    repetition,
)

Record = Callable[[str, object], None]

# --- one answer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\N{RIGHT SINGLE QUOTATION MARK}m sorry.",
        "Sorry, no.",
        "As an AI, I have no opinion.",
        "  I cannot do this.",
        "Unfortunately, I do not know.",
        "I apologize for that.",
    ],
)
def test_refusals_are_seen(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text", ["", "Paris.", "The sorry state of it", "I can do that.", "He said: I cannot.", "As an aid to memory"]
)
def test_ordinary_answers_are_no_refusals(text: str) -> None:
    assert not is_refusal(text)


def test_a_loop_is_seen_and_ordinary_text_is_not() -> None:
    assert repetition(["a", "b", "c", "d"] * 20) > 0.9
    assert repetition([1, 2, 3, 4, 5, 6, 7, 8]) == 0.0
    assert repetition([1, 2]) == 0.0
    assert quality_note("the same words again and " * 10).looped
    assert quality_note("I'm sorry, no") == ServedAnswer(3, refused=True)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 6))
def test_repetition_is_a_share(tokens: list[int], n: int) -> None:
    assert 0 <= repetition(tokens, n) < 1


# --- before and after ----------------------------------------------------------------------------------------------


def answers(
    rng: np.random.Generator, n: int, liked: float = 0.9, refused: float = 0.02, length: float = 100
) -> list[ServedAnswer]:
    """Everybody gives a thumb; 1 % of answers are loops."""
    lengths = np.round(length * rng.lognormal(0, 0.8, n))
    chances = rng.random((n, 3))
    return [
        ServedAnswer(int(tokens), bool(r < refused), bool(loop < 0.01), bool(k < liked))
        for tokens, (r, loop, k) in zip(lengths, chances, strict=True)
    ]


def watch(rng: np.random.Generator, needed: int, **after: float) -> dict[str, Shift]:
    monitor = QualityMonitor(needed)
    for answer in answers(rng, needed):
        assert monitor.record(answer) == ()
    monitor.deployed("v2")
    *early, last = [monitor.record(answer) for answer in answers(rng, needed, **after)]
    assert not any(early)
    return {shift.metric: shift for shift in last}


@pytest.mark.parametrize("runs", [15, pytest.param(500, marks=pytest.mark.full)])
def test_a_drop_of_3_points_is_found_with_the_power_that_was_asked_for(runs: int, record_property: Record) -> None:
    rng, needed = np.random.default_rng(30), answers_needed(0.9, 0.03, alpha=0.05, power=0.9)
    found = sum(watch(rng, needed, liked=0.87)["liked"].alarm for _ in range(runs))
    record_property("answers_on_each_side", needed)
    record_property("found_of_runs", [found, runs])

    assert scipy.stats.binomtest(found, runs, 0.9).pvalue > 0.001


@pytest.mark.parametrize("runs", [15, pytest.param(500, marks=pytest.mark.full)])
def test_no_change_raises_an_alarm_as_rarely_as_stated(runs: int, record_property: Record) -> None:
    rng = np.random.default_rng(31)
    alarms = sum(any(shift.alarm for shift in watch(rng, 2000).values()) for _ in range(runs))
    record_property("false_alarms_of_runs", [alarms, runs])

    assert scipy.stats.binom.sf(alarms - 1, runs, 0.05) > 0.001


@pytest.mark.parametrize(
    ("metric", "after"), [("refused", {"refused": 0.05}), ("length", {"length": 115}), ("liked", {"liked": 0.84})]
)
def test_each_metric_sees_its_own_change(metric: str, after: dict[str, float]) -> None:
    shifts = watch(np.random.default_rng(32), 3000, **after)
    assert set(shifts) == set(METRICS)
    assert [name for name, shift in shifts.items() if shift.alarm] == [metric]
    assert f"{metric}: " in str(shifts[metric])


def test_what_has_too_few_events_is_left_out() -> None:
    one, other = [ServedAnswer(n % 7) for n in range(200)], [ServedAnswer(n % 5) for n in range(200)]
    assert [shift.metric for shift in compare_versions(one, other, alpha=0.01)] == ["length"]


def test_answers_of_one_length_only_are_compared_without_luck() -> None:
    (same,) = compare_versions([ServedAnswer(3)] * 200, [ServedAnswer(3)] * 200, alpha=0.01)
    (longer,) = compare_versions([ServedAnswer(3)] * 200, [ServedAnswer(5)] * 200, alpha=0.01)
    assert not same.alarm
    assert longer.alarm


def test_after_a_verdict_the_new_version_is_what_the_next_is_compared_with() -> None:
    rng, monitor = np.random.default_rng(33), QualityMonitor(1000)
    for answer in answers(rng, 1000):
        monitor.record(answer)
    assert monitor.missing is None
    monitor.deployed("v2")
    assert monitor.missing == 1000
    for answer in answers(rng, 1000, liked=0.5):
        worse = monitor.record(answer)
    monitor.deployed("v3")
    for answer in answers(rng, 1000, liked=0.5):
        same = monitor.record(answer)

    assert [shift.metric for shift in worse if shift.alarm] == ["liked"]
    assert not {shift.metric: shift for shift in same}["liked"].alarm
    assert monitor.version == "v3"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ServedAnswer(-1), r"output_tokens \(-1\)"),
        (lambda: repetition([1], 0), r"n \(0\)"),
        (lambda: QualityMonitor(10), r"needed \(10\)"),
        (lambda: QualityMonitor(1000, alpha=0), r"alpha \(0\)"),
        (lambda: QualityMonitor(1000).deployed("v2"), "0 answers before the deployment of 'v2'; needs 1000"),
        (lambda: compare_versions([ServedAnswer(1)], [], alpha=0.01), "not 1 and 0"),
        (lambda: answers_needed(0.02, 0.03), r"drop < rate \(0.02\)"),
        (lambda: answers_needed(1.2), r"rate \(1.2\)"),
        (lambda: answers_needed(0.9, metrics=0), "metrics >= 1"),
    ],
)
def test_impossible_settings_are_refused(call: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()
