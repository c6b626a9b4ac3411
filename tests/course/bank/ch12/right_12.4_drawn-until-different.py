# question: 12.4
from collections.abc import Sequence

from miniserve.seeds import uniform
from miniserve.types import ReplicaView, Request


class PowerOfTwo:
    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        count, tries = len(replicas), 0
        first = second = int(uniform(self._seed, request.request_id) * count)
        while second == first and count > 1:
            tries += 1
            second = int(uniform(self._seed, request.request_id, tries) * count)
        one, other = replicas[first], replicas[second]
        return (other if self._load(other) < self._load(one) else one).replica_id

    def _load(self, view: ReplicaView) -> float:
        return view.outstanding
