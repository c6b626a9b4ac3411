# question: 12.1
import random
from collections.abc import Sequence

from miniserve.types import ReplicaView, Request


class LeastOutstanding:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        fewest = min(view.outstanding for view in replicas)
        return random.choice([view.replica_id for view in replicas if view.outstanding == fewest])
