# question: 12.1
from collections.abc import Sequence

from miniserve.policies.routing.ties import least
from miniserve.types import ReplicaView, Request


class LeastOutstanding:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None
        return least(request, replicas, [view.outstanding for view in replicas])
