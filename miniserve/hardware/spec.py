"""What to build: a replica's hardware, price, speed and place as one value; a shared cache as another.

`replica_spec` derives it from the price list; a test or a scenario may as well write the numbers itself. Knows no
simulation: both are data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import SetupError
from miniserve.hardware.prices import ColdStart, Hardware, ModelSize
from miniserve.hardware.rightsizing import MeanLoad, seconds_per_request

READY_AT_ONCE = ColdStart()
_SCHEDULER = SchedulerConfig()
_CACHE = CacheConfig()


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """One kind of replica. `speed` divides step times; `weight` is what balancers see."""

    step_time: StepTimeModel
    scheduler: SchedulerConfig = _SCHEDULER
    cache: CacheConfig = _CACHE
    max_model_len: int = 1 << 20  # the scheduler lowers it to what the KV pool holds
    hardware: str = ""
    usd_per_hour: float = 0.0
    spot: bool = False
    interruptions_per_hour: float = 0.0  # of a spot machine; their times are exponential
    notice_s: float = 30.0
    cold_start: ColdStart = READY_AT_ONCE
    version: str = ""
    region: str = ""
    weight: float = 1.0
    speed: float = 1.0

    def __post_init__(self) -> None:
        for name in ("usd_per_hour", "interruptions_per_hour", "notice_s"):
            if not getattr(self, name) >= 0:
                raise SetupError(f"{name} is {getattr(self, name)}; at least 0 is needed")
        for name in ("weight", "speed"):
            if not getattr(self, name) > 0:
                raise SetupError(f"{name} is {getattr(self, name)}; more than 0 is needed")


def replica_spec(
    hardware: Hardware,
    model: ModelSize,
    *,
    scheduler: SchedulerConfig | None = None,
    prefix_caching: bool = True,
    block_size: int = 16,
    spot: bool = False,
    version: str = "",
    region: str = "",
) -> ReplicaSpec:
    """Return one replica of `model` on `hardware`. Raises: SetupError if the model does not fit there."""
    return ReplicaSpec(
        step_time=hardware.step_time(model),
        scheduler=scheduler or hardware.scheduler,
        cache=CacheConfig(hardware.kv_blocks(model, block_size), block_size, prefix_caching),
        hardware=hardware.name,
        usd_per_hour=hardware.price_usd_per_hour(spot),
        spot=spot,
        interruptions_per_hour=hardware.spot_interruptions_per_hour if spot else 0.0,
        notice_s=hardware.spot_notice_s,
        cold_start=hardware.cold_start(model),
        version=version or model.name,
        region=region,
    )


@dataclass(frozen=True, slots=True)
class TierSpec:
    """A prefix cache behind all replicas: `capacity_blocks` blocks of `block_bytes` bytes each."""

    capacity_blocks: int
    block_bytes: float
    bandwidth_bytes_per_s: float  # of each replica's own link to it
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        if self.capacity_blocks < 1 or not self.block_bytes > 0:
            raise SetupError(
                f"a prefix tier needs at least 1 block ({self.capacity_blocks}) "
                f"and positive block_bytes ({self.block_bytes})"
            )
        if not self.bandwidth_bytes_per_s > 0 or not self.latency_s >= 0:
            raise SetupError(
                f"a prefix tier needs a positive bandwidth_bytes_per_s ({self.bandwidth_bytes_per_s}) "
                f"and a latency_s ({self.latency_s}) of at least 0"
            )


def weigh_by_speed(specs: Sequence[ReplicaSpec], workload: MeanLoad) -> tuple[ReplicaSpec, ...]:
    """Return `specs` with each one's weight set to its speed at `workload`, the slowest one's being 1."""
    seconds = [seconds_per_request(spec.step_time, workload, spec.scheduler.max_running) / spec.speed for spec in specs]
    return tuple(replace(spec, weight=max(seconds) / own) for spec, own in zip(specs, seconds, strict=True))
