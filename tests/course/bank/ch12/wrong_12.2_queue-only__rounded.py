# question: 12.2
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request


class LeastKv:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        loads = {view.replica_id: (view.queue_depth, round(view.kv_used_fraction, 1)) for view in replicas}
        equals = sorted(id_ for id_, load in loads.items() if load == min(loads.values()))
        return equals[number("x", request.request_id) % len(equals)]
