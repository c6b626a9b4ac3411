"""Which replicas may serve this request at all? Before a balancer picks one.

A router narrows the fleet: to a version, a region, or what a priority may use. Several can be chained (`Routers`); each
sees what the one before it left. An empty route is a valid answer: no ready replica may serve this request.

A router knows the request and the view of the fleet. It does not pick a replica, and never offers one that is not
ready.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from miniserve.errors import SetupError
from miniserve.seeds import uniform
from miniserve.types import LOCAL_TENANT, FleetView, Priority, ReplicaView, Request


@dataclass(frozen=True, slots=True)
class Route:
    """The replicas a request may go to, and the version and region that implies."""

    replicas: tuple[ReplicaView, ...]
    version: str = ""  # "" = any
    region: str = ""
    why: str = ""  # there is no replica, if the router can say more than that


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
    """A chain of routers; each narrows what the earlier ones left."""

    def __init__(self, *routers: Router) -> None:
        self._routers = routers

    def route(self, request: Request, view: FleetView) -> Route:
        route = Route(view.ready())
        for router in self._routers:
            after = router.route(request, replace(view, replicas=route.replicas))
            why = route.why or after.why
            route = Route(after.replicas, after.version or route.version, after.region or route.region, why)
        return route


class ByModel:
    """Only replicas of the model that the request names, or of its version; of those, what the router `then` leaves.

    A replica says what it serves: `large`, or `large@2`. A request for `large` may go to either, one for `large@2` only
    to the second. The live gateway puts this in front of the configured router, so no other needs to know that there
    are several models.
    """

    def __init__(self, then: Router | None = None) -> None:
        self._then = then

    def route(self, request: Request, view: FleetView) -> Route:
        asked = request.model
        versions = f"{asked}@"
        serving = tuple([r for r in view.replicas if r.version == asked or r.version.startswith(versions)])
        of_model = replace(view, replicas=serving)
        ready = of_model.ready()
        if not ready:
            return Route((), why=f"no replica of {asked} is ready (0 of {len(serving)})")
        if self._then is None:
            return Route(ready)
        route = self._then.route(request, of_model)
        if route.replicas or route.why:
            return route
        return replace(route, why=f"none of the {len(ready)} ready replicas of {asked} may serve this request now")


class VersionPin:
    """A request that names a version ("chat@v2") gets that and nothing else; the others are split, and users stick.

    `shares` maps versions to their shares of the unpinned traffic. Which share a user falls into depends on the user
    alone (the session, else the tenant, else the request itself), and the first version's share grows from one end: a
    user who saw the canary at 1 % still sees it at 10 %. If a version has no ready replica, its share goes to the next
    version that has one. Without `shares`, unpinned requests may go anywhere.

    Where there are several models, a version is called "chat@v2" here too: its share is one of that model's traffic,
    and models without shares are let through.
    """

    def __init__(self, *, shares: Mapping[str, float] | None = None, salt: str = "") -> None:
        self._salt = salt
        self._shares: dict[str, dict[str, float]] = {}  # by model; "" is any
        self._salts: dict[str, str] = {}  # by model, beside the router's own
        self.set_shares(shares or {})

    def set_shares(self, shares: Mapping[str, float], *, salt: str = "") -> None:
        """Change the shares, from the next request on: this is how a rollout advances and rolls back.

        Shares of other models than those named stay as they are; with no shares at all, all are forgotten. `salt`
        shuffles the users of these models: another one makes an experiment independent of those before it.
        """
        changed: dict[str, dict[str, float]] = {}
        for name, share in shares.items():
            model, _, version = name.rpartition("@")
            changed.setdefault(model, {})[version] = share
        if any(min(parts.values()) < 0 or sum(parts.values()) <= 0 for parts in changed.values()):
            raise SetupError(f"version shares must be >= 0 and not all 0, not {dict(shares)}")
        self._shares = {**self._shares, **changed} if changed else {}
        self._salts = {**self._salts, **dict.fromkeys(changed, salt)} if changed else {}

    def forget(self, model: str) -> None:
        """Split this model's traffic no longer: all its versions may serve it."""
        self._shares = {name: shares for name, shares in self._shares.items() if name != model}

    def splits(self, model: str) -> bool:
        """Return whether the traffic of `model` has shares of its own."""
        return model in self._shares

    def route(self, request: Request, view: FleetView) -> Route:
        ready = view.ready()
        model, _, pinned = request.model.partition("@")
        if pinned:
            return _of_version(model, pinned, ready)
        if not self._shares_of(model):
            return Route(ready)
        wanted = self.version_of(request)
        routes = (_of_version(model, version, ready) for version in self._from(model, wanted))
        return next((route for route in routes if route.replicas), Route((), wanted))

    def version_of(self, request: Request) -> str:
        """Return the version whose share of its model's traffic this request falls into."""
        shares = self._shares_of(request.model)
        user = request.session_key or _named_tenant(request) or request.request_id
        split = (request.model,) if request.model in self._shares else ()  # models are split independently
        salts = (salt,) if (salt := self._salts.get(request.model)) else ()
        place = uniform("version", self._salt, *salts, *split, user) * sum(shares.values())
        for version, share in shares.items():
            if place < share:
                return version
            place -= share
        return max(shares, key=shares.__getitem__)  # rounding put it past the end

    def _shares_of(self, model: str) -> Mapping[str, float]:
        return self._shares.get(model) or self._shares.get("") or {}

    def _from(self, model: str, wanted: str) -> list[str]:
        """Return the wanted version, then the others that have a share."""
        shares = self._shares_of(model)
        return [wanted, *(version for version, share in shares.items() if share > 0 and version != wanted)]


class FeatureRouter:
    """Routes by a label that requests carry: for example, easy ones to a small model.

    `shares` maps each feature to the share of its requests that every version gets; a feature that is not listed may go
    anywhere. Users are assigned as in `VersionPin`. The label is taken as true and costs nothing: the mistakes of a
    router that has to guess it are not modelled.
    """

    def __init__(self, *, shares: Mapping[str, Mapping[str, float]] | None = None) -> None:
        self._pins = {feature: VersionPin(shares=parts, salt=feature) for feature, parts in (shares or {}).items()}

    def route(self, request: Request, view: FleetView) -> Route:
        pin = self._pins.get(request.feature)
        return Route(view.ready()) if pin is None else pin.route(request, view)


def _named_tenant(request: Request) -> str:
    """Return who asks; empty for a request that says nothing: all of those together are no user."""
    return "" if request.tenant == LOCAL_TENANT else request.tenant


def _of_version(model: str, version: str, ready: Sequence[ReplicaView]) -> Route:
    """Return the replicas of this version: where there is only one model, it may be called by the version alone."""
    names = (version, f"{model}@{version}")
    return Route(tuple(view for view in ready if view.version in names), version)


class RegionRouter:
    """The nearest region with room or, if none has room, the nearest with a ready replica.

    `latency_s` maps (client's region, replica's region) to seconds; an unlisted pair counts as farther than every
    listed one, and the client's own region as nearest. A region has room while its mean number of outstanding requests
    per replica is below `spill_outstanding`. A request without a region may go anywhere.
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
        """Return the latency between two regions: infinite if it is not listed."""
        return self._latency_s.get((client, region), 0.0 if client == region else math.inf)

    def _has_room(self, replicas: Sequence[ReplicaView]) -> bool:
        return sum(view.outstanding for view in replicas) < self._spill_outstanding * len(replicas)


class PriorityTier:
    """Each class has a pool of replicas, and may fill a replica only up to a limit: the rest is for higher classes.

    `pools` maps a class to the replica ids it may use (an unlisted class may use all). `limits` are outstanding
    requests per replica, highest class first; a lower class may not have a higher limit.
    """

    def __init__(
        self,
        *,
        limits: tuple[float, float, float] = (math.inf, 64, 16),  # INTERACTIVE, STANDARD, BATCH: 4 and 1 batches of 16
        pools: Mapping[Priority, Collection[str]] | None = None,
    ) -> None:
        if len(limits) != len(Priority) or list(limits) != sorted(limits, reverse=True):
            raise SetupError(f"limits must be {len(Priority)} numbers that never rise, not {limits}")
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
