"""How long clients wait: the published shapes, the cap, and what jitter is worth."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import UpstreamError
from miniserve.policies.recovery.retry import Backoff
from miniserve.policies.recovery.waits import (
    JITTERS,
    Jitter,
    Waits,
    decorrelated_jitter,
    equal_jitter,
    full_jitter,
    no_jitter,
)

BROKEN = UpstreamError("refused")


def mean(draw: Callable[[], float | None], draws: int = 20_000) -> float:
    return sum(draw() or 0.0 for _ in range(draws)) / draws


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
    assert 0 <= JITTERS[name](Waits(Random(seed), base_s, cap_s), attempt, previous_s) <= cap_s


def contend(jitter: Jitter | None, seed: int, clients: int = 50) -> tuple[float, int]:
    """Let clients compare-and-swap one number until each has succeeded; return the time in ms and the calls.

    Everybody reads the version, writes back with it, and after a conflict waits and begins again; a message takes about
    10 ms. The model of "Exponential Backoff and Jitter": base 5 ms, cap 2,000 ms.
    """
    rng, ties, version, calls, ended_ms = Random(seed), count(), 0, 0, 0.0
    waits = Waits(rng, 5.0, 2000.0)

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
        wait_ms = 0.0 if jitter is None else jitter(waits, failures + 2, wait_ms)  # they begin with 2 * base
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
