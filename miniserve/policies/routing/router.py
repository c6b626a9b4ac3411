"""Which replicas may serve this request at all? Before a balancer picks one.

A router narrows the fleet: to a version, a region, or what a priority may use. Several are put in a row (`Routers`),
each seeing what the one before left over. An empty route is an answer: nothing that is ready may serve this request.

Knows the request and the fleet's view. Does not pick a replica, and never offers one that is not ready.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from miniserve.errors import SetupError
from miniserve.seeds import uniform
from miniserve.types import FleetView, Priority, ReplicaView, Request


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request may go, and what that decides about it."""

    replicas: tuple[ReplicaView, ...]
    version: str = ""  # "" = any
    region: str = ""


class Router(Protocol):
    """Narrows the fleet for one request."""

    def route(self, request: Request, view: FleetView) -> Route:
        """Return the ready replicas that may serve `request`, in the order of `view`."""
        ...


class AnyReplica:
    """Every ready replica."""

    def route(self, request: Request, view: FleetView) -> Route:
        return Route(view.ready())


class Routers:
    """Routers in a row; each narrows what the earlier ones left."""

    def __init__(self, *routers: Router) -> None:
        self._routers = routers

    def route(self, request: Request, view: FleetView) -> Route:
        route = Route(view.ready())
        for router in self._routers:
            after = router.route(request, replace(view, replicas=route.replicas))
            route = Route(after.replicas, after.version or route.version, after.region or route.region)
        return route


class VersionPin:
    """A request that names a version ("chat@v2") gets it and nothing else; the others are shared out, stickily.

    `shares` maps versions to their part of the unpinned traffic. Whose part a user falls into depends on the user alone
    (session, else tenant, else the request itself), and the first version's part grows from one end: who saw the
    canary at 1 % still sees it at 10 %. A version without a ready replica gives its part to the next one that has some.
    Without `shares`, unpinned requests may go anywhere.
    """

    def __init__(self, *, shares: Mapping[str, float] | None = None, salt: str = "") -> None:
        self._salt = salt
        self.set_shares(shares or {})

    def set_shares(self, shares: Mapping[str, float]) -> None:
        """Share out anew, from the next request on: how a rollout moves on, and back."""
        if shares and (min(shares.values()) < 0 or sum(shares.values()) <= 0):
            raise SetupError(f"version shares must be >= 0 and not all 0, not {dict(shares)}")
        self._shares = dict(shares)

    def route(self, request: Request, view: FleetView) -> Route:
        ready = view.ready()
        _, _, pinned = request.model.partition("@")
        if pinned:
            return _of_version(pinned, ready)
        if not self._shares:
            return Route(ready)
        wanted = self.version_of(request)
        routes = (_of_version(version, ready) for version in self._from(wanted))
        return next((route for route in routes if route.replicas), Route((), wanted))

    def version_of(self, request: Request) -> str:
        """Return the version in whose part of the traffic this request falls."""
        user = request.session_key or request.tenant or request.request_id
        place = uniform("version", self._salt, user) * sum(self._shares.values())
        for version, share in self._shares.items():
            if place < share:
                return version
            place -= share
        return max(self._shares, key=self._shares.__getitem__)  # rounding put it past the end

    def _from(self, wanted: str) -> list[str]:
        """Return the wanted version, then the others that have a share."""
        return [wanted, *(version for version, share in self._shares.items() if share > 0 and version != wanted)]


class FeatureRouter:
    """Model routing by a label that requests carry: easy ones to a small model, for one.

    `shares` maps a feature to the parts of its requests that go to each version; a feature that is not listed may go
    anywhere. Whose part a user falls into is as in `VersionPin`. The label is taken as true and costs nothing: what a
    router that must guess it gets wrong is not in here.
    """

    def __init__(self, *, shares: Mapping[str, Mapping[str, float]] | None = None) -> None:
        self._pins = {feature: VersionPin(shares=parts, salt=feature) for feature, parts in (shares or {}).items()}

    def route(self, request: Request, view: FleetView) -> Route:
        pin = self._pins.get(request.feature)
        return Route(view.ready()) if pin is None else pin.route(request, view)


def _of_version(version: str, ready: Sequence[ReplicaView]) -> Route:
    return Route(tuple(view for view in ready if view.version.rpartition("@")[2] == version), version)


class RegionRouter:
    """The nearest region that has room; if none has, the nearest that is ready.

    `latency_s` maps (client's region, replica's region) to seconds; a pair that is not listed is farther than all that
    are, one's own region is nearest. A region has room while its mean of outstanding requests per replica is below
    `spill_outstanding`. A request without a region may go anywhere.
    """

    def __init__(
        self, *, latency_s: Mapping[tuple[str, str], float] | None = None, spill_outstanding: float = 32.0
    ) -> None:
        if spill_outstanding <= 0:
            raise SetupError(f"spill_outstanding ({spill_outstanding}) must be above 0")
        self._latency_s = dict(latency_s or {})
        self._spill_outstanding = spill_outstanding

    def route(self, request: Request, view: FleetView) -> Route:
        if request.region is None:
            return Route(view.ready())
        regions: dict[str, list[ReplicaView]] = {}
        for replica in view.ready():
            regions.setdefault(replica.region, []).append(replica)
        by_distance = sorted(regions, key=lambda region: (self.distance_s(request.region or "", region), region))
        with_room = [region for region in by_distance if self._has_room(regions[region])]
        for region in with_room or by_distance:
            return Route(tuple(regions[region]), region=region)
        return Route(())

    def distance_s(self, client: str, region: str) -> float:
        """Return the latency between two regions: infinite where nobody has measured it."""
        return self._latency_s.get((client, region), 0.0 if client == region else math.inf)

    def _has_room(self, replicas: Sequence[ReplicaView]) -> bool:
        return sum(view.outstanding for view in replicas) < self._spill_outstanding * len(replicas)


class PriorityTier:
    """Each class has its pool of replicas, and may fill a replica only so far: what is left is for the higher ones.

    `pools` maps a class to the ids it may use (a class that is not listed: all). `limits` are outstanding requests per
    replica, highest class first; a lower class may not have a higher limit.
    """

    def __init__(
        self,
        *,
        limits: tuple[float, float, float] = (math.inf, 64, 16),  # INTERACTIVE, STANDARD, BATCH: 4 and 1 batches of 16
        pools: Mapping[Priority, Collection[str]] | None = None,
    ) -> None:
        if len(limits) != len(Priority) or list(limits) != sorted(limits, reverse=True):
            raise SetupError(f"limits must be {len(Priority)} numbers that do not rise, not {limits}")
        self._limits = limits
        self._pools = {priority: frozenset(ids) for priority, ids in (pools or {}).items()}

    def route(self, request: Request, view: FleetView) -> Route:
        pool, limit = self._pools.get(request.priority), self._limits[request.priority]
        allowed = (replica for replica in view.ready() if pool is None or replica.replica_id in pool)
        return Route(tuple(replica for replica in allowed if replica.outstanding < limit))


ROUTERS: dict[str, Callable[..., Router]] = {
    "any": AnyReplica,
    "version": VersionPin,
    "feature": FeatureRouter,
    "region": RegionRouter,
    "priority": PriorityTier,
}
