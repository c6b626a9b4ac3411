"""One replica of a simulated fleet: what it is, what the gateway believes of it, and what it suffers.

Truth and belief are kept apart, as in `live.fleet`: `is_up` and `troubles` are the world's, `state` and the report are
the gateway's, as of its last probe. Only `outstanding` is counted by the gateway itself and always true.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import simpy

from miniserve.engine.stats import Load
from miniserve.errors import RequestError
from miniserve.faults import ReplicaFault
from miniserve.hardware.spec import ReplicaSpec
from miniserve.sim.bill import Account
from miniserve.sim.replica import SimReplica
from miniserve.types import ReplicaState, ReplicaView


@dataclass(frozen=True, slots=True, eq=False)
class Trouble:
    """A fault that lasts: a hang, slowness, or a partition."""

    kind: ReplicaFault
    factor: float = 1.0  # of a slow one's step times

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise ValueError(f"a factor of {self.factor} is no speed; it must be positive")


@dataclass(slots=True, eq=False)
class SimMember:
    """See the module's text. Every change of `outstanding`, `state` or the report must forget the cached view."""

    replica_id: str
    spec: ReplicaSpec
    replica: SimReplica
    account: Account
    random_key: tuple[object, ...]
    is_up: bool = False  # its process is there and answers
    is_draining: bool = False
    life: int = 0  # counts starts: what was planned for an earlier life does not happen in a later one
    troubles: list[Trouble] = field(default_factory=list)
    state: ReplicaState = ReplicaState.STARTING
    outstanding: int = 0
    misses: int = 0  # probes in a row without an answer
    stop_probing: Callable[[], None] | None = None
    on_ended: Callable[[simpy.Event], None] | None = None
    _load: Load = Load()  # noqa: RUF009 -- it cannot change
    _as_of_s: float = 0.0
    _generated_tokens: int = 0
    _view: ReplicaView | None = None

    # --- belief

    def view(self) -> ReplicaView:
        if self._view is None:
            load, spec = self._load, self.spec
            self._view = ReplicaView(
                self.replica_id,
                self.state,
                self.outstanding,
                load.queue_depth,
                load.running,
                load.kv_used_fraction,
                load.tokens_per_s,
                spec.version,
                spec.region,
                spec.weight,
                self._as_of_s,
                load.steps,
            )
        return self._view

    def forget_view(self) -> None:
        self._view = None

    def read_report(self, now_s: float) -> None:
        """Take over what the replica says of itself now."""
        replica, counters = self.replica, self.replica.counters
        seconds = now_s - self._as_of_s
        new_tokens = counters.generated_tokens - self._generated_tokens
        tokens_per_s = new_tokens / seconds if seconds > 0 else self._load.tokens_per_s
        self._load = Load(
            replica.num_waiting,
            replica.num_running,
            replica.kv_used_fraction,
            tokens_per_s,
            counters.steps,
        )
        self._as_of_s, self._generated_tokens = now_s, counters.generated_tokens
        self._view = None

    def set_state(self, state: ReplicaState) -> None:
        if state is not self.state:
            self.state = state
            self._view = None

    # --- truth

    @property
    def can_be_reached(self) -> bool:
        return self.is_up and not any(trouble.kind is ReplicaFault.PARTITION for trouble in self.troubles)

    def suffer(self, trouble: Trouble) -> None:
        self.troubles.append(trouble)
        self._apply_troubles()

    def recover(self, trouble: Trouble) -> None:
        if trouble in self.troubles:
            self.troubles.remove(trouble)
            self._apply_troubles()

    def die(self, error: RequestError) -> None:
        """Lose the process and all that was in it; a hang ends with it, the machine's own troubles do not."""
        self.is_up = False
        self.life += 1
        self.replica.kill(error)
        self.troubles = [trouble for trouble in self.troubles if trouble.kind is not ReplicaFault.HANG]
        self._apply_troubles()

    def _apply_troubles(self) -> None:
        hangs = any(trouble.kind is ReplicaFault.HANG for trouble in self.troubles)
        (self.replica.pause if hangs else self.replica.resume)()
        slowness = math.prod(trouble.factor for trouble in self.troubles if trouble.kind is ReplicaFault.SLOW)
        self.replica.speed = self.spec.speed / slowness
