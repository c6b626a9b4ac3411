# question: 12.2
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request


class LeastKv:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        least = min(view.queue_depth * view.kv_used_fraction for view in replicas)
        equals = sorted(view.replica_id for view in replicas if view.queue_depth * view.kv_used_fraction == least)
        return equals[number("x", request.request_id) % len(equals)]
