"""Outlier ejection: leave out, for a while, replicas that fail where others succeed; but blame the request first.

Some requests fail everywhere: a prompt that trips a bug, a file that cannot be read. Counting such failures against the
replicas that met them would eject one healthy replica after another. So at first a failure is only an *accusation*. It
counts against the replica once the same request has succeeded on another one (the *witness*); it counts immediately
where no request can be to blame: the replica refuses connections, or misses its own probe.

    accusation + witness ──> one more failure in a row ──> `failures` in a row ──> ejected for 30, 60, 90, ... s

An ejected replica returns automatically. Each `interval_s` that it then stays in takes one step off its next ejection.
If more than half of the replicas are ejected, the trouble is probably ours, and all are used (panic).

Knows results and the time it is told; memory is bounded. Overloaded is not broken: 429 and 503 never count.

Source: Envoy, outlier detection and panic threshold.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from miniserve.errors import DeadlineExceeded, InternalError, RequestError, SetupError, Unreachable, UpstreamError
from miniserve.types import AttemptResult, FinishReason, ReplicaView


def is_suspicious(result: AttemptResult) -> bool:
    """Return whether the replica or the request broke this attempt. Refusals (4xx, 429, 503) do not count."""
    match result.error:
        case None:
            return result.finish_reason is FinishReason.ERROR
        case RequestError() as error:
            return isinstance(error, InternalError | UpstreamError | DeadlineExceeded)
        case _:
            return True


def is_success(result: AttemptResult) -> bool:
    """Return whether the attempt proves that this replica can serve this request. An aborted hedge proves nothing."""
    return result.error is None and result.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)


@dataclass(slots=True)
class _Host:
    failures: int = 0  # confirmed, in a row
    unreached: int = 0  # connections refused and probes missed, in a row
    ejections: int = 0  # the next one lasts (ejections + 1) * base_s
    ejected_s: float = -math.inf
    until_s: float = -math.inf
    unreachable: bool = False  # why it is out; a successful probe refutes it


@dataclass(slots=True)
class _Case:
    """A request that failed somewhere: where, how often, and which replica proved that it can be served."""

    accused: dict[str, int] = field(default_factory=dict)
    witness: str | None = None


class Ejector:
    """Ejects outliers. Use one for the whole fleet."""

    def __init__(
        self,
        *,
        failures: int = 5,  # in a row; Envoy
        base_s: float = 30.0,  # Envoy
        max_s: float = 300.0,  # Envoy
        interval_s: float = 10.0,  # Envoy
        max_ejected_fraction: float = 0.5,  # Envoy's 10 % suits hundreds of hosts; at least one may always be ejected
        panic_fraction: float = 0.5,  # Envoy
        max_cases: int = 4096,  # failed requests (and replicas) remembered; a retry comes within seconds
    ) -> None:
        if failures < 1 or not 0 < base_s <= max_s or interval_s <= 0 or max_cases < 1:
            raise SetupError(
                f"ejection needs failures ({failures}) and max_cases ({max_cases}) >= 1, "
                f"0 < base_s ({base_s}) <= max_s ({max_s}) and interval_s ({interval_s}) > 0"
            )
        self._limit = failures
        self._base_s = base_s
        self._max_s = max_s
        self._interval_s = interval_s
        self._max_ejected_fraction = max_ejected_fraction
        self._panic_fraction = panic_fraction
        self._max_cases = max_cases
        self._cases: dict[str, _Case] = {}  # the most recent failure last
        self._hosts: dict[str, _Host] = {}  # only replicas that have something counted against them
        self.ejections: Counter[str] = Counter()  # replica -> times that it was ejected, for whoever counts along

    # --- queries from dispatch -------------------------------------------------------------------------------------

    def admitted(self, replicas: Sequence[ReplicaView], now_s: float) -> tuple[ReplicaView, ...]:
        """Return `replicas` without the ejected ones. Pass every ready replica, or the shares come out wrong."""
        out = sorted((host.ejected_s, id_) for id_, host in self._hosts.items() if now_s < host.until_s)
        if not out:
            return tuple(replicas)
        shown = {view.replica_id for view in replicas}
        ejected = [id_ for _, id_ in out if id_ in shown]
        if len(shown) - len(ejected) < self._panic_fraction * len(shown):
            return tuple(replicas)
        left_out = set(ejected[: max(1, int(self._max_ejected_fraction * len(shown)))])
        return tuple(view for view in replicas if view.replica_id not in left_out)

    def ejected(self, now_s: float) -> frozenset[str]:
        """Return which replicas are ejected now, panic or not."""
        return frozenset(id_ for id_, host in self._hosts.items() if now_s < host.until_s)

    # --- events ----------------------------------------------------------------------------------------------------

    def record(self, request_id: str, result: AttemptResult, now_s: float) -> tuple[str, ...]:
        """Learn how an attempt of the request `request_id` ended, its losers first.

        Returns: the replicas that a failure has just been counted against, one entry per failure, for example to feed
        breakers. They need not include the attempt's own replica, and may include earlier ones.
        """
        blamed: list[str] = []
        for one in (*result.losers, result):
            if isinstance(one.error, Unreachable):  # no request got as far as to be the reason
                blamed += self._blame(one.replica_id, 1, now_s, unreachable=True)
            elif is_suspicious(one):
                blamed += self._accuse(request_id, one.replica_id, now_s)
            elif is_success(one):
                blamed += self._clear(request_id, one.replica_id, now_s)
        return tuple(blamed)

    def probe(self, replica_id: str, ok: bool, now_s: float) -> None:
        """Learn whether the replica answered its own health probe."""
        if not ok:
            self._blame(replica_id, 1, now_s, unreachable=True)
        elif (host := self._hosts.get(replica_id)) is not None:
            host.unreached = 0
            if host.unreachable:
                host.unreachable = False
                host.until_s = min(host.until_s, now_s)

    def forget(self, replica_id: str) -> None:
        """Drop everything about a replica that has left the fleet."""
        self._hosts.pop(replica_id, None)
        self.ejections.pop(replica_id, None)

    # --- accusations -----------------------------------------------------------------------------------------------

    def _accuse(self, request_id: str, replica_id: str, now_s: float) -> tuple[str, ...]:
        case = self._cases.pop(request_id, None) or _Case()
        self._cases[request_id] = case  # now the most recent
        if len(self._cases) > self._max_cases:
            del self._cases[next(iter(self._cases))]
        if case.witness not in (None, replica_id):
            return self._blame(replica_id, 1, now_s)
        case.accused[replica_id] = case.accused.get(replica_id, 0) + 1
        return ()

    def _clear(self, request_id: str, replica_id: str, now_s: float) -> tuple[str, ...]:
        """Take a success as proof that this replica is healthy, and that other replicas' failures were their own."""
        if (host := self._hosts.get(replica_id)) is not None:
            host.failures = host.unreached = 0
        case = self._cases.get(request_id)
        if case is None:
            return ()
        case.witness = replica_id
        blamed: tuple[str, ...] = ()
        for accused, count in sorted(case.accused.items()):
            if accused != replica_id:
                blamed += self._blame(accused, count, now_s)
        case.accused.clear()
        return blamed

    # --- ejections -------------------------------------------------------------------------------------------------

    def _blame(self, replica_id: str, count: int, now_s: float, *, unreachable: bool = False) -> tuple[str, ...]:
        host = self._hosts.setdefault(replica_id, _Host())
        if len(self._hosts) > self._max_cases:
            del self._hosts[next(iter(self._hosts))]
        if now_s >= host.until_s:  # while it is out, nothing more counts against it
            host.unreached += count if unreachable else 0
            host.failures += 0 if unreachable else count
            if max(host.failures, host.unreached) >= self._limit:
                host.unreachable = unreachable
                self._eject(host, now_s)
                self.ejections[replica_id] += 1
        return (replica_id,) * count

    def _eject(self, host: _Host, now_s: float) -> None:
        if host.ejections:
            healthy_s = now_s - host.until_s
            host.ejections = max(0, host.ejections - int(healthy_s / self._interval_s))
        host.ejections = min(host.ejections + 1, math.ceil(self._max_s / self._base_s))
        host.failures = host.unreached = 0
        host.ejected_s = now_s
        host.until_s = now_s + min(self._max_s, self._base_s * host.ejections)
