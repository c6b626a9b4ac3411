"""An autoscaler meets virtual time: once per period, show it its replicas and apply its actions to the fleet.

    every period: view of the group ──> Autoscaler.tick ──> ScaleTo ──> start (cold start) or drain; Drain ──> drain

New replicas are all of one kind, and called NAME-3, NAME-4, ... after the initial ones. Scaling down cuts nothing off:
replicas are drained before they leave. A starting replica serves no requests, so it is given back at once.

Knows the simulated fleet; the only decision made here is which replicas go (by `control.scale_in`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from miniserve.control.autoscaler import Autoscaler, check_horizon, count
from miniserve.control.scale_in import changes
from miniserve.hardware.spec import ReplicaSpec
from miniserve.sim.fleet import SimFleet
from miniserve.sim.result import Series
from miniserve.types import Drain, FleetView, ReplicaState, ScaleTo


@dataclass(frozen=True, slots=True)
class Size:
    """The size of the group after a tick, and the size that was wanted."""

    at_s: float
    ready: int
    starting: int
    draining: int
    wanted: int


class ScalingLoop:
    """Scales the replicas of `fleet` called `name`-0, `name`-1, ... `requests` returns how many have come so far."""

    def __init__(
        self, fleet: SimFleet, autoscaler: Autoscaler, spec: ReplicaSpec, name: str, requests: Callable[[], int]
    ) -> None:
        check_horizon(autoscaler, spec.cold_start.nominal_s)
        self.sizes: list[Size] = []
        self._fleet = fleet
        self._autoscaler = autoscaler
        self._spec = spec
        self._name = name
        self._requests = requests
        self._started = sum(self._is_ours(member.replica_id) for member in fleet.members())
        self._note(fleet.env.now, self._started)

    def series(self, until_s: float = inf) -> dict[str, Series]:
        """Return the group's exact size over time, as times and values; samples could miss a cold start."""
        sizes = [size for size in self.sizes if size.at_s <= until_s]
        times = [size.at_s for size in sizes]
        return {
            "replicas": (times, [float(size.ready) for size in sizes]),
            "replicas_starting": (times, [float(size.starting) for size in sizes]),
            "replicas_draining": (times, [float(size.draining) for size in sizes]),
            "replicas_wanted": (times, [float(size.wanted) for size in sizes]),
        }

    def tick(self, now_s: float) -> None:
        """Ask the autoscaler and act. Raises: PolicyError if it breaks its contract."""
        view = self._view()
        wanted = count(view, ReplicaState.READY) + count(view, ReplicaState.STARTING)
        for action in self._autoscaler.tick(now_s, view):
            match action:
                case Drain(replica_id):
                    self._fleet.drain(replica_id)
                case ScaleTo(wanted):
                    self._scale_to(wanted)
        self._note(now_s, wanted)

    def _scale_to(self, replicas: int) -> None:
        todo = changes(self._view(), replicas)
        for replica_id in todo.drain:
            self._fleet.drain(replica_id)
        for _ in range(todo.start):
            self._fleet.add(self._spec, f"{self._name}-{self._started}")
            self._started += 1

    def _view(self) -> FleetView:
        view = self._fleet.view()
        ours = tuple(replica for replica in view.replicas if self._is_ours(replica.replica_id))
        return FleetView(ours, view.as_of_s, self._requests())

    def _is_ours(self, replica_id: str) -> bool:
        name, _, number = replica_id.rpartition("-")
        return name == self._name and number.isdigit()

    def _note(self, now_s: float, wanted: int) -> None:
        view = self._view()  # again: newly started replicas count from now on
        ready, starting, draining = (
            count(view, state) for state in (ReplicaState.READY, ReplicaState.STARTING, ReplicaState.DRAINING)
        )
        size = Size(now_s, ready, starting, draining, wanted)
        if not self.sizes or _numbers(self.sizes[-1]) != _numbers(size):
            self.sizes.append(size)


def _numbers(size: Size) -> tuple[int, ...]:
    return size.ready, size.starting, size.draining, size.wanted
