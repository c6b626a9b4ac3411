"""Impatient clients: they hang up in time, try again as their policy says, and pay from one budget."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
import simpy

from miniserve.errors import LONGEST_WAIT_S, DeadlineExceeded, InternalError, Overloaded
from miniserve.policies.recovery.retry import Backoff, NaiveRetry, NeverRetry
from miniserve.policies.recovery.retry_budget import RetryBudget
from miniserve.sim.clients import ImpatientClients
from miniserve.types import AttemptResult, Outcome, Request


class Service:
    """Takes a second for each try; fails the first `failures` of them."""

    def __init__(self, env: simpy.Environment, failures: int, error: Exception) -> None:
        self.env, self.failures, self.error = env, failures, error
        self.tries: list[Request] = []

    def ask(self, request: Request) -> Generator[simpy.Event, Any, Outcome]:
        self.tries.append(request)
        yield self.env.timeout(1.0)
        failed = len(self.tries) <= self.failures
        attempt = AttemptResult("r0", error=self.error if failed else None)
        return Outcome(request.request_id, error=attempt.error, attempts=(attempt,))


def ask(clients: ImpatientClients, failures: int, error: Exception, **fields: Any) -> tuple[Service, Outcome, int]:
    env = simpy.Environment()
    service = Service(env, failures, error)
    process = env.process(clients.ask(env, Request("q", "m", range(3), **fields), service.ask))
    outcome, attempts = env.run(process)
    return service, outcome, attempts


LATE = DeadlineExceeded("late")


def test_each_try_is_a_new_request_with_its_own_deadline() -> None:
    service, outcome, attempts = ask(ImpatientClients(5.0, NaiveRetry(max_attempts=4, wait_s=2.0)), 2, LATE)
    assert [request.request_id for request in service.tries] == ["q", "q~1", "q~2"]
    assert [(request.arrived_s, request.deadline_s) for request in service.tries] == [(0, 5), (3, 8), (6, 11)]
    assert (outcome.ok, attempts) == (True, 3)


def test_the_requests_own_deadline_is_never_exceeded() -> None:
    service, _, _ = ask(ImpatientClients(5.0, NaiveRetry(max_attempts=3)), 2, LATE, deadline_s=5.5)
    assert [request.deadline_s for request in service.tries] == [5.0, 5.5, 5.5]


@pytest.mark.parametrize(("tries", "error"), [(3, LATE), (1, InternalError("no"))])
def test_backoff_takes_a_timeout_for_overload_and_believes_a_500(tries: int, error: Exception) -> None:
    service, outcome, _ = ask(ImpatientClients(5.0, Backoff(max_attempts=3, base_s=0.1)), 9, error)
    assert len(service.tries) == tries
    assert outcome.error is error


@pytest.mark.parametrize("wait_s", [float("inf"), 1e12])
def test_a_wait_of_centuries_is_no_wait(wait_s: float) -> None:
    """Whether a policy of the client wants it or a server asks for it: the run must not wait for ever."""
    service, outcome, _ = ask(ImpatientClients(5.0, NaiveRetry(wait_s=wait_s)), 9, LATE)
    assert len(service.tries) == 1
    assert outcome.error is LATE

    env = simpy.Environment()
    service = Service(env, 9, Overloaded("full", retry_after_s=wait_s))
    clients = ImpatientClients(5.0, Backoff(max_attempts=3))
    env.run(env.process(clients.ask(env, Request("q", "m", range(3)), service.ask)))
    assert env.now == 3 + 2 * LONGEST_WAIT_S


def test_who_never_retries_tries_once() -> None:
    assert len(ask(ImpatientClients(5.0, NeverRetry()), 9, LATE)[0].tries) == 1


def test_an_empty_budget_ends_the_tries() -> None:
    budget = RetryBudget(ratio=1.0, floor_per_s=0.0)
    service, outcome, _ = ask(ImpatientClients(5.0, NaiveRetry(max_attempts=10), budget), 9, LATE)
    assert len(service.tries) == 2, "one request pays for one retry"
    assert not outcome.ok
