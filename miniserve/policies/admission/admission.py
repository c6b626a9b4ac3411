"""May this request come in at all? The cheapest work is the work that is refused at the door.

An admission says `Admit`, or `Reject` with the status and the time after which asking again makes sense. Several are
put in a row (`AllOf`); a request must pass each. Some hold something for every request inside (a slot, a reservation),
so whoever asks must report the end of each admitted request, exactly once, however it ended.

Here: shedding by priority, and refusing what cannot be done in time. Quotas are in `quota.py`, the limit on concurrency
in `concurrency.py`. Knows the request, the fleet's view, and the time it is told.
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
    """Come in."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Stay out; `retry_after_s` is None where asking again will not help."""

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
    """Guards the door."""

    def decide(self, request: Request, view: FleetView, now_s: float) -> AdmissionVerdict:
        """Say whether `request` may come in; if so, hold what it needs until `finished`."""
        ...

    def finished(self, request: Request, tokens: int | None, now_s: float) -> None:
        """Give back what an admitted request held. `tokens`: prompt and output computed; None: it was never started."""
        ...


class AdmitAll:
    """No guard."""

    def decide(self, request: Request, view: FleetView, now_s: float) -> AdmissionVerdict:
        return Admit()

    def finished(self, request: Request, tokens: int | None, now_s: float) -> None: ...


class AllOf:
    """Guards in a row. If a later one refuses, the earlier ones get back what they held."""

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

    A replica is full with 5 waiting requests or 80 % of its KV pool used, whichever is nearer; the mean of them counts.
    Source: Gateway API inference extension, saturation detector.
    """
    ready = view.ready()
    return sum(map(_fullness, ready)) / len(ready) if ready else math.inf


def _fullness(view: ReplicaView) -> float:
    return max(view.queue_depth / 5, view.kv_used_fraction / 0.8)


class PriorityShedding:
    """Refuse the lower classes first when the fleet fills up.

    `at` is the saturation from which on a class is refused, highest class first. It may not rise from one class to
    the next, so whenever a class is refused, so are all below it.
    """

    def __init__(
        self,
        *,
        at: tuple[float, float, float] = (math.inf, 2.0, 1.0),  # INTERACTIVE never, STANDARD, BATCH
        load: Callable[[FleetView], float] = saturation,
        retry_after_s: float = 1.0,  # two rounds of probes
    ) -> None:
        if len(at) != len(Priority) or list(at) != sorted(at, reverse=True):
            raise SetupError(f"shedding thresholds must be {len(Priority)} numbers that do not rise, not {at}")
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
    """How long a request takes on a replica, alone and behind others. A rough estimate, on the low side."""

    prefill_s_per_token: float = 0.002  # the 2-core CPU replica
    decode_s_per_token: float = 0.02  # the same

    def service_s(self, request: Request) -> float:
        """Return the time for its prompt and all tokens it may ask for."""
        prefill_s = self.prefill_s_per_token * len(request.prompt_ids)
        return prefill_s + self.decode_s_per_token * request.sampling.max_tokens

    def wait_s(self, request: Request, replica: ReplicaView) -> float:
        """Return the time in the queue, if those ahead are like this one: the replica ends `running` per service."""
        return replica.queue_depth * self.service_s(request) / max(1, replica.running)


class DeadlineCheck:
    """Refuse what cannot be ready in time: finishing it late would cost as much and help nobody."""

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
