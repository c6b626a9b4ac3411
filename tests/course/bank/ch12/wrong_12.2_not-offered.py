# question: 12.2
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request


class LeastKv:
    def __init__(self) -> None:
        self.seen: dict[str, tuple[float, float, int]] = {}

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        for view in replicas:
            self.seen[view.replica_id] = (
                view.queue_depth,
                view.kv_used_fraction,
                number(view.replica_id, request.request_id),
            )
        return min(self.seen, key=self.seen.__getitem__)
