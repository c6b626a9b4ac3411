"""Limits on concurrency: one that is given, and one that finds the knee of a queue by itself."""

from __future__ import annotations

import heapq
from collections import deque
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import SetupError
from miniserve.policies.admission.admission import Admit, Reject
from miniserve.policies.admission.concurrency import ConcurrencyLimit, FixedLimit, Gradient2
from miniserve.types import FleetView, Request


def limits_of_a_queue(servers: int, load: float, ends: int, seed: int) -> list[float]:
    """Offer M/M/c more than it can do, admit by the limit, and return the limit after each of `ends` departures.

    Service takes 1 s on average: up to `servers` inside latency is flat, beyond it grows in proportion, the knee.
    """
    rng, limit, inside, free = Random(seed), Gradient2(), 0, servers
    waiting: deque[float] = deque()
    running: list[tuple[float, float]] = []  # (ends, arrived)
    arrival_s, history = rng.expovariate(load * servers), []
    while len(history) < ends:
        if running and running[0][0] <= arrival_s:
            now_s, arrived_s = heapq.heappop(running)
            limit.observe(now_s - arrived_s, inside)
            inside, free = inside - 1, free + 1
            history.append(limit.current())
        else:
            now_s, arrival_s = arrival_s, arrival_s + rng.expovariate(load * servers)
            if inside < limit.current():
                inside += 1
                waiting.append(now_s)
        while waiting and free:
            free -= 1
            heapq.heappush(running, (now_s + rng.expovariate(1.0), waiting.popleft()))
    return history


@pytest.mark.parametrize("servers", [60, 100])
@pytest.mark.parametrize("seed", [1, 2])
def test_gradient_finds_the_capacity_within_a_fifth(servers: int, seed: int) -> None:
    history = limits_of_a_queue(servers, load=1.3, ends=32_000, seed=seed)
    settled = history[16_000:]
    assert sum(settled) / len(settled) == pytest.approx(servers, rel=0.2)


def feed(limit: Gradient2, latency_s: float, updates: int, inflight: int = 200) -> None:
    for _ in range(updates * 100):
        limit.observe(latency_s, inflight)


def test_flat_latency_lets_it_grow_by_a_fifth_of_the_queue_each_time() -> None:
    limit = Gradient2()
    feed(limit, 1.0, 10)
    assert limit.current() == 20 + int(10 * 0.2 * 4)


def test_a_step_up_in_latency_shrinks_it_at_once() -> None:
    limit = Gradient2(initial=100)
    feed(limit, 1.0, 50)
    before = limit.current()
    feed(limit, 3.0, 1)
    assert limit.current() == pytest.approx(0.8 * before + 0.2 * (before / 2 + 4), abs=1), "half, smoothed"


def test_an_unused_limit_does_not_grow() -> None:
    limit = Gradient2(initial=100)
    feed(limit, 1.0, 50, inflight=49)
    assert limit.current() == 100


def test_after_a_slow_time_it_believes_the_faster_one_soon() -> None:
    """Latency falls to a tenth: 0.9 ** 22 = 0.1, so after some 25 updates "usual" is near the new value."""
    limit = Gradient2()
    feed(limit, 10.0, 100)
    feed(limit, 1.0, 25)
    assert limit._long_s < 2.1


@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(0, 500)), max_size=200))
def test_it_stays_between_its_bounds(history: list[tuple[float, int]]) -> None:
    limit = Gradient2(lowest=5, initial=10, highest=40, samples=1)
    for latency_s, inflight in history:
        limit.observe(latency_s, inflight)
        assert 5 <= limit.current() <= 40


def a_request(n: int) -> Request:
    return Request(request_id=f"q{n}", model="m", prompt_ids=(1,))


def test_no_more_than_the_limit_are_inside() -> None:
    guard = ConcurrencyLimit(limit=FixedLimit(limit=3))
    verdicts = [guard.decide(a_request(n), FleetView(), 0.0) for n in range(5)]
    assert [isinstance(verdict, Admit) for verdict in verdicts] == [True] * 3 + [False] * 2
    assert isinstance(verdicts[3], Reject)
    assert verdicts[3].status == 503
    guard.finished(a_request(0), 10, 1.0)
    assert isinstance(guard.decide(a_request(5), FleetView(), 1.0), Admit)


def test_the_limit_learns_from_those_that_ran_only() -> None:
    class Notes(FixedLimit):
        def __init__(self) -> None:
            super().__init__(limit=9)
            self.seen: list[tuple[float, int]] = []

        def observe(self, latency_s: float, inflight: int) -> None:
            self.seen.append((latency_s, inflight))

    notes = Notes()
    guard = ConcurrencyLimit(limit=notes)
    for n in range(3):
        guard.decide(a_request(n), FleetView(), float(n))
    guard.finished(a_request(0), None, 5.0)
    guard.finished(a_request(1), 7, 5.0)
    assert notes.seen == [(4.0, 2)]


@pytest.mark.parametrize("wrong", [{"lowest": 0}, {"initial": 300}, {"smoothing": 0.0}, {"samples": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SetupError):
        Gradient2(**wrong)  # type: ignore[arg-type]
    with pytest.raises(SetupError):
        FixedLimit(limit=0)
