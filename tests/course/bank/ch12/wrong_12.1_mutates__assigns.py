# question: 12.1
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request


class LeastOutstanding:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        fewest = min(view.outstanding for view in replicas)
        equals = [view for view in replicas if view.outstanding == fewest]
        chosen = equals[number("x", request.request_id) % len(equals)]
        chosen.outstanding += 1
        return chosen.replica_id
