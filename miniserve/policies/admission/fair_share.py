"""Who is next? Fair shares between tenants, counted in tokens: the virtual token counter. Used only in tests so far.

Every tenant has a counter of the service it has received: its input tokens, plus its output tokens counted twice, since
each of those costs a step. The waiting tenant with the lowest counter is next; within a tenant, first come, first
served. So a tenant that sends ten times as much waits ten times as long, and the others do not notice.

A tenant that was away must not come back with a claim on the service it never asked for. On its return, its counter is
lifted to the lowest among the waiting tenants or, if none is waiting, to that of the tenant served last.

Knows tenants, queued requests, and the tokens it is told about, but no time. Work-conserving: while anything waits,
`pop` returns a request. Source: Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024).
"""

from __future__ import annotations

from collections import deque

from miniserve.errors import SetupError
from miniserve.types import Request

_IDLE_TENANTS = 1024  # counters kept for tenants that are away


class FairShare:
    """A queue of requests in fair order."""

    def __init__(self, *, input_weight: float = 1.0, output_weight: float = 2.0) -> None:  # the paper's
        if input_weight < 0 or output_weight < 0:
            raise SetupError(f"weights must be >= 0, not {input_weight} (input) and {output_weight} (output)")
        self._input_weight = input_weight
        self._output_weight = output_weight
        self._waiting: dict[str, deque[Request]] = {}  # only tenants with requests waiting
        self._served: dict[str, float] = {}  # the counters
        self._last = ""  # the tenant served last
        self._floor = 0.0  # no waiting counter is below this: the last tenant's, when the queue last ran empty

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._waiting.values())

    def counter(self, tenant: str) -> float:
        """Return the service that `tenant` has received, in weighted tokens."""
        return self._served.get(tenant, 0.0)

    def push(self, request: Request) -> None:
        """Queue a request behind its tenant's others."""
        if request.tenant not in self._waiting:
            if not self._waiting:
                self._floor = max(self._floor, self.counter(self._last))
            lowest = min((self.counter(tenant) for tenant in self._waiting), default=self._floor)
            self._served[request.tenant] = max(self.counter(request.tenant), lowest)
            self._waiting[request.tenant] = deque()
            if len(self._served) > 2 * len(self._waiting) + _IDLE_TENANTS:
                self._forget_idle()
        self._waiting[request.tenant].append(request)

    def pop(self) -> Request | None:
        """Take the next request and charge its input; None if nothing is waiting."""
        if not self._waiting:
            return None
        tenant = min(self._waiting, key=lambda tenant: (self.counter(tenant), tenant))
        request = self._waiting[tenant].popleft()
        self._leave_if_empty(tenant)
        self._last = tenant
        self.charge(tenant, input_tokens=len(request.prompt_ids))
        return request

    def remove(self, request: Request) -> bool:
        """Remove a request whose client has left; return whether it was waiting."""
        queue = self._waiting.get(request.tenant, deque())
        for place, waiting in enumerate(queue):
            if waiting.request_id == request.request_id:
                del queue[place]
                self._leave_if_empty(request.tenant)
                return True
        return False

    def charge(self, tenant: str, *, input_tokens: int = 0, output_tokens: int = 0) -> None:
        """Count service that `tenant` received: output tokens as they come, or all at the end."""
        service = self._input_weight * input_tokens + self._output_weight * output_tokens
        self._served[tenant] = self.counter(tenant) + service

    def _forget_idle(self) -> None:
        """Drop counters that would be lifted on return anyway, so that memory follows the tenants in use."""
        self._served = {
            tenant: served for tenant, served in self._served.items() if tenant in self._waiting or served > self._floor
        }

    def _leave_if_empty(self, tenant: str) -> None:
        if not self._waiting[tenant]:
            del self._waiting[tenant]


def jain_index(shares: list[float]) -> float:
    """Return how equal `shares` are: 1 = all equal, 1/n = one has it all. Source: Jain, Chiu, Hawe (1984)."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0
