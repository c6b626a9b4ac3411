"""From a wanted number to actions: how many replicas to start, or which ones to remove.

Starting replicas go first, youngest first, since they serve no requests yet. Then the ones with the fewest requests,
which drain soonest. Knows only views.
"""

from __future__ import annotations

from dataclasses import dataclass

from miniserve.types import FleetView, ReplicaState


@dataclass(frozen=True, slots=True)
class Changes:
    """What to do to a fleet."""

    start: int = 0
    drain: tuple[str, ...] = ()


def changes(view: FleetView, replicas: int) -> Changes:
    """Return how to turn `view` into a fleet of `replicas` ready or starting ones."""
    there = [r for r in view.replicas if r.state in (ReplicaState.READY, ReplicaState.STARTING)]
    surplus = len(there) - replicas
    if surplus <= 0:
        return Changes(start=-surplus)
    youngest_first = reversed(there)
    cheapest_first = sorted(youngest_first, key=lambda r: (r.state is ReplicaState.READY, r.outstanding))
    return Changes(drain=tuple(replica.replica_id for replica in cheapest_first[:surplus]))
