"""May this request come in at all? The cheapest work is the work you refuse at the door.

An admission policy answers `Admit`, or `Reject` with a status and the time after which asking again makes sense.
Several can be chained (`AllOf`); a request must pass each. Some hold something for every request inside (a slot, a
reservation), so the caller must report the end of each admitted request exactly once, however it ended.

Here: shedding by priority, and refusing what cannot be done in time. Quotas are in `quota.py`, the limit on concurrency
in `concurrency.py`. A policy knows the request, the view of the fleet, and the time it is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from miniserve.errors import DeadlineExceeded, Overloaded, RateLimited, RequestError, SetupError
from miniserve.types import FleetView, Priority, ReplicaView, Request


@dataclass(frozen=True, slots=True)
class Admit:
    """The request may come in."""


@dataclass(frozen=True, slots=True)
class Reject:
    """The request is refused; `retry_after_s` is None if asking again will not help."""

    status: int
    code: str
    message: str
    retry_after_s: float | None = None

    def error(self) -> RequestError:
        """Return the error that the client gets."""
        kinds: dict[int, type[RequestError]] = {429: RateLimited, 503: Overloaded, 504: DeadlineExceeded}
        return kinds[self.status](self.message, code=self.code, retry_after_s=self.retry_after_s)


AdmissionVerdict = Admit | Reject


class Admission(Protocol):
    """Decides which requests come in."""

    def decide(self, request: Request, view: FleetView, now_s: float) -> AdmissionVerdict:
        """Decide whether `request` may come in; if so, hold what it needs until `finished`."""
        ...

    def finished(self, request: Request, tokens: int | None, now_s: float) -> None:
        """Release what an admitted request held. `tokens`: prompt and output computed, or None if it never started."""
        ...


class AdmitAll:
    """Refuses nothing."""

    def decide(self, request: Request, view: FleetView, now_s: float) -> AdmissionVerdict:
        return Admit()

    def finished(self, request: Request, tokens: int | None, now_s: float) -> None: ...


class AllOf:
    """A chain of admission policies. If a later one refuses, the earlier ones release what they held."""

    def __init__(self, *guards: Admission) -> None:
        self._guards = guards

    def decide(self, request: Request, view: FleetView, now_s: float) -> AdmissionVerdict:
        for passed, guard in enumerate(self._guards):
            verdict = guard.decide(request, view, now_s)
            if isinstance(verdict, Reject):
                for earlier in self._guards[:passed]:
                    earlier.finished(request, None, now_s)
                return verdict
        return Admit()

    def finished(self, request: Request, tokens: int | None, now_s: float) -> None:
        for guard in self._guards:
            guard.finished(request, tokens, now_s)


# --- by load -------------------------------------------------------------------------------------------------------


def saturation(view: FleetView) -> float:
    """Return how full the ready replicas are: 1 = they should get no more; infinite if none is ready.

    A replica is full at 5 waiting requests or 80 % of its KV pool, whichever comes first; the result is the mean.
    Source: Gateway API inference extension, saturation detector.
    """
    ready = view.ready()
    return sum(map(_fullness, ready)) / len(ready) if ready else math.inf


def _fullness(view: ReplicaView) -> float:
    return max(view.queue_depth / 5, view.kv_used_fraction / 0.8)


class PriorityShedding:
    """Refuses the lower classes first as the fleet fills up.

    `at` is the saturation at which each class starts to be refused, highest class first. It may not rise from one
    class to the next, so whenever a class is refused, so are all classes below it.
    """

    def __init__(
        self,
        *,
        at: tuple[float, float, float] = (math.inf, 2.0, 1.0),  # INTERACTIVE never, STANDARD, BATCH
        load: Callable[[FleetView], float] = saturation,
        retry_after_s: float = 1.0,  # two rounds of probes
    ) -> None:
        if len(at) != len(Priority) or list(at) != sorted(at, reverse=True):
            raise SetupError(f"shedding thresholds must be {len(Priority)} numbers that never rise, not {at}")
        self._at = at
        self._load = load
        self._retry_after_s = retry_after_s

    def decide(self, request: Request, view: FleetView, now_s: float) -> AdmissionVerdict:
        load, limit = self._load(view), self._at[request.priority]
        if load < limit or limit == math.inf:
            return Admit()
        message = f"{request.priority.name.lower()} requests are refused at load {limit:g} (it is {load:.2f})"
        return Reject(503, "shed", f"{message}; try again in {self._retry_after_s:g} s", self._retry_after_s)

    def finished(self, request: Request, tokens: int | None, now_s: float) -> None: ...


# --- by deadline ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """How long a request takes on a replica, alone and queued behind others. A rough estimate, on the low side."""

    prefill_s_per_token: float = 0.002  # the 2-core CPU replica
    decode_s_per_token: float = 0.02  # the same

    def service_s(self, request: Request) -> float:
        """Return the time for its prompt and the most tokens it may generate."""
        prefill_s = self.prefill_s_per_token * len(request.prompt_ids)
        return prefill_s + self.decode_s_per_token * request.sampling.max_tokens

    def wait_s(self, request: Request, replica: ReplicaView) -> float:
        """Return the time in the queue if those ahead are like this one: `running` of them end per service time."""
        return replica.queue_depth * self.service_s(request) / max(1, replica.running)


class DeadlineCheck:
    """Refuses what cannot be ready in time: finishing it late would cost as much and help no one."""

    def __init__(self, *, estimate: ServiceTime | None = None) -> None:
        self._estimate = estimate or ServiceTime()

    def decide(self, request: Request, view: FleetView, now_s: float) -> AdmissionVerdict:
        if request.deadline_s is None:
            return Admit()
        left_s, service_s = request.deadline_s - now_s, self._estimate.service_s(request)
        if service_s > left_s:
            message = f"{len(request.prompt_ids)} prompt and {request.sampling.max_tokens} output tokens take about"
            return Reject(504, "deadline_too_short", f"{message} {service_s:.1f} s, the deadline leaves {left_s:.1f} s")
        wait_s = min((self._estimate.wait_s(request, replica) for replica in view.ready()), default=0.0)
        if wait_s + service_s <= left_s:
            return Admit()
        over_s = wait_s + service_s - left_s
        message = f"the shortest queue takes about {wait_s:.1f} s, which ends {over_s:.1f} s after the deadline"
        return Reject(503, "deadline_out_of_reach", message, over_s)

    def finished(self, request: Request, tokens: int | None, now_s: float) -> None: ...
