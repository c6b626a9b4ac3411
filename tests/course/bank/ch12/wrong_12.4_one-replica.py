# question: 12.4
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request


class PowerOfTwo:
    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None

        draw, count = number("two", self._seed, request.request_id), len(replicas)
        first = draw % count
        second = draw // count % (count - 1)
        second += second >= first
        one, other = replicas[first], replicas[second]
        return (other if self._load(other) < self._load(one) else one).replica_id

    def _load(self, view: ReplicaView) -> float:
        return view.outstanding
