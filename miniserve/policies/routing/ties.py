"""The least loaded replica, with a random draw to break ties.

The draw is keyed by the request: the same request in the same situation gets the same replica, live or simulated and
whatever order the replicas are listed in, while an idle fleet is used evenly.
"""

from __future__ import annotations

from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request


def least(request: Request, replicas: Sequence[ReplicaView], loads: Sequence[float]) -> str | None:
    """Return the replica with the lowest load (`loads` is parallel to `replicas`), or None if there are no replicas."""
    if not replicas:
        return None
    lowest = min(loads)
    ties = [view.replica_id for view, load in zip(replicas, loads, strict=True) if load == lowest]
    if len(ties) == 1:
        return ties[0]
    return sorted(ties)[number("balancer", request.request_id) % len(ties)]
