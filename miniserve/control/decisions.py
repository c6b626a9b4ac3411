"""What an autoscaler decides, in the log of the gateway's decisions."""

from __future__ import annotations

from collections.abc import Sequence

from miniserve.control.autoscaler import Autoscaler, ScalingAction, horizon_s, wanted_now
from miniserve.policies.decision_log import Decision, OnDecision
from miniserve.types import FleetView, ScaleTo


def logged_autoscaler(autoscaler: Autoscaler, write: OnDecision | None) -> Autoscaler:
    """Return the autoscaler, with its decisions told to `write` if there is one."""
    return autoscaler if write is None else _Logged(autoscaler, write)


class _Logged:
    """An autoscaler whose wishes are written down, as far as they would change something."""

    def __init__(self, autoscaler: Autoscaler, write: OnDecision) -> None:
        self._autoscaler = autoscaler
        self._write = write

    @property
    def horizon_s(self) -> float | None:
        return horizon_s(self._autoscaler)

    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        actions = self._autoscaler.tick(now_s, view)
        for action in actions:
            if not isinstance(action, ScaleTo):
                self._write(Decision(now_s, "", ("drain", action.replica_id)))
            elif action.replicas != wanted_now(view):
                self._write(Decision(now_s, "", ("scale", action.replicas)))
        return actions
