# question: 12.4
from collections.abc import Sequence

from miniserve.types import ReplicaView, Request


class PowerOfTwo:
    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        count = len(replicas)
        first = hash(("first", self._seed, request.request_id)) % count
        second = (first + 1 + hash(("second", self._seed, request.request_id)) % max(1, count - 1)) % count
        one, other = replicas[first], replicas[second]
        return one.replica_id if one.outstanding <= other.outstanding else other.replica_id

    def _load(self, view: ReplicaView) -> float:
        return view.outstanding
