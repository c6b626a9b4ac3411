# question: 12.2
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request


class LeastKv:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        free = sorted(view.replica_id for view in replicas if view.queue_depth == 0 and view.kv_used_fraction < 0.9)
        return free[number("x", request.request_id) % len(free)] if free else None
