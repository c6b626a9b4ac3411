# question: 12.1
import hashlib
import heapq
from collections.abc import Sequence

from miniserve.types import ReplicaView, Request


class LeastOutstanding:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        luck = hashlib.sha256(request.request_id.encode()).hexdigest()
        heap = [
            (view.outstanding, hashlib.sha256((luck + view.replica_id).encode()).digest(), view.replica_id)
            for view in replicas
        ]
        heapq.heapify(heap)
        return heap[0][2]
