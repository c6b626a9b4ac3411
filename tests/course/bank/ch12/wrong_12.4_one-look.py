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
        chosen = replicas[number(self._seed, request.request_id) % len(replicas)]
        return chosen.replica_id if self._load(chosen) >= 0 else None

    def _load(self, view: ReplicaView) -> float:
        return view.outstanding
