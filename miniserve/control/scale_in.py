"""From a wanted number to names: how many replicas to start, or which ones to take away.

Those that have not started yet go first, the youngest first: nobody is served there. Then those with the fewest
requests, which are drained soonest. Knows views only.
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
    """Return how `view` becomes a fleet of `replicas` that are ready or starting."""
    there = [r for r in view.replicas if r.state in (ReplicaState.READY, ReplicaState.STARTING)]
    surplus = len(there) - replicas
    if surplus <= 0:
        return Changes(start=-surplus)
    youngest_first = reversed(there)
    cheapest_first = sorted(youngest_first, key=lambda r: (r.state is ReplicaState.READY, r.outstanding))
    return Changes(drain=tuple(replica.replica_id for replica in cheapest_first[:surplus]))
