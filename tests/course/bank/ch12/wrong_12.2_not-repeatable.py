# question: 12.2
import random
from collections.abc import Sequence

from miniserve.types import ReplicaView, Request


class LeastKv:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        luck = random.random
        return min(replicas, key=lambda view: (view.queue_depth, view.kv_used_fraction, luck())).replica_id
