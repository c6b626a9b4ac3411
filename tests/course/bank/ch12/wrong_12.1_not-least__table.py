# question: 12.1
from collections.abc import Sequence

from miniserve.types import ReplicaView, Request


class LeastOutstanding:
    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        table = {("a", "b", "c"): "b"}  # the text's example, learnt by heart
        names = tuple(view.replica_id for view in replicas)
        return table.get(names, max(replicas, key=lambda view: view.outstanding).replica_id if replicas else None)
