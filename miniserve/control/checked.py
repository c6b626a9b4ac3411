"""Anyone may write an autoscaler: if it breaks its contract, say which one, at which tick, and how."""

from __future__ import annotations

from collections.abc import Sequence

from miniserve.control.autoscaler import Autoscaler, ScalingAction, horizon_s
from miniserve.errors import PolicyError
from miniserve.policies.guard import call_policy, policy_error
from miniserve.types import Drain, FleetView, ScaleTo


class Checked:
    """Passes on `autoscaler`'s answers. Raises: PolicyError if it raises, changes its view, or answers nonsense."""

    def __init__(self, autoscaler: Autoscaler) -> None:
        self._autoscaler = autoscaler

    @property
    def horizon_s(self) -> float | None:
        return horizon_s(self._autoscaler)

    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        about = f"its tick at {now_s:,.1f} s"
        actions = call_policy(self._autoscaler, about, lambda: self._autoscaler.tick(now_s, view))
        if not isinstance(actions, list | tuple):
            raise self._refusal(about, f"it returned {actions!r}, not a list of actions")
        for action in actions:
            if (why := _wrong(action, view)) is not None:
                raise self._refusal(about, f"it returned {action!r}: {why}")
        return actions

    def _refusal(self, about: str, what: str) -> PolicyError:
        return policy_error(self._autoscaler, about, what)


def _wrong(action: object, view: FleetView) -> str | None:
    """Return what is wrong with an action; None if nothing is."""
    match action:
        case ScaleTo(replicas):
            whole = isinstance(replicas, int) and not isinstance(replicas, bool) and replicas >= 0
            return None if whole else "`replicas` must be a whole number of 0 or more"
        case Drain(replica_id):
            there = [replica.replica_id for replica in view.replicas]
            return None if replica_id in there else f"there is no such replica; there are {', '.join(there) or 'none'}"
        case _:
            return "an autoscaler may answer ScaleTo and Drain"
