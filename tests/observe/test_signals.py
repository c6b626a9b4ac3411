"""Implicit signals: what a user's next request says about the last answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.observe.signals import BREAK_S, SIMILAR, SOON_S, SignalWatch, similarity

PROMPT = tuple(range(20))
SIMILAR_PROMPT = (*range(15), 100, 101)
OTHER = tuple(range(200, 220))


@pytest.mark.parametrize(
    ("prompt", "after_s", "expected"),
    [
        (PROMPT, 5.0, ("retry",)),
        (PROMPT, SOON_S, ("retry",)),
        (PROMPT, SOON_S + 1, ()),
        (SIMILAR_PROMPT, 5.0, ("rephrase",)),
        (SIMILAR_PROMPT, SOON_S + 1, ()),
        (OTHER, 5.0, ()),
        (OTHER, BREAK_S - 1, ()),
        (OTHER, BREAK_S, ("return",)),
        (PROMPT, BREAK_S, ("return",)),
    ],
)
def test_what_a_second_request_shows(prompt: tuple[int, ...], after_s: float, expected: tuple[str, ...]) -> None:
    watch = SignalWatch()
    assert watch.signals("ann", PROMPT, 100.0, left=False) == ()
    assert watch.signals("ann", prompt, 100.0 + after_s, left=False) == expected


def test_users_are_kept_apart_and_leaving_is_a_signal_of_its_own() -> None:
    watch = SignalWatch()
    watch.signals("ann", PROMPT, 0.0, left=False)
    assert watch.signals("bob", PROMPT, 1.0, left=False) == ()
    assert watch.signals("ann", PROMPT, 2.0, left=True) == ("retry", "abandon")


def test_only_the_last_users_are_remembered() -> None:
    watch = SignalWatch(users=2)
    for number, user in enumerate(("ann", "bob", "ann", "cid")):
        watch.signals(user, PROMPT, float(number), left=False)
    assert watch.signals("ann", PROMPT, 9.0, left=False) == ("retry",)
    assert watch.signals("bob", PROMPT, 9.0, left=False) == ()


@given(st.frozensets(st.integers(0, 30)), st.frozensets(st.integers(0, 30)))
def test_similarity_is_a_share_and_symmetric(one: frozenset[int], other: frozenset[int]) -> None:
    assert 0.0 <= similarity(one, other) == similarity(other, one) <= 1.0
    assert (similarity(one, other) == 1.0) == (one == other)
    assert similarity(frozenset(PROMPT), frozenset(SIMILAR_PROMPT)) >= SIMILAR
