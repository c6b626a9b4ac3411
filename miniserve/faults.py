"""What goes wrong, decided in advance: a plan is a pure function of names, so every policy faces the same faults.

Three kinds of trouble, by what they affect:

    an attempt   (replica, request, attempt)   an immediate error, or a stream that is cut after some tokens
    a request    (request)                     poison: it fails on every replica
    a replica    (time)                        crash, hang (answers probes, makes no progress), slow, partition

Attempts and requests are drawn by key, never from a sequence: sending one request elsewhere changes no other draw.
A plan only says *what* happens; the fleets, live and simulated, carry it out. Policies never see it. Knows no clock and
no replica.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from miniserve.errors import InternalError, Overloaded, RequestError, UpstreamError
from miniserve.seeds import bucket, uniform


class ReplicaFault(StrEnum):
    """What can happen to a replica as a whole."""

    CRASH = "crash"  # the process ends: every stream breaks, it restarts when `duration_s` is over
    HANG = "hang"  # no step ends, but connections and probes are answered as if all were well
    SLOW = "slow"  # every step takes `factor` times as long
    PARTITION = "partition"  # it keeps working, but nothing reaches it and nothing comes back


@dataclass(frozen=True, slots=True)
class ReplicaEvent:
    """From `at_s` on, for `duration_s` (inf: forever), this replica has the fault `kind`."""

    at_s: float
    replica_id: str
    kind: ReplicaFault
    duration_s: float = math.inf
    factor: float = 1.0  # SLOW only: step times are multiplied by it

    @property
    def until_s(self) -> float:
        return self.at_s + self.duration_s


_ERRORS: dict[int, type[RequestError]] = {500: InternalError, 502: UpstreamError, 503: Overloaded}
STATUSES = tuple(_ERRORS)  # what an injected error may be


@dataclass(frozen=True, slots=True)
class AttemptFault:
    """This attempt fails with `status` after `after_tokens` tokens; a shorter answer escapes."""

    after_tokens: int = 0  # 0: refused at once
    status: int = 502

    def error(self) -> RequestError:
        """Return the error as the gateway would see it."""
        what = "refused the request" if self.after_tokens == 0 else f"broke off after {self.after_tokens} tokens"
        return _ERRORS[self.status](f"injected fault: the replica {what}", code="injected_fault")


class FaultPlan(Protocol):
    """Says what goes wrong. Pure: the same question always gets the same answer."""

    def attempt_fault(self, replica_id: str, request_id: str, attempt: int) -> AttemptFault | None:
        """Return what happens to this attempt on this replica, if anything."""
        ...

    def request_fault(self, request_id: str) -> AttemptFault | None:
        """Return what happens to this request wherever it goes; takes precedence over `attempt_fault`."""
        ...

    def replica_events(self) -> tuple[ReplicaEvent, ...]:
        """Return what happens to replicas, in time order."""
        ...


def fault_of(plan: FaultPlan, replica_id: str, request_id: str, attempt: int) -> AttemptFault | None:
    """Return what happens to one attempt, for whatever reason."""
    return plan.request_fault(request_id) or plan.attempt_fault(replica_id, request_id, attempt)


class NoFaults:
    """Nothing ever goes wrong."""

    def attempt_fault(self, replica_id: str, request_id: str, attempt: int) -> AttemptFault | None:
        return None

    def request_fault(self, request_id: str) -> AttemptFault | None:
        return None

    def replica_events(self) -> tuple[ReplicaEvent, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class KeyedFaults:
    """Fractions of attempts and requests fail, chosen by key; named requests are poison; replicas have a timeline.

    An attempt is refused with probability `error_fraction`, or cut with probability `cut_fraction`, after a uniformly
    random number of tokens in the range `cut_after_tokens`. An empty `only_replicas` means all of them.
    """

    seed: int = 0
    error_fraction: float = 0.0
    error_status: int = 503
    cut_fraction: float = 0.0
    cut_after_tokens: tuple[int, int] = (1, 32)
    only_replicas: frozenset[str] = frozenset()
    poison_fraction: float = 0.0
    poison_ids: frozenset[str] = frozenset()
    poison_status: int = 500
    events: tuple[ReplicaEvent, ...] = ()

    def attempt_fault(self, replica_id: str, request_id: str, attempt: int) -> AttemptFault | None:
        if self.error_fraction + self.cut_fraction == 0:
            return None
        if self.only_replicas and replica_id not in self.only_replicas:
            return None
        key = (self.seed, "attempt fault", replica_id, request_id, attempt)
        draw = uniform(*key)
        if draw < self.error_fraction:
            return AttemptFault(0, self.error_status)
        if draw < self.error_fraction + self.cut_fraction:
            fewest, most = self.cut_after_tokens
            return AttemptFault(fewest + bucket(*key, "cut", buckets=most - fewest + 1))
        return None

    def request_fault(self, request_id: str) -> AttemptFault | None:
        same = request_id.partition("~")[0]  # a client that resends it as "ID~1" sends the same poison
        drawn = self.poison_fraction > 0 and uniform(self.seed, "poison", same) < self.poison_fraction
        return AttemptFault(0, self.poison_status) if drawn or same in self.poison_ids else None

    def replica_events(self) -> tuple[ReplicaEvent, ...]:
        return in_order(self.events)


def in_order(events: Iterable[ReplicaEvent]) -> tuple[ReplicaEvent, ...]:
    """Sort events by time, then by replica and kind, so that the order never depends on the list."""
    return tuple(sorted(events, key=lambda event: (event.at_s, event.replica_id, event.kind)))
