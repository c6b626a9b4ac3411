# question: 12.2
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request


class LeastKv:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        ordered = sorted(replicas, key=lambda view: (view.queue_depth, view.kv_used_fraction))
        first = ordered[0]
        equals = sorted(
            view.replica_id
            for view in replicas
            if view.queue_depth == first.queue_depth and view.kv_used_fraction == first.kv_used_fraction
        )
        return equals[number("x", request.request_id) % len(equals)]
