# question: 12.2
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request


class LeastKv:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        best: tuple[float, float] | None = None
        equals: list[str] = []
        for view in replicas:
            load = (view.queue_depth, view.kv_used_fraction)
            if best is None or load < best:
                best, equals = load, [view.replica_id]
            elif load == best:
                equals.append(view.replica_id)
        return sorted(equals)[number("mine", request.request_id) % len(equals)] if equals else None
