"""Quantities of a simulated fleet over time: read at regular moments, told as series for figures."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from math import inf

from miniserve.sim.fleet import SimFleet
from miniserve.sim.result import Series
from miniserve.types import ReplicaState

_STEADY = ("replicas", "replicas_starting")  # told only if they change


class Samples:
    """What `take` has seen so far. `queued` returns how many requests wait at the gateway, if they can."""

    def __init__(self, fleet: SimFleet, queued: Callable[[], int] | None) -> None:
        self._fleet = fleet
        self._queued = queued
        self._times_s: list[float] = []
        self._values: dict[str, list[float]] = {}

    def take(self, now_s: float) -> None:
        """Read all quantities."""
        members = self._fleet.members()
        up = [member.replica for member in members if member.is_up]
        states = [member.state for member in members]
        values = {
            "outstanding": sum(member.outstanding for member in members),
            "waiting": sum(replica.num_waiting for replica in up),
            "running": sum(replica.num_running for replica in up),
            "kv_used_fraction": sum(replica.kv_used_fraction for replica in up) / len(up) if up else 0.0,
            "replicas": states.count(ReplicaState.READY),
            "replicas_starting": states.count(ReplicaState.STARTING),
        }
        if self._queued is not None:
            values["queued"] = self._queued()
        self._times_s.append(now_s)
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)

    def series(self, until_s: float = inf) -> dict[str, Series]:
        """Return what was seen until then."""
        times_s = self._times_s[: bisect_right(self._times_s, until_s)]
        told = {name: each for name, each in self._values.items() if name not in _STEADY or len(set(each)) > 1}
        return {name: (times_s, values[: len(times_s)]) for name, values in told.items()}
