# question: 12.1
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request


class LeastOutstanding:
    def __init__(self) -> None:
        self.sent: dict[str, int] = {}

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        for view in replicas:
            self.sent.setdefault(view.replica_id, 0)
        fewest = min(self.sent[view.replica_id] for view in replicas)
        equals = sorted(view.replica_id for view in replicas if self.sent[view.replica_id] == fewest)
        chosen = equals[number("x", request.request_id) % len(equals)]
        self.sent[chosen] += 1
        return chosen
