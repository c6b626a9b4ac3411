# question: 12.1
from collections import defaultdict
from collections.abc import Sequence

from miniserve.seeds import uniform
from miniserve.types import ReplicaView, Request


class LeastOutstanding:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        groups: dict[int, list[str]] = defaultdict(list)
        for view in replicas:
            groups[int(view.outstanding)].append(view.replica_id)
        equals = sorted(groups[min(groups)])
        return equals[int(uniform(request.request_id) * len(equals))]
