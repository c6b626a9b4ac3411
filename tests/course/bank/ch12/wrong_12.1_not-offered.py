# question: 12.1
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request


class LeastOutstanding:
    def __init__(self) -> None:
        self.last: dict[str, int] = {}

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        for view in replicas:
            self.last[view.replica_id] = view.outstanding
        fewest = min(self.last.values())
        equals = sorted(name for name, load in self.last.items() if load == fewest)
        return equals[number("x", request.request_id) % len(equals)]
