"""One replica of a simulated fleet: what it is, what the gateway believes about it, and its faults.

Truth and belief are kept apart, as in `gateway.fleet`: `is_up` and `troubles` belong to the world, `state` and the
report to the gateway, as of its last probe. Only `outstanding` is counted by the gateway itself, and so is always true.
"""

from __future__ import annotations

import math
from collections import Counter
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
    factor: float = 1.0  # of its step times, if it is slow

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise ValueError(f"the factor of a fault ({self.factor}) must be positive")


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """Something that happened to a replica, for plots and tests."""

    at_s: float
    replica_id: str
    what: str


@dataclass(slots=True, eq=False)
class SimMember:
    """See the module docstring. Every change to `outstanding`, `state` or the report must forget the cached view."""

    replica_id: str
    spec: ReplicaSpec
    replica: SimReplica
    account: Account
    random_key: tuple[object, ...]
    is_up: bool = False  # its process exists and answers
    is_draining: bool = False
    life: int = 0  # counts starts: what was scheduled in one life does not happen in the next
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
        """Copy what the replica reports about itself now."""
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

    def cache_use(self) -> Counter[str]:
        """Return how many blocks of prompts the prefix cache held, and how many it had to overwrite."""
        blocks, found_tokens = self.replica.blocks, self.replica.counters.prefix_hit_tokens
        return Counter(block_hits=found_tokens // blocks.block_size, block_evictions=blocks.evictions)

    @property
    def can_be_reached(self) -> bool:
        return self.is_up and not any(trouble.kind is ReplicaFault.PARTITION for trouble in self.troubles)

    def add_trouble(self, trouble: Trouble) -> None:
        self.troubles.append(trouble)
        self._apply_troubles()

    def recover(self, trouble: Trouble) -> None:
        if trouble in self.troubles:
            self.troubles.remove(trouble)
            self._apply_troubles()

    def die(self, error: RequestError) -> None:
        """Lose the process and everything in it. A hang ends with it; the machine's own troubles do not."""
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
