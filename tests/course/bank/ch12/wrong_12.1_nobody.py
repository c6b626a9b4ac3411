# question: 12.1
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request


class LeastOutstanding:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        idle = sorted(view.replica_id for view in replicas if view.outstanding == 0)
        return idle[number("x", request.request_id) % len(idle)] if idle else None
