"""A client's retry loop: keep trying for as long as its policy and its budget allow.

    deposit ──> send ──ok──────────────────────────────────> answer
                 ^ │
                 │ └─failed──> half read? ──> policy: how long? ──> budget: paid? ──no──> the words so far, and the
                 error
                 └───────────────────────────sleep <──────────────────────────────yes──┘

The gateway has its own loop (`dispatch`), which knows replicas. This one knows a service only by its answers. Sending,
the clock and sleeping are passed in, so it runs under asyncio and in simulated time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from miniserve.policies.recovery.retry import RetryPolicy
from miniserve.policies.recovery.retry_budget import Budget
from miniserve.types import Clock


@dataclass(frozen=True, slots=True)
class Try:
    """How a try ended: the words that came, and the error; without an error the answer is complete."""

    words: tuple[str, ...] = ()
    error: Exception | None = None


SendOnce = Callable[[tuple[str, ...]], Awaitable[Try]]
"""Makes one try. It is given the words that the reader already has: a server that can resume continues after them."""


async def persist(
    send: SendOnce,
    sleep: Callable[[float], Awaitable[None]],
    clock: Clock,
    policy: RetryPolicy,
    budget: Budget,
    *,
    deadline_s: float | None = None,
    resume: bool = False,
) -> Try:
    """Try until the answer is complete or no further try is allowed; return all words received, and the last error.

    The first try is made at once and costs nothing. `resume`: whether a broken answer can be continued.
    """
    budget.deposit(clock())
    words: tuple[str, ...] = ()
    failures = 0
    while True:
        last = await send(words)
        words += last.words
        budget.record(last.error is None, clock())
        if last.error is None:
            return Try(words)
        failures += 1
        if words and not resume:
            return Try(words, last.error)
        wait_s = policy.delay_s(failures, last.error, clock(), deadline_s)
        if wait_s is None or not budget.withdraw(clock()):
            return Try(words, last.error)
        await sleep(wait_s)
