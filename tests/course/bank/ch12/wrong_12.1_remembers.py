# question: 12.1
from collections.abc import Sequence

from miniserve.types import ReplicaView, Request


class LeastOutstanding:
    def __init__(self) -> None:
        self.turn = 0

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        fewest = min(view.outstanding for view in replicas)
        equals = sorted(view.replica_id for view in replicas if view.outstanding == fewest)
        self.turn += 1
        return equals[self.turn % len(equals)]
