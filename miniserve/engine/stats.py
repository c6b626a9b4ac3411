"""What an engine tells about itself: one snapshot, for its metrics, its gateway and whoever plots it. Without torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from miniserve.engine.scheduler import Counters, Scheduler


class Load(NamedTuple):
    """What a gateway keeps of a snapshot, named as in `types.ReplicaView`."""

    queue_depth: int = 0
    running: int = 0
    kv_used_fraction: float = 0.0
    tokens_per_s: float = 0.0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot. The counters run since start, and only ever grow."""

    counters: Counters = field(default_factory=Counters)
    running: int = 0
    waiting: int = 0
    blocks_total: int = 0
    blocks_used: int = 0
    blocks_cached: int = 0  # free, but they still hold a prefix that can be used again
    block_size: int = 0  # tokens
    tokens_per_s: float = 0.0  # generated, of late
    busy_s: float = 0.0  # spent in steps, since start
    paced_steps: int = 0  # of a paced replica (`replica.pace`): its steps, ...
    overrun_steps: int = 0  # ... and those that took longer than its pace

    @property
    def kv_used_fraction(self) -> float:
        return self.blocks_used / self.blocks_total if self.blocks_total else 0.0

    def load(self) -> Load:
        return Load(self.waiting, self.running, self.kv_used_fraction, self.tokens_per_s, self.counters.steps)


def snapshot(scheduler: Scheduler, tokens_per_s: float = 0.0, busy_s: float = 0.0) -> EngineStats:
    """Return how things stand; the counters are copied, since the scheduler's own go on."""
    counters, blocks = scheduler.counters, scheduler.blocks
    return EngineStats(
        counters=replace(counters, finished=dict(counters.finished)),
        running=len(scheduler.running),
        waiting=scheduler.num_waiting,
        blocks_total=blocks.num_blocks,
        blocks_used=blocks.num_used,
        blocks_cached=blocks.num_cached,
        block_size=blocks.block_size,
        tokens_per_s=tokens_per_s,
        busy_s=busy_s,
    )
