"""What probes have found reaches the policies that care about health: control loops of the gateway, in both worlds."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from miniserve.errors import RequestError, stalled
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


class Running(Protocol):
    """An attempt under way, as a driver performs it."""

    @property
    def replica_id(self) -> str: ...
    @property
    def started_s(self) -> float: ...
    def cut_off(self, error: RequestError) -> None: ...


class StallTick:
    """A control loop that cuts off attempts on replicas that hang. `running`: all that are under way, oldest first."""

    def __init__(self, policies: Policies, running: Collection[Running]) -> None:
        self._progress = policies.progress if policies.resume else None
        self._running = running
        self._called_s: float | None = None

    def __call__(self, now_s: float, view: FleetView) -> None:
        called_s, self._called_s = self._called_s, now_s
        watch = self._progress
        if watch is None or not self._running:
            return
        if called_s is not None and now_s - called_s > watch.move_s / 2:
            return  # it is us who were away: what came meanwhile has still to be read
        silent_s = watch.silent_s(view.ready(), now_s)
        if not silent_s:
            return
        for attempt in tuple(self._running):
            has_waited = now_s - attempt.started_s >= watch.move_s  # a trial has its time, too
            if has_waited and attempt.replica_id in silent_s:
                attempt.cut_off(stalled(silent_s[attempt.replica_id]))
