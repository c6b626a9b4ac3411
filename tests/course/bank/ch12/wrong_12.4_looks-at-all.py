# question: 12.4
from collections.abc import Sequence

from miniserve.types import ReplicaView, Request


class PowerOfTwo:
    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None
        return min(replicas, key=self._load).replica_id

    def _load(self, view: ReplicaView) -> float:
        return view.outstanding
