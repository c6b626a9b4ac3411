"""Clients that lose patience: after `timeout_s` they hang up and, if their policy says so, send the same request again.

To the fleet every try is a new request; only the aborted stream shows that the old answer is no longer wanted. That is
what makes overload last: the fleet works on answers that no one is waiting for, while the same people ask again. A
gateway's retries (`policies.dispatch`) happen within one request and its deadline; these happen outside.

A try is called "ID~N", so that a fault plan recognises it as the same request.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

import simpy

from miniserve.errors import LONGEST_WAIT_S, DeadlineExceeded, Overloaded
from miniserve.policies.recovery.retry import RetryPolicy
from miniserve.policies.recovery.retry_budget import Budget
from miniserve.scenario.model import Scenario
from miniserve.types import Outcome, Request

AskService = Callable[[Request], Generator[simpy.Event, Any, Outcome]]


@dataclass(frozen=True, slots=True)
class ImpatientClients:
    """All clients of a run; they share one budget, as the replicas of one calling service would."""

    timeout_s: float
    retry: RetryPolicy
    budget: Budget | None = None

    def ask(
        self, env: simpy.Environment, request: Request, ask: AskService
    ) -> Generator[simpy.Event, Any, tuple[Outcome, int]]:
        """Ask until there is an answer or no retry is left; return the last outcome and the attempts of all tries."""
        if self.budget is not None:
            self.budget.deposit(env.now)
        failures = attempts = 0
        while True:
            outcome = yield from ask(self._a_try(request, failures, env.now))
            attempts += sum(1 + len(attempt.losers) for attempt in outcome.attempts)
            if outcome.error is None:
                self._record(True, env.now)
                return outcome, attempts
            failures += 1
            self._record(False, env.now)
            wait_s = self._wait_s(failures, outcome.error, request, env.now)
            if wait_s is None:
                return outcome, attempts
            yield env.timeout(wait_s)

    def _a_try(self, request: Request, failures: int, now_s: float) -> Request:
        deadline_s = now_s + self.timeout_s
        if request.deadline_s is not None:
            deadline_s = min(deadline_s, request.deadline_s)
        request_id = f"{request.request_id}~{failures}" if failures else request.request_id
        return replace(request, request_id=request_id, arrived_s=now_s, deadline_s=deadline_s)

    def _wait_s(self, failures: int, error: Exception, request: Request, now_s: float) -> float | None:
        if isinstance(error, DeadlineExceeded):  # the limit was this client's own, so it may ask again
            error = Overloaded(f"no answer within {self.timeout_s:g} s", code="client_timeout")
        wait_s = self.retry.delay_s(failures, error, now_s, request.deadline_s)
        if wait_s is None or wait_s > LONGEST_WAIT_S:
            return None
        if self.budget is not None and not self.budget.withdraw(now_s):
            return None
        return wait_s

    def _record(self, ok: bool, now_s: float) -> None:
        if self.budget is not None:
            self.budget.record(ok, now_s)


def clients_of(scenario: Scenario, seed: int) -> ImpatientClients | None:
    """Return the clients of one run; None where they ask once and wait for ever."""
    clients = scenario.clients
    if clients is None:
        return None
    budget = None if clients.budget is None else clients.budget.build(seed=seed)
    return ImpatientClients(clients.timeout_s, clients.retry.build(seed=seed), budget)
