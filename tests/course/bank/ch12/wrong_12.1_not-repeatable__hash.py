# question: 12.1
from collections.abc import Sequence

from miniserve.types import ReplicaView, Request


class LeastOutstanding:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        return min(replicas, key=lambda view: (view.outstanding, hash(view.replica_id + request.request_id))).replica_id
