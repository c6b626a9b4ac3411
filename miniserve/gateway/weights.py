"""Weights by measured speed: a replica that steps twice as fast gets twice the traffic of balancers that weigh.

Speed is steps per busy second. Tokens per second would not do: they grow with the traffic that a replica gets, so who
had more would be given more. Steps become slower with it, so the weights settle. Who has hardly worked keeps its
weight.
"""

from __future__ import annotations

from dataclasses import dataclass

from miniserve.gateway.fleet import Fleet
from miniserve.types import FleetView

PERIOD_S = 5.0
LEAST_BUSY_S = 0.5  # in a period: less says nothing about a speed
KEPT = 0.5  # of the last weight, at each new measurement


@dataclass(slots=True)
class _Measured:
    pid: int  # another process counts from 0 again
    steps: int
    busy_s: float
    steps_per_s: float | None = None


class SpeedWeights:
    """A control loop that sets the weights of `fleet`'s replicas, relative to their mean."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._due_s = fleet.clock() + PERIOD_S
        self._measured: dict[str, _Measured] = {}

    def __call__(self, now_s: float, view: FleetView) -> None:
        if now_s < self._due_s:
            return
        self._due_s = now_s + PERIOD_S
        for replica_id in self._measured.keys() - {member.replica_id for member in self._fleet.members()}:
            del self._measured[replica_id]
        for member in self._fleet.members():
            if (report := member.report) is not None:
                self._measure(member.replica_id, report.pid, report.stats.counters.steps, report.stats.busy_s)
        speeds = {name: one.steps_per_s for name, one in self._measured.items() if one.steps_per_s is not None}
        mean = sum(speeds.values()) / len(speeds) if speeds else 1.0
        for replica_id, speed in speeds.items():
            self._fleet.weigh(replica_id, speed / mean)

    def _measure(self, replica_id: str, pid: int, steps: int, busy_s: float) -> None:
        last = self._measured.get(replica_id)
        if last is None or last.pid != pid:
            self._measured[replica_id] = _Measured(pid, steps, busy_s)
        elif busy_s - last.busy_s >= LEAST_BUSY_S and steps > last.steps:
            speed = (steps - last.steps) / (busy_s - last.busy_s)
            smooth = speed if last.steps_per_s is None else KEPT * last.steps_per_s + (1 - KEPT) * speed
            self._measured[replica_id] = _Measured(pid, steps, busy_s, smooth)
