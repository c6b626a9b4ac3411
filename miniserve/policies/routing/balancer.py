"""Which replica gets this request?

A balancer knows the request and the replicas that may take it, as views. It knows neither why the others may not
(dispatch has left them out) nor what becomes of its choice. `choose` never changes what it is shown.

Only `Random`, `PowerOfTwo` and `PeakEwma` depend on the order in which replicas are listed, because they draw
positions. Every random draw is keyed by the request, so a run can be repeated and two balancers see the same
randomness. Balancers that remember where requests went, so that a cache can be used again, are in `affinity.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol, runtime_checkable

from miniserve.policies.routing.affinity import ConsistentHash, PrefixAffinity
from miniserve.policies.routing.ties import least
from miniserve.seeds import number
from miniserve.types import AttemptResult, ReplicaView, Request

_UNITS = 2**1074  # in 1.0; see `_whole`


class Balancer(Protocol):
    """Picks one of the replicas that dispatch offers."""

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        """Return the `replica_id` of one of `replicas`, or None to choose none (always, if there are none)."""
        ...


@runtime_checkable
class LearningBalancer(Balancer, Protocol):
    """One that is told how each attempt ended, whoever chose its replica."""

    def observe(self, result: AttemptResult, now_s: float) -> None:
        """Learn from a finished attempt."""
        ...


# --- without looking at load ---------------------------------------------------------------------------------------


class Random:
    """Any replica, all equally likely."""

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None
        return replicas[number("random", self._seed, request.request_id) % len(replicas)].replica_id


class RoundRobin:
    """One after the other, in order of name; replicas that come and go do not shift the others' turns."""

    def __init__(self) -> None:
        self._last = ""

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        ids = [view.replica_id for view in replicas]
        if not ids:
            return None
        self._last = min((id_ for id_ in ids if id_ > self._last), default=None) or min(ids)
        return self._last


class Weighted:
    """Smooth weighted round robin: shares follow `ReplicaView.weight`, evenly spread (5:1:1 gives a a b a c a a).

    Each turn every replica earns its weight; the richest is chosen, and pays what all of them earned. A replica with
    weight 0 gets nothing, unless every weight is 0: then all share equally. Source: nginx.

    Credits are whole numbers: sums of floats depend on the order in which they are added, and drift.
    """

    def __init__(self) -> None:
        self._credit: dict[str, int] = {}

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        weights = {view.replica_id: _whole(view.weight) for view in replicas if view.weight > 0}
        weights = weights or {view.replica_id: _whole(1.0) for view in replicas}
        if not weights:
            return None
        if len(self._credit) > 2 * len(weights) + 16:  # most of these have left the fleet
            self._credit = {id_: self._credit.get(id_, 0) for id_ in weights}
        for id_, weight in weights.items():
            self._credit[id_] = self._credit.get(id_, 0) + weight
        richest = min(weights, key=lambda id_: (-self._credit[id_], id_))
        self._credit[richest] -= sum(weights.values())
        return richest


@lru_cache(maxsize=1024)
def _whole(weight: float) -> int:
    """Return `weight` in units of the smallest float there is, in which every float is a whole number."""
    numerator, denominator = weight.as_integer_ratio()
    return numerator * (_UNITS // denominator)


# --- by load -------------------------------------------------------------------------------------------------------


class LeastOutstanding:
    """Picks the replica with the fewest unfinished requests of ours: they are counted here, so never stale."""

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        """Return the `replica_id` of a replica with the fewest `outstanding`; None if there are no replicas.

        Ties are broken by a random draw that is keyed by the request: the same request in the same situation gets the
        same replica, whatever order the replicas are listed in, and many requests spread evenly.
        """
        if not replicas:
            return None
        fewest = min(view.outstanding for view in replicas)
        equals = sorted(view.replica_id for view in replicas if view.outstanding == fewest)
        return equals[number("balancer", request.request_id) % len(equals)]


class LeastQueue:
    """Picks the replica that reported the shortest queue. Reports go stale: until the next, all requests go to one."""

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        return least(request, replicas, [view.queue_depth for view in replicas])


class LeastKv:
    """Picks a replica with room: one of the shortest queues and, of those, the emptiest KV pool. Reports, so stale too.

    How full the pool is says too little by itself: requests that are waiting for room hold no blocks yet.
    """

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        """Return a replica with the smallest `queue_depth` and, of those, one with the lowest `kv_used_fraction`.

        None if there are no replicas. Ties are broken by a random draw keyed by the request, as in `LeastOutstanding`.
        """
        if not replicas:
            return None
        shortest = min(view.queue_depth for view in replicas)
        waiting_least = [view for view in replicas if view.queue_depth == shortest]
        emptiest = min(view.kv_used_fraction for view in waiting_least)
        equals = sorted(view.replica_id for view in waiting_least if view.kv_used_fraction == emptiest)
        return equals[number("balancer", request.request_id) % len(equals)]


class PowerOfTwo:
    """Draws two replicas and takes the one with fewer outstanding requests.

    This is almost as good as looking at all of them, and many gateways with stale numbers do not all rush to the same
    replica. Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).
    """

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        """Draw two different replicas, every pair equally likely, and return the one with the lower `_load`.

        No other replica is looked at. The draw is keyed by the balancer's seed and the request. With a single replica,
        return that one; with none, None.
        """
        if not replicas:
            return None
        draw, count = number("two", self._seed, request.request_id), len(replicas)
        if count == 1:
            return replicas[0].replica_id
        first = draw % count
        second = draw // count % (count - 1)
        second += second >= first  # among the others: no replica is drawn twice
        one, other = replicas[first], replicas[second]
        return (other if self._load(other) < self._load(one) else one).replica_id

    def _load(self, view: ReplicaView) -> float:
        return view.outstanding


class PeakEwma(PowerOfTwo):
    """Draws two and takes the one with the lower cost * (outstanding + 1); cost is the recent time to first token.

    A slower answer raises a replica's cost at once; faster answers, or silence, lower it over `tau_s`. Time is that of
    the last result or arrival. Source: Finagle `PeakEwma`.
    """

    _UNKNOWN = float(2**63 >> 16)  # load of a busy replica that has never answered (Finagle)

    def __init__(self, *, tau_s: float = 10.0, seed: int = 0) -> None:  # Finagle's decay
        super().__init__(seed=seed)
        self._tau_s = tau_s
        self._now_s = 0.0
        self._costs: dict[str, tuple[float, float]] = {}  # replica -> (cost, as of)

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        self._now_s = max(self._now_s, request.arrived_s)
        return super().choose(request, replicas)

    def observe(self, result: AttemptResult, now_s: float) -> None:
        """Learn from a finished attempt. One without a token says only that a first token takes at least that long."""
        self._now_s = max(self._now_s, now_s)
        answered_s = result.ended_s if result.first_token_s is None else result.first_token_s
        sample_s = answered_s - result.started_s
        if not result.ok:  # failing fast is not being fast: count it as the slowest known answer
            sample_s = max(sample_s, *(cost_s for cost_s, _ in self._costs.values()), 0.0)
        before_s, kept = self._known(result.replica_id)
        if sample_s >= before_s:
            self._costs[result.replica_id] = sample_s, self._now_s
        elif result.first_token_s is not None:
            self._costs[result.replica_id] = before_s * kept + sample_s * (1 - kept), self._now_s

    def _load(self, view: ReplicaView) -> float:
        if view.replica_id not in self._costs:
            return self._UNKNOWN + view.outstanding if view.outstanding else 0.0
        cost_s, kept = self._known(view.replica_id)
        return cost_s * kept * (view.outstanding + 1)

    def _known(self, replica_id: str) -> tuple[float, float]:
        """Return a replica's cost, and the share of it left after the time that has passed since."""
        cost_s, as_of_s = self._costs.get(replica_id, (0.0, self._now_s))
        return cost_s, math.exp((as_of_s - self._now_s) / self._tau_s)


class WithRoom:
    """Another balancer, offered only replicas with fewer than `most` outstanding requests, where there are any."""

    def __init__(self, balancer: Balancer, *, most: int) -> None:
        self._balancer = balancer
        self._learner = balancer if isinstance(balancer, LearningBalancer) else None
        self._most = most

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        return self._balancer.choose(request, [view for view in replicas if view.outstanding < self._most] or replicas)

    def observe(self, result: AttemptResult, now_s: float) -> None:
        if self._learner is not None:
            self._learner.observe(result, now_s)


BALANCERS: dict[str, Callable[..., Balancer]] = {
    "random": Random,
    "round-robin": RoundRobin,
    "weighted": Weighted,
    "least-outstanding": LeastOutstanding,
    "least-queue": LeastQueue,
    "least-kv": LeastKv,
    "p2c": PowerOfTwo,
    "peak-ewma": PeakEwma,
    "consistent-hash": ConsistentHash,
    "prefix-affinity": PrefixAffinity,
}
