"""A client's loop: when it sends, sleeps and stops, what it pays, and what it brings back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from miniserve.clients.retry_loop import Try, persist
from miniserve.errors import InvalidRequest, Overloaded, UpstreamError
from miniserve.policies.recovery.retry import Backoff, NaiveRetry
from miniserve.policies.recovery.retry_budget import RetryBudget, TokenThrottle, Unlimited
from miniserve.policies.recovery.waits import no_jitter

BUSY = Try(error=Overloaded("busy"))
DONE = Try(("in", "spring"))


class World:
    """A service with a script, and a clock that only sleeping moves."""

    def __init__(self, tries: Iterable[Try]) -> None:
        self._tries = iter(tries)
        self.now_s = 0.0
        self.sent: list[tuple[float, tuple[str, ...]]] = []

    async def send(self, words: tuple[str, ...]) -> Try:
        self.sent.append((self.now_s, words))
        return next(self._tries)

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def clock(self) -> float:
        return self.now_s


def play(world: World, policy=None, budget=None, **settings) -> Try:  # type: ignore[no-untyped-def]
    policy = policy or Backoff(max_attempts=3, base_s=1.0, jitter=no_jitter)
    return asyncio.run(persist(world.send, world.sleep, world.clock, policy, budget or Unlimited(), **settings))


def test_the_first_try_is_made_at_once_and_a_success_ends_it() -> None:
    world = World([DONE])
    assert play(world) == DONE
    assert world.sent == [(0.0, ())]


def test_it_comes_back_when_the_policy_says_and_no_more_often() -> None:
    world = World([BUSY] * 3)
    assert play(world) == BUSY
    assert [at for at, _ in world.sent] == [0.0, 1.0, 3.0]


def test_what_would_fail_again_is_sent_once() -> None:
    wrong = Try(error=InvalidRequest("too long"))
    world = World([wrong])
    assert play(world) == wrong
    assert len(world.sent) == 1


def test_a_wait_past_the_deadline_is_not_begun() -> None:
    world = World([BUSY] * 2)
    assert play(world, deadline_s=3.0) == BUSY
    assert [at for at, _ in world.sent] == [0.0, 1.0]


def test_half_an_answer_is_not_begun_again() -> None:
    world = World([Try(("in",), UpstreamError("broke off")), DONE])
    assert play(world).words == ("in",)
    assert len(world.sent) == 1


def test_it_is_continued_where_the_server_can_and_no_word_comes_twice() -> None:
    world = World([Try(("in",), UpstreamError("broke off")), BUSY, Try(("spring",))])
    assert play(world, resume=True) == DONE
    assert [words for _, words in world.sent] == [(), ("in",), ("in",)]


def test_all_requests_together_pay_for_their_retries() -> None:
    """One retry per two requests: the first pays half of one, the second the other half."""
    budget = RetryBudget(ratio=0.5, floor_per_s=0)
    tries = []
    for _ in range(4):
        world = World([BUSY] * 4)
        play(world, NaiveRetry(max_attempts=4), budget)
        tries.append(len(world.sent))
    assert tries == [1, 2, 1, 2]


def test_a_budget_that_looks_at_results_is_told_them() -> None:
    budget = TokenThrottle(max_tokens=4.0)
    world = World([BUSY] * 9)
    play(world, NaiveRetry(max_attempts=9), budget)
    assert len(world.sent) == 2, "two of four tokens are gone: no more than half"
