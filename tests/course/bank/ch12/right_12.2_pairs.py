# question: 12.2
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request


class LeastKv:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        return min(
            replicas,
            key=lambda view: (view.queue_depth, view.kv_used_fraction, number(view.replica_id, request.request_id)),
        ).replica_id
