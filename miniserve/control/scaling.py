"""An autoscaler meets a fleet: once per period, show it its replicas and have its actions carried out.

    every period: view of the group ──> Autoscaler.tick ──> ScaleTo ──> start (cold start) or drain; Drain ──> drain

New replicas are called NAME-3, NAME-4, ... after the initial ones. Scaling down cuts nothing off: replicas are drained
before they leave. A starting replica serves no requests, so it is given back at once.

The same in both worlds, simulated (`sim/scaling.py`) and live (`gateway/scaling.py`); a `Crew` does what is asked. The
only decision made here is which replicas go (by `control.scale_in`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Protocol

from miniserve.control.autoscaler import Autoscaler, count
from miniserve.control.scale_in import changes
from miniserve.types import Drain, FleetView, ReplicaState, ScaleTo


class Crew(Protocol):
    """Carries out what a control loop wants. Both calls return at once, and the next view shows what they began."""

    def start(self, replica_id: str) -> None:
        """Order a replica: it is STARTING until its cold start is over."""
        ...

    def drain(self, replica_id: str) -> None:
        """Send nothing new there, and let it go once its requests have finished; at once if it is starting."""
        ...


@dataclass(frozen=True, slots=True)
class Size:
    """The size of the group after a tick, and the size that was wanted."""

    at_s: float
    ready: int
    starting: int
    draining: int
    wanted: int


class Scaler:
    """Scales the replicas called `prefix` and a number. `view` shows the fleet, with the requests counted."""

    def __init__(
        self, autoscaler: Autoscaler, crew: Crew, prefix: str, view: Callable[[], FleetView], now_s: float
    ) -> None:
        self.sizes: list[Size] = []
        self._autoscaler = autoscaler
        self._crew = crew
        self._prefix = prefix
        self._look = view
        self._started = len(self._view().replicas)
        self._note(now_s, self._started)

    def follow(self, prefix: str) -> None:
        """Scale the replicas of this prefix from now on."""
        if prefix != self._prefix:
            self._prefix = prefix
            numbers = [int(replica.replica_id.removeprefix(prefix)) for replica in self._view().replicas]
            self._started = max(numbers, default=-1) + 1

    def tick(self, now_s: float) -> None:
        """Ask the autoscaler and act. Raises: PolicyError if it breaks its contract."""
        view = self._view()
        wanted = count(view, ReplicaState.READY) + count(view, ReplicaState.STARTING)
        for action in self._autoscaler.tick(now_s, view):
            match action:
                case Drain(replica_id):
                    self._crew.drain(replica_id)
                case ScaleTo(wanted):
                    self._scale_to(wanted)
        self._note(now_s, wanted)

    def series(self, until_s: float = inf) -> dict[str, tuple[list[float], list[float]]]:
        """Return the group's exact size over time, as times and values; samples could miss a cold start."""
        sizes = [size for size in self.sizes if size.at_s <= until_s]
        times = [size.at_s for size in sizes]
        return {
            "replicas": (times, [float(size.ready) for size in sizes]),
            "replicas_starting": (times, [float(size.starting) for size in sizes]),
            "replicas_draining": (times, [float(size.draining) for size in sizes]),
            "replicas_wanted": (times, [float(size.wanted) for size in sizes]),
        }

    def _scale_to(self, replicas: int) -> None:
        todo = changes(self._view(), replicas)
        for replica_id in todo.drain:
            self._crew.drain(replica_id)
        for _ in range(todo.start):
            self._crew.start(f"{self._prefix}{self._started}")
            self._started += 1

    def _view(self) -> FleetView:
        view = self._look()
        ours = tuple(replica for replica in view.replicas if self._is_ours(replica.replica_id))
        return FleetView(ours, view.as_of_s, view.requests)

    def _is_ours(self, replica_id: str) -> bool:
        return replica_id.startswith(self._prefix) and replica_id[len(self._prefix) :].isdigit()

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
