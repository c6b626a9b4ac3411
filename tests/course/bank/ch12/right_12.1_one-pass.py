# question: 12.1
from collections.abc import Sequence
from random import Random

from miniserve.types import ReplicaView, Request


class LeastOutstanding:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        fewest, equals = float("inf"), []
        for view in replicas:
            if view.outstanding < fewest:
                fewest, equals = view.outstanding, [view.replica_id]
            elif view.outstanding == fewest:
                equals.append(view.replica_id)
        if not equals:
            return None
        return Random(request.request_id).choice(sorted(equals))
