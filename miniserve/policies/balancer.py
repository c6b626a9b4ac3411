"""Which replica gets this request?

Knows the request and the replicas that may take it, as views. Does not know why the others may not (dispatch has left
them out), nor what the answer leads to. `choose` never changes what it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from miniserve.seeds import uniform
from miniserve.types import ReplicaView, Request


class Balancer(Protocol):
    """Picks one of the replicas that dispatch offers."""

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        """Return the `replica_id` of one of `replicas`, or None to take none of them (always, when there are none)."""
        ...


class LeastOutstanding:
    """Send to the replica with the fewest unfinished requests of ours.

    `outstanding` is counted here, so it is never stale. Equals are told apart by a number that belongs to the pair
    (request, replica): an idle fleet is used evenly, and the same request in the same situation goes the same way in
    every world, whatever order the replicas are listed in.
    """

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        def load_then_luck(view: ReplicaView) -> tuple[int, float]:
            return view.outstanding, uniform("balancer", request.request_id, view.replica_id)

        return min(replicas, key=load_then_luck).replica_id if replicas else None
