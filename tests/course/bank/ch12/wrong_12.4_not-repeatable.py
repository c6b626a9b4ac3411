# question: 12.4
import random
from collections.abc import Sequence

from miniserve.types import ReplicaView, Request


class PowerOfTwo:
    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None
        one, other = random.sample(replicas, 2) if len(replicas) > 1 else (replicas[0], replicas[0])
        return (other if self._load(other) < self._load(one) else one).replica_id

    def _load(self, view: ReplicaView) -> float:
        return view.outstanding
