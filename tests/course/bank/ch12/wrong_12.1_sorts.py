# question: 12.1
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request


class LeastOutstanding:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        ordered = sorted(replicas, key=lambda view: view.outstanding)
        equals = sorted(view.replica_id for view in ordered if view.outstanding == ordered[0].outstanding)
        return equals[number("x", request.request_id) % len(equals)]
