"""What a gateway did at each replica, and how that ended, counted since its start.

`gateway.counting` writes, `/metrics` and `GET /status` read. Plain numbers, so that both tell the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from miniserve.engine.stats import EngineStats
from miniserve.types import ReplicaView


@dataclass(slots=True)
class ReplicaCounts:
    """One replica's share of the attempts."""

    attempts: int = 0  # all of them, those below included
    retries: int = 0  # made after another attempt at the same request had failed
    hedges: int = 0  # started beside another that was slow
    resumed: int = 0  # retries that went on after the tokens of the one before
    failures: Counter[str] = field(default_factory=Counter)  # kind of error -> attempts


class GatewayCounts:
    """All replicas' counts. They outlive a restart of the replica's process, as a gateway's own numbers should."""

    def __init__(self) -> None:
        self.replicas: defaultdict[str, ReplicaCounts] = defaultdict(ReplicaCounts)
        self.clients_left = 0  # before their answer was complete

    def total(self, name: str) -> int:
        """Return the sum of one count, such as "retries", over all replicas."""
        return sum(getattr(counts, name) for counts in self.replicas.values())


@dataclass(frozen=True, slots=True)
class ReplicaReading:
    """All that is known of a replica at one moment. `stats` None: it has not reported yet."""

    view: ReplicaView
    counts: ReplicaCounts
    stats: EngineStats | None = None
    busy_fraction: float | None = None  # of a recent time, how much its engine spent in steps
    ejections: int = 0
    restarts: int = 0
    cold_start_s: Mapping[str, float] = field(default_factory=dict)  # stage -> seconds, of the last start

    @property
    def is_paced(self) -> bool:
        return self.stats is not None and self.stats.paced_steps > 0

    @property
    def overrun_fraction(self) -> float | None:
        """Share of a paced replica's steps that took longer than their pace; above 5 % its figures mean nothing."""
        stats = self.stats
        return round(stats.overrun_steps / stats.paced_steps, 4) if stats is not None and stats.paced_steps else None
