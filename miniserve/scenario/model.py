"""What a scenario says: the tables of the file, as values.

    [run]                 how much, which seed            [engine.scheduler], [engine.cache]   one replica's inside
    [workload]            who asks for what, when         [policies]                           all decisions
    [[fleet.replicas]]    groups of equal replicas        [clients]                            what they do on failure
    [faults]              what goes wrong                 [slo]                                what is good enough
    [autoscaler]          how many replicas, when         [response_cache]                     what needs no replica
    [gateway_queue]       one queue before all of them     [rollout]   a version that takes another's place

Each class below is one table; its fields are the table's keys. Policies are recipes: each run makes its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from miniserve.config import SchedulerConfig
from miniserve.control.autoscaler import Autoscaler
from miniserve.control.checked import Checked
from miniserve.control.degrade import Degradation
from miniserve.control.steady import Steady
from miniserve.engine.step_time import StepTimeModel
from miniserve.faults import KeyedFaults, ReplicaEvent, ReplicaFault
from miniserve.hardware.prices import ColdStart
from miniserve.hardware.speculation import Speculation
from miniserve.observe.goodput import SLO
from miniserve.policies.admission.admission import Admission
from miniserve.policies.recovery.breaker import Breaker
from miniserve.policies.recovery.ejection import Ejector
from miniserve.policies.recovery.progress import ProgressWatch
from miniserve.policies.recovery.retry import Backoff, RetryPolicy
from miniserve.policies.recovery.retry_budget import Budget
from miniserve.policies.routing.balancer import Balancer, LeastOutstanding
from miniserve.policies.routing.router import Router
from miniserve.scenario.models import ModelRule
from miniserve.scenario.rollouts import RolloutSection
from miniserve.toml.reader import Count, Fraction, NotNegative, Positive, Range, Recipe
from miniserve.workload.replay import RecordedTrace
from miniserve.workload.requests import Workload

MOST_REPLICAS = 100_000
ReplicaCount = Annotated[int, Range(at_least=1, at_most=MOST_REPLICAS)]
BlockCount = Annotated[int, Range(at_least=1, at_most=100_000_000)]
Period = Annotated[float, Range(at_least=0.001)]  # of a loop: a shorter one would do nothing else


@dataclass(frozen=True, slots=True)
class RunSection:
    """How long, and with which luck. It ends with the last answer after `requests` or `duration_s` of arrivals."""

    requests: Count | None = None
    duration_s: Positive | None = None
    seed: int = 0
    warmup_s: NotNegative = 0.0  # requests that arrive before are served, but count in no figure


@dataclass(frozen=True, slots=True)
class Cache:
    """The KV pool. `num_blocks` is what the hardware has room for, unless said."""

    num_blocks: BlockCount | None = None
    block_size: Count = 16
    prefix_caching: bool = True


@dataclass(frozen=True, slots=True)
class EngineSection:
    """One replica's inside, the same in all groups."""

    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    cache: Cache = Cache()
    max_model_len: Count = 1 << 20  # tokens; the scheduler lowers it to what the KV pool holds
    bytes_per_weight: Positive | None = None  # instead of the model's: 1.0 is int8
    speculation: Speculation | None = None  # in groups whose model is larger than the draft


@dataclass(frozen=True, slots=True)
class ReplicaGroup:
    """`count` equal replicas, called NAME-0, NAME-1, ... Either `hardware` or `step_time` says how fast they are."""

    name: str
    count: ReplicaCount = 1
    hardware: str | None = None  # a name of data/hardware.toml
    model: str | None = None  # instead of the fleet's
    step_time: StepTimeModel | None = None
    speed: Positive = 1.0  # step times are divided by it
    weight: Positive = 1.0  # what weighted balancers see
    version: str = ""
    region: str = ""
    spot: bool = False
    cold_start: ColdStart | None = None  # of replicas that are added; as the hardware's, unless said

    @property
    def replica_ids(self) -> tuple[str, ...]:
        return tuple(f"{self.name}-{i}" for i in range(self.count))


@dataclass(frozen=True, slots=True)
class SharedCache:
    """A prefix cache behind all replicas. See `sim.prefix_tier`."""

    capacity_bytes: Positive
    bandwidth_bytes_per_s: Positive  # of each replica's own link to it
    latency_s: NotNegative = 0.0


@dataclass(frozen=True, slots=True)
class FleetSection:
    """All replicas, and how well they are seen."""

    replicas: tuple[ReplicaGroup, ...]
    model: str = "smollm2-135m"  # a name of data/hardware.toml
    probe_interval_s: NotNegative = 0.5  # as the live gateway probes; 0 = views are always fresh
    latency_s: Mapping[str, Mapping[str, NotNegative]] = field(default_factory=dict)  # one way, by pairs of regions
    prefix_tier: SharedCache | None = None

    @property
    def replica_ids(self) -> tuple[str, ...]:
        return tuple(replica_id for group in self.replicas for replica_id in group.replica_ids)


@dataclass(frozen=True, slots=True)
class PolicySection:
    """Every decision. What is left out is as in `policies.bundle`; "off" switches a part off."""

    balancer: Recipe[Balancer] = field(default_factory=lambda: Recipe("least-outstanding", LeastOutstanding))
    router: Recipe[Router] | tuple[Recipe[Router], ...] | None = None  # of several, each narrows what is left
    admission: tuple[Recipe[Admission], ...] = ()  # each must admit
    retry: Recipe[RetryPolicy] | None = None
    budget: Recipe[Budget] | None = None
    second_opinions: Recipe[Budget] | None = None
    ejector: Recipe[Ejector] | None = None
    progress: Recipe[ProgressWatch] | None = None
    breaker: Recipe[Breaker] | None = None  # one per replica
    hedge_after_s: NotNegative | None = None
    first_token_s: NotNegative | Literal["off"] | None = None
    first_token_share: NotNegative | Literal["off"] | None = None
    resume: bool | None = None
    same_replica: bool | None = None

    @property
    def routers(self) -> tuple[Recipe[Router], ...]:
        """The routers, in turn."""
        several = self.router if isinstance(self.router, tuple) else (self.router,)
        return tuple(router for router in several if router is not None)


WholeNumber = Annotated[int, Range(at_least=0, at_most=MOST_REPLICAS)]


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """Who says how many replicas of a group there are, and the bounds and patience around it (`control.steady`)."""

    policy: Recipe[Autoscaler]
    group: str | None = None  # which one; need not be said where there is only one
    period_s: Period = 15.0  # between two ticks, as Kubernetes has it
    min_replicas: WholeNumber = 1
    max_replicas: ReplicaCount = 100
    warm_pool: WholeNumber = 0
    down_after_s: NotNegative = 300.0
    up_after_s: NotNegative = 0.0
    slack: WholeNumber = 0
    most_outstanding: Positive | None = None

    def build(self, seed: int) -> Steady:
        """Return a fresh autoscaler for one run. Raises: SetupError for bounds that exclude each other."""
        return Steady(
            Checked(self.policy.build(seed=seed)),
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            warm_pool=self.warm_pool,
            down_after_s=self.down_after_s,
            up_after_s=self.up_after_s,
            slack=self.slack,
            most_outstanding=self.most_outstanding,
        )


@dataclass(frozen=True, slots=True)
class SharedQueue:
    """One queue at the gateway in front of all replicas, instead of one in each. See `sim.gateway_queue`."""

    per_replica: Count | None = None  # requests inside at a time; as many as a replica's engine runs, unless said
    most_waiting: NotNegative = math.inf  # beyond, requests are refused


@dataclass(frozen=True, slots=True)
class Clients:
    """What clients do when they lose patience or get an error: send the same again, as a new request."""

    timeout_s: Positive
    retry: Recipe[RetryPolicy] = field(default_factory=lambda: Recipe("backoff", Backoff))
    budget: Recipe[Budget] | None = None  # shared by all clients


@dataclass(frozen=True, slots=True)
class ResponseCache:
    """Requests that were asked before, word for word: the gateway answers them at once, whole, from memory.

    What is asked again is not simulated; this share is, by luck that belongs to the request.
    """

    hit_fraction: Fraction = 0.0


FaultStatus = Literal[500, 502, 503]


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """Something that happens to replicas; `replicas` are patterns such as "gpu-*"."""

    at_s: NotNegative
    kind: ReplicaFault
    replicas: tuple[str, ...] = ("*",)
    duration_s: Positive = math.inf
    factor: Positive = 1.0  # of `slow`: how many times as long a step takes

    def __post_init__(self) -> None:
        if (self.kind is ReplicaFault.SLOW) != (self.factor != 1):
            raise ValueError(
                f'factor ({self.factor:g}) belongs to kind = "slow", which needs one other than 1; '
                f'this kind is "{self.kind}"'
            )

    def events(self, replica_ids: tuple[str, ...]) -> tuple[ReplicaEvent, ...]:
        """Return one event per replica that is meant."""
        hit = (each for each in replica_ids if any(fnmatchcase(each, pattern) for pattern in self.replicas))
        return tuple(ReplicaEvent(self.at_s, each, self.kind, self.duration_s, self.factor) for each in hit)


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong. See `miniserve.faults`."""

    error_fraction: Fraction = 0.0
    error_status: FaultStatus = 503
    cut_fraction: Fraction = 0.0
    cut_after_tokens: tuple[Count, Count] = (1, 32)
    only_replicas: tuple[str, ...] = ()
    poison_fraction: Fraction = 0.0
    poison_status: FaultStatus = 500
    events: tuple[FaultEvent, ...] = ()

    def __post_init__(self) -> None:
        fewest, most = self.cut_after_tokens
        if not 1 <= fewest <= most:
            raise ValueError(f"cut_after_tokens ([{fewest}, {most}]) must be the fewest and the most, from 1 on")
        if self.error_fraction + self.cut_fraction > 1:
            raise ValueError(
                f"cut_fraction ({self.cut_fraction:g}) and error_fraction ({self.error_fraction:g}) "
                "are shares of the same attempts: together at most 1"
            )

    def plan(self, seed: int, replica_ids: tuple[str, ...]) -> KeyedFaults:
        """Return the plan of one run."""
        only = (each for each in replica_ids if any(fnmatchcase(each, pattern) for pattern in self.only_replicas))
        return KeyedFaults(
            seed,
            self.error_fraction,
            self.error_status,
            self.cut_fraction,
            self.cut_after_tokens,
            frozenset(only),
            self.poison_fraction,
            poison_status=self.poison_status,
            events=tuple(event for each in self.events for event in each.events(replica_ids)),
        )


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run, completely described. `fleet` None: the file only describes demand, for a live system."""

    workload: Workload
    run: RunSection = RunSection()
    fleet: FleetSection | None = None
    engine: EngineSection = EngineSection()
    policies: PolicySection = field(default_factory=PolicySection)
    autoscaler: Autoscaling | None = None
    gateway_queue: SharedQueue | None = None
    clients: Clients | None = None
    response_cache: ResponseCache | None = None
    faults: Faults = Faults()
    slo: SLO = field(default_factory=SLO)
    models: Mapping[str, str | ModelRule] = field(default_factory=dict)  # of a live gateway: other names (see `models`)
    deprecated: Mapping[str, str] = field(default_factory=dict)  # of a live gateway: name -> day
    degradation: Degradation | None = None  # of a live gateway
    rollout: RolloutSection | None = None
    description: str = ""

    @property
    def expected_requests(self) -> int:
        """About how many requests will come."""
        arrivals, duration_s = self.workload.arrivals, self.run.duration_s
        rows = arrivals.rows if isinstance(arrivals, RecordedTrace) else None
        counts = (self.run.requests, duration_s and duration_s * arrivals.rate_per_s, rows)
        return round(min(count for count in counts if count))

    @property
    def expected_s(self) -> float:
        """About how long they will keep coming."""
        return self.expected_requests / self.workload.arrivals.rate_per_s
