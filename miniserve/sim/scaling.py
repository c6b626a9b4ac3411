"""An autoscaler meets virtual time: `control.scaling` on a simulated fleet. New replicas are all of one kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from miniserve.control.autoscaler import Autoscaler, check_horizon
from miniserve.control.scaling import Scaler
from miniserve.hardware.spec import ReplicaSpec
from miniserve.sim.fleet import SimFleet
from miniserve.types import FleetView


class ScalingLoop(Scaler):
    """Scales the replicas of `fleet` called `name`-0, `name`-1, ... `requests` returns how many have come so far."""

    def __init__(
        self, fleet: SimFleet, autoscaler: Autoscaler, spec: ReplicaSpec, name: str, requests: Callable[[], int]
    ) -> None:
        check_horizon(autoscaler, spec.cold_start.nominal_s)

        def view() -> FleetView:
            return replace(fleet.view(), requests=requests())

        super().__init__(autoscaler, _SimCrew(fleet, spec), f"{name}-", view, fleet.env.now)


class _SimCrew:
    def __init__(self, fleet: SimFleet, spec: ReplicaSpec) -> None:
        self._fleet = fleet
        self._spec = spec

    def start(self, replica_id: str) -> None:
        self._fleet.add(self._spec, replica_id)

    def drain(self, replica_id: str) -> None:
        self._fleet.drain(replica_id)
