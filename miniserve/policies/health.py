"""What probes have found reaches the policies that care about health: a control loop of the gateway, in both worlds."""

from __future__ import annotations

from miniserve.policies.bundle import Policies
from miniserve.types import FleetView, ReplicaState


class HealthTick:
    """A control loop that tells the bundle's health policies what the probes have found, and who has left."""

    def __init__(self, policies: Policies) -> None:
        self._ejector = policies.ejector
        self._progress = policies.progress
        self._as_of_s: dict[str, float] = {}  # each replica's last report
        self._steps: dict[str, int] = {}  # as of that report

    def __call__(self, now_s: float, view: FleetView) -> None:
        for replica_id in self._as_of_s.keys() - {replica.replica_id for replica in view.replicas}:
            self._forget(replica_id)
        if self._progress is not None:
            self._progress.observe(view.replicas)
        for replica in view.replicas:
            has_answered = self._as_of_s.get(replica.replica_id) != replica.as_of_s
            self._as_of_s[replica.replica_id] = replica.as_of_s
            if replica.steps < self._steps.get(replica.replica_id, 0) and self._ejector is not None:
                self._ejector.forget(replica.replica_id)  # another process: what the last one did is not its fault
            self._steps[replica.replica_id] = replica.steps
            if self._ejector is not None and replica.state is ReplicaState.DOWN:
                self._ejector.probe(replica.replica_id, False, now_s)
            elif self._ejector is not None and replica.state is ReplicaState.READY and has_answered:
                self._ejector.probe(replica.replica_id, True, now_s)

    def _forget(self, replica_id: str) -> None:
        del self._as_of_s[replica_id], self._steps[replica_id]
        for policy in (self._ejector, self._progress):
            if policy is not None:
                policy.forget(replica_id)
