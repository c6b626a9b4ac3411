"""The replicas that one request may go to, each time that its story looks: what its router leaves of the fleet.

Once a part of the answer is there, only replicas of the version that began it are left: otherwise two models would
write half of it each, and nobody would be told.
"""

from __future__ import annotations

from collections.abc import Callable

from miniserve.policies.guard import ask_about, broken_promise
from miniserve.policies.routing.router import Route, Router
from miniserve.types import FleetView, ReplicaView, Request


class RoutedFleet:
    """The fleet as one request's router shows it."""

    __slots__ = ("_fleet", "_request", "_router", "_version", "_why")

    def __init__(self, request: Request, fleet: Callable[[], FleetView], router: Router | None) -> None:
        self._request = request
        self._fleet = fleet
        self._router = router
        self._version: str | None = None  # of the replica that began the answer
        self._why = ""  # there was no replica when last looked for, as far as the router said

    def replicas(self) -> tuple[ReplicaView, ...]:
        """Return the ready replicas that the request may go to now.

        Raises: PolicyError if the router raises, or offers what it was not shown as ready.
        """
        replicas = self._from_router(self._fleet())
        if self._version is None:
            return replicas
        return tuple([one for one in replicas if one.version == self._version])

    def _from_router(self, view: FleetView) -> tuple[ReplicaView, ...]:
        router, request = self._router, self._request
        if router is None:
            return view.ready()
        replicas, self._why = ask_about(router, request, lambda: _told(router.route(request, view)))
        if not {replica.replica_id for replica in replicas} <= {replica.replica_id for replica in view.ready()}:
            raise broken_promise(router, request, "it offered a replica that is not among the ready ones it was shown")
        return replicas

    def keep_version_of(self, replica_id: str) -> None:
        """Stay with the version of this replica, which has begun the answer; the first call counts."""
        if self._version is None:
            found = (replica.version for replica in self._fleet().replicas if replica.replica_id == replica_id)
            self._version = next(found, "") or None  # it may have left the fleet, or not have reported yet

    def why_none(self) -> str:
        """Return why there is no replica."""
        view = self._fleet()
        return self._why or f"no replica is ready ({len(view.ready())} of {len(view.replicas)})"


def _told(route: Route) -> tuple[tuple[ReplicaView, ...], str]:
    return tuple(route.replicas), route.why
