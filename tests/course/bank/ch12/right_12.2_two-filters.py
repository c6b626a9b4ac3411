# question: 12.2
from collections.abc import Sequence
from random import Random

from miniserve.types import ReplicaView, Request


class LeastKv:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        left = list(replicas)
        for name in ("queue_depth", "kv_used_fraction"):
            smallest = min((getattr(view, name) for view in left), default=None)
            left = [view for view in left if getattr(view, name) == smallest]
        names = sorted(view.replica_id for view in left)
        return Random(request.request_id).choice(names) if names else None
