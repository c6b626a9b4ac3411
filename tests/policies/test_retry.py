"""Retry policies: how long they wait, what they refuse, and what jitter is worth."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import InternalError, InvalidRequest, Overloaded, SetupError, UpstreamError
from miniserve.policies.retry import (
    JITTERS,
    Backoff,
    Jitter,
    NaiveRetry,
    NeverRetry,
    decorrelated_jitter,
    equal_jitter,
    expected_attempts,
    full_jitter,
    may_retry,
    no_jitter,
)

BROKEN = UpstreamError("refused")


def mean(draw: Callable[[], float | None], draws: int = 20_000) -> float:
    return sum(draw() or 0.0 for _ in range(draws)) / draws


# --- jitters -------------------------------------------------------------------------------------------------------


def test_without_jitter_the_wait_doubles_up_to_the_cap() -> None:
    policy = Backoff(max_attempts=9, base_s=0.1, cap_s=1.0, jitter=no_jitter)
    assert [policy.delay_s(n, BROKEN, 0.0, None) for n in range(1, 7)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


@pytest.mark.parametrize(("jitter", "share"), [(full_jitter, 0.5), (equal_jitter, 0.75)])
@pytest.mark.parametrize("attempt", [1, 3])
def test_means_are_the_published_shares_of_the_exponential(jitter: Jitter, share: float, attempt: int) -> None:
    policy = Backoff(max_attempts=9, base_s=0.1, jitter=jitter, seed=1)
    assert mean(lambda: policy.delay_s(attempt, BROKEN, 0.0, None)) == pytest.approx(
        share * 0.1 * 2 ** (attempt - 1), rel=0.02
    )


def test_decorrelated_means_follow_their_recursion() -> None:
    """E[wait n] = base / 2 + 1.5 E[wait n-1]; with base 0.1: .2, .35, .575, .9125, 1.41875."""
    policy = Backoff(max_attempts=9, base_s=0.1, cap_s=1e9, jitter=decorrelated_jitter, seed=2)
    means = [mean(lambda n=n: policy.delay_s(n, BROKEN, 0.0, None)) for n in range(1, 6)]  # type: ignore[misc]
    assert means == pytest.approx([0.2, 0.35, 0.575, 0.9125, 1.41875], rel=0.03)


@given(
    st.sampled_from(sorted(JITTERS)),
    st.integers(1, 10_000),
    st.floats(0.001, 10),
    st.floats(0, 100),
    st.floats(0, 1),
    st.integers(),
)
def test_a_wait_is_never_negative_nor_beyond_the_cap(
    name: str, attempt: int, base_s: float, above_s: float, before: float, seed: int
) -> None:
    cap_s, previous_s = base_s + above_s, base_s + before * above_s
    assert 0 <= JITTERS[name](Random(seed), attempt, previous_s, base_s, cap_s) <= cap_s


def contend(jitter: Jitter | None, seed: int, clients: int = 50) -> tuple[float, int]:
    """Let clients compare-and-swap one number until each has succeeded; return the time in ms and the calls.

    Everybody reads the version, writes back with it, and after a conflict waits and begins again; a message takes about
    10 ms. The model of "Exponential Backoff and Jitter": base 5 ms, cap 2,000 ms.
    """
    rng, ties, version, calls, ended_ms = Random(seed), count(), 0, 0, 0.0

    def travel_ms() -> float:
        return abs(rng.normalvariate(10, 2))

    events = [(travel_ms(), next(ties), "read", 0, 0, 5.0) for _ in range(clients)]  # the last: wait before
    heapq.heapify(events)
    while events:
        now_ms, _, what, seen, failures, wait_ms = heapq.heappop(events)
        if what == "read":  # the answer travels back, the write travels here
            arrives_ms = now_ms + travel_ms() + travel_ms()
            heapq.heappush(events, (arrives_ms, next(ties), "write", version, failures, wait_ms))
            continue
        calls += 1
        if seen == version:
            version += 1
            ended_ms = now_ms
            continue
        wait_ms = 0.0 if jitter is None else jitter(rng, failures + 2, wait_ms, 5.0, 2000.0)  # they begin with 2 * base
        arrives_ms = now_ms + travel_ms() + wait_ms + travel_ms()
        heapq.heappush(events, (arrives_ms, next(ties), "read", 0, failures + 1, wait_ms))
    return ended_ms, calls


def test_jitter_wins_by_the_published_order() -> None:
    """Fifty clients on one row: bare exponential is slowest by far, full jitter calls least, no wait calls most."""
    ways: dict[str, Jitter | None] = {"at once": None, **JITTERS}
    runs = {name: [contend(jitter, seed) for seed in range(15)] for name, jitter in ways.items()}
    time_ms = {name: sum(run[0] for run in of) / len(of) for name, of in runs.items()}
    calls = {name: sum(run[1] for run in of) / len(of) for name, of in runs.items()}

    assert time_ms["none"] > 5 * max(ms for name, ms in time_ms.items() if name != "none")
    assert max(calls, key=calls.__getitem__) == "at once"
    assert min(calls, key=calls.__getitem__) == "full"
    assert calls["none"] > max(calls["full"], calls["equal"], calls["decorrelated"])


# --- policies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [InvalidRequest("x"), InternalError("x"), RuntimeError("x")])
def test_what_would_fail_again_is_not_retried(error: Exception) -> None:
    assert not may_retry(error)
    assert Backoff().delay_s(1, error, 0.0, None) is None


def test_max_attempts_includes_the_first() -> None:
    policy = Backoff(max_attempts=3)
    assert [policy.delay_s(n, BROKEN, 0.0, None) is None for n in (1, 2, 3, 4)] == [False, False, True, True]


def test_a_push_back_sets_the_wait() -> None:
    error = Overloaded("full", None, None, 7.5)
    assert Backoff().delay_s(1, error, 0.0, None) == 7.5
    assert Backoff().delay_s(1, Overloaded("full", None, None, 0.0), 0.0, None) == 0.0


def test_a_negative_push_back_forbids() -> None:
    error = Overloaded("do not", None, None, -1.0)
    assert not may_retry(error)
    assert Backoff().delay_s(1, error, 0.0, None) is None


def test_a_wait_that_reaches_the_deadline_is_no_use() -> None:
    error = Overloaded("full", None, None, 2.0)
    assert Backoff().delay_s(1, error, 10.0, 12.0) is None
    assert Backoff().delay_s(1, error, 10.0, 12.1) == 2.0


def test_the_same_seed_waits_the_same() -> None:
    def waits(seed: int) -> list[float | None]:
        policy = Backoff(max_attempts=9, seed=seed)
        return [policy.delay_s(n, BROKEN, 0.0, None) for n in range(1, 9)]

    assert waits(3) == waits(3)
    assert waits(3) != waits(4)


def test_naive_retries_whatever_it_is_told() -> None:
    policy = NaiveRetry(max_attempts=4)
    assert [policy.delay_s(n, InvalidRequest("no"), 5.0, 5.0) for n in (1, 2, 3, 4)] == [0.0, 0.0, 0.0, None]
    assert NeverRetry().delay_s(1, BROKEN, 0.0, None) is None


@pytest.mark.parametrize(("p", "n", "golden"), [(0.5, 3, 1.75), (0.9, 4, 3.439), (1.0, 7, 7.0), (0.0, 3, 1.0)])
def test_expected_attempts_are_the_closed_form(p: float, n: int, golden: float) -> None:
    assert expected_attempts(p, n) == pytest.approx(golden)


def test_a_policy_makes_the_expected_number_of_attempts() -> None:
    """Each attempt fails with probability 1/2; 3 at most: 1.75 on average."""
    rng, policy, attempts, requests = Random(5), Backoff(max_attempts=3), 0, 20_000
    for _ in range(requests):
        failures = 0
        attempts += 1
        while rng.random() < 0.5:
            failures += 1
            if policy.delay_s(failures, BROKEN, 0.0, None) is None:
                break
            attempts += 1
    assert attempts / requests == pytest.approx(expected_attempts(0.5, 3), rel=0.02)


@pytest.mark.parametrize("wrong", [{"max_attempts": 0}, {"base_s": -1.0}, {"base_s": 2.0, "cap_s": 1.0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SetupError):
        Backoff(**wrong)  # type: ignore[arg-type]
