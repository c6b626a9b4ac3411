"""One setup, run in both worlds, and everything that was decided there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from random import Random
from types import SimpleNamespace
from typing import Any

import simpy
from parity import virtual_time
from parity.paced_fleet import DrillFleet, PacedCrew, PacedReplicas

from miniserve.api.answered import AnsweredCall
from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.control.autoscaler import Autoscaler
from miniserve.control.decisions import logged_autoscaler
from miniserve.control.scaling import Scaler
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import RequestError
from miniserve.faults import KeyedFaults
from miniserve.gateway.drive import FleetBackend
from miniserve.gateway.scaling import LiveScaling
from miniserve.hardware.prices import ColdStart
from miniserve.hardware.spec import ReplicaSpec
from miniserve.operations.events import EventLog
from miniserve.operations.rollout_eval import EvalScores
from miniserve.operations.rollout_live import LiveRollout, RolloutOrder
from miniserve.policies.bundle import Policies
from miniserve.policies.decision_log import Decision, OnDecision, logged
from miniserve.policies.dispatch import dispatch
from miniserve.policies.routing.router import VersionPin
from miniserve.scenario.rollouts import RolloutSection
from miniserve.seeds import uniform
from miniserve.sim.drive import run as drive
from miniserve.sim.drive import start_control
from miniserve.sim.fleet import SimFleet
from miniserve.sim.link import Distances
from miniserve.sim.rollout import SimRollout
from miniserve.types import FleetView, Priority, Request, SamplingParams

STEP_TIME = StepTimeModel(0.02, 0.001, 0.0004, 2e-6, 1e-7)
SPEC = ReplicaSpec(
    STEP_TIME, SchedulerConfig(max_running=8, max_batch_tokens=64, turn_tokens=32), CacheConfig(num_blocks=64)
)
COLD_START = ColdStart(provision_s=3.25, spread_fraction=0.0)
NO_FAULTS = KeyedFaults()


@dataclass(frozen=True)
class Setup:
    """What both worlds are given. `policies` makes a fresh bundle."""

    policies: Callable[[int], Policies]
    seed: int = 0
    requests: int = 1000
    rate_per_s: float = 14.0
    deadline_s: tuple[float, float] | None = None
    abandon_fraction: float = 0.0
    spec: ReplicaSpec = SPEC
    speeds: tuple[float, ...] = (1.0, 1.0, 0.7)
    faults: KeyedFaults = NO_FAULTS
    probe_interval_s: float = 0.5
    tick_interval_s: float = 0.5
    single_step: bool = False
    versions: tuple[str, ...] = ("",)  # of the replicas, in turn
    regions: tuple[str, ...] = ("",)  # likewise
    pinned: str = ""  # the version that every tenth request names
    rush_s: tuple[float, float] = (0.0, 0.0)  # from when to when three times as many requests come
    rollout: RolloutSection | None = None  # between two of the versions, whose replicas are there
    autoscaler: Callable[[], Autoscaler] | None = None  # of the replicas; those that are added are like the first

    def specs(self) -> dict[str, ReplicaSpec]:
        return {f"r{i}": self.one(i) for i in range(len(self.speeds))}

    def one(self, i: int) -> ReplicaSpec:
        """Return what replica `i` is."""
        speed = self.speeds[i % len(self.speeds)]
        version, region = self.versions[i % len(self.versions)], self.regions[i % len(self.regions)]
        return replace(self.spec, speed=speed, weight=speed, version=version, region=region)

    def demand(self) -> Iterator[tuple[Request, float | None]]:
        """Yield requests in order of arrival, and after how long the client leaves if it does."""
        rng, label, now_s = Random(f"demand {self.seed}"), Random(f"labels {self.seed}"), 0.0
        for i in range(self.requests):
            rush = self.rush_s[0] <= now_s < self.rush_s[1]
            now_s += rng.expovariate(self.rate_per_s * (3 if rush else 1))
            base = rng.randrange(self.requests // 4 + 1) << 20  # four requests share the beginning of their prompts
            request = Request(
                f"q{i}",
                f"m@{self.pinned}" if self.pinned and i % 10 == 9 else "m",
                range(base, base + rng.randint(8, 160)),
                SamplingParams(max_tokens=rng.randint(2, 48), ignore_eos=True),
                arrived_s=now_s,
                deadline_s=None if self.deadline_s is None else now_s + rng.uniform(*self.deadline_s),
                priority=Priority(rng.randrange(3)),
                tenant=label.choice(("a", "b", "c")),
                session_key=label.choice((None, f"s{label.randrange(40)}")),
                region=label.choice((None, "eu", "us")),
                feature=label.choice(("easy", "hard", "")),
            )
            leaves_s = rng.uniform(0.05, 2.0) if rng.random() < self.abandon_fraction else None
            yield request, leaves_s


@dataclass
class Record:
    """What happened in one world."""

    decisions: list[Decision] = field(default_factory=list)
    preemptions: int = 0
    prefix_hit_tokens: int = 0
    blocks_used: int = 0

    def of(self, verb: str) -> list[tuple[Any, ...]]:
        """Return what was decided with this verb."""
        return [decision.what for decision in self.decisions if decision.what[0] == verb]

    def count(self, verb: str) -> int:
        return len(self.of(verb))


def watching(write: OnDecision) -> Callable[[float, FleetView], None]:
    """A control loop: it would scale the fleet, and says so."""

    def tick(now_s: float, view: FleetView) -> None:
        load = sum(replica.outstanding + replica.queue_depth for replica in view.ready())
        wanted = 1 + load // 8
        seen = tuple((r.state.value, r.outstanding, r.queue_depth, r.running, r.steps) for r in view.replicas)
        kv = tuple(round(replica.kv_used_fraction, 9) for replica in view.replicas)
        write(Decision(now_s, "control", ("scale to", wanted, seen, kv)))

    return tick


@dataclass
class SimCrew:
    """Orders replicas of the simulated fleet."""

    setup: Setup
    fleet: SimFleet

    def start(self, replica_id: str) -> None:
        self.fleet.add(self.setup.one(int(replica_id[1:])), replica_id)

    def drain(self, replica_id: str) -> None:
        self.fleet.drain(replica_id)


# --- simulated -----------------------------------------------------------------------------------------------------


def simulated(setup: Setup) -> Record:
    env, record = simpy.Environment(), Record()
    clock = lambda: float(env.now)  # noqa: E731
    pin = LoggedPin(clock, record.decisions.append)
    policies = split(setup, pin)
    fleet = SimFleet(
        env,
        probe_interval_s=setup.probe_interval_s,
        faults=setup.faults,
        single_step=setup.single_step,
        distances=Distances({("eu", "us"): 0.0}),
    )
    start_control(fleet, policies, tick_interval_s=setup.tick_interval_s)
    tick = watching(record.decisions.append)
    fleet.every(setup.tick_interval_s, lambda now_s: tick(now_s, fleet.view()))
    rollout = None if setup.rollout is None else SimRollout(fleet, setup.rollout, [], pin, setup.seed, None)
    for replica_id, spec in setup.specs().items():
        fleet.add(spec, replica_id, ready=True)
    came = Counter[str]()
    if setup.autoscaler is not None:
        autoscaler = logged_autoscaler(setup.autoscaler(), record.decisions.append)
        view = lambda: replace(fleet.view(), requests=came.total())  # noqa: E731
        fleet.every(setup.tick_interval_s, Scaler(autoscaler, SimCrew(setup, fleet), "r", view, 0.0).tick)

    def serve(request: Request) -> Generator[simpy.Event, Any, None]:
        story = dispatch(request, fleet.view, clock, policies)
        story = story if rollout is None else rollout.noticed(story, request)
        with suppress(simpy.Interrupt):
            yield from drive(env, logged(story, request.request_id, clock, record.decisions.append), fleet)

    def client(request: Request, leaves_s: float | None) -> Generator[simpy.Event, Any, None]:
        serving = env.process(serve(request))
        if leaves_s is not None:
            yield serving | env.timeout(leaves_s)
            if serving.is_alive:
                serving.interrupt()
        yield serving

    def arrivals() -> Generator[simpy.Event, Any, None]:
        clients = []
        for request, leaves_s in setup.demand():
            yield env.timeout(request.arrived_s - env.now)
            came["all"] += 1
            clients.append(env.process(client(request, leaves_s)))
        yield env.all_of(clients)

    env.run(env.process(arrivals()))
    for member in fleet.members():
        record.preemptions += member.replica.counters.preemptions
        record.prefix_hit_tokens += member.replica.counters.prefix_hit_tokens
        record.blocks_used += member.replica.blocks.num_used
    return record


# --- live ----------------------------------------------------------------------------------------------------------


def live(setup: Setup) -> Record:
    return virtual_time.run(_live(setup))


async def _live(setup: Setup) -> Record:
    record, loop = Record(), asyncio.get_running_loop()
    async with DrillFleet(
        loop.time,
        probe_interval_s=setup.probe_interval_s,
        tick_interval_s=setup.tick_interval_s,
        faults=setup.faults,
    ) as fleet:
        pin = LoggedPin(loop.time, record.decisions.append)
        backend = FleetBackend(fleet, split(setup, pin), on_decision=record.decisions.append)
        fleet.add_tick(watching(record.decisions.append))
        async with PacedReplicas(fleet, setup.specs(), setup.faults) as paced:
            if setup.autoscaler is not None:
                autoscaler = logged_autoscaler(setup.autoscaler(), record.decisions.append)
                crew = PacedCrew(fleet, paced, lambda replica_id: setup.one(int(replica_id[1:])))
                period_s, came = setup.tick_interval_s, backend.requests.total
                fleet.add_tick(LiveScaling(fleet, autoscaler, crew, "r", period_s=period_s, requests=came))
            rollout = None if setup.rollout is None else ParityRollout(setup, fleet, backend, paced, pin)
            await _arrivals(setup, backend, loop, rollout)
            for replica in (paced.replicas[member.replica_id] for member in fleet.members()):
                record.preemptions += replica.scheduler.counters.preemptions
                record.prefix_hit_tokens += replica.scheduler.counters.prefix_hit_tokens
                record.blocks_used += replica.blocks.num_used
    return record


async def _arrivals(
    setup: Setup, backend: FleetBackend, loop: asyncio.AbstractEventLoop, rollout: ParityRollout | None
) -> None:
    async with asyncio.TaskGroup() as clients:
        for request, leaves_s in setup.demand():
            await asyncio.sleep(request.arrived_s - loop.time())
            clients.create_task(_client(backend, request, leaves_s, rollout))


async def _client(
    backend: FleetBackend, request: Request, leaves_s: float | None, rollout: ParityRollout | None
) -> None:
    first_s, model, loop = None, "", asyncio.get_running_loop()
    with suppress(RequestError, TimeoutError):
        async with asyncio.timeout(leaves_s), aclosing(backend.generate(request)) as events:
            async for event in events:
                model = model if event.served is None else event.served.model
                first_s = loop.time() if first_s is None and event.token_ids else first_s
        if rollout is not None:
            rollout.ended(request, model, first_s)


# --- a rollout -----------------------------------------------------------------------------------------------------


class LoggedPin(VersionPin):
    """Writes down how users are split."""

    def __init__(self, clock: Callable[[], float], write: OnDecision) -> None:
        self._write: OnDecision | None = None
        super().__init__()
        self._clock, self._write = clock, write

    def set_shares(self, shares: Mapping[str, float], *, salt: str = "") -> None:
        super().set_shares(shares, salt=salt)
        if self._write is not None:
            self._write(Decision(self._clock(), "", ("split", tuple(sorted(shares.items())))))


def split(setup: Setup, pin: VersionPin) -> Policies:
    """Return the setup's policies, behind the shares of its rollout if it has one."""
    policies = setup.policies(setup.seed)
    return policies if setup.rollout is None else replace(policies, router=pin)


class ParityRollout:
    """The live stack's rollout on a live fleet; replicas leave as its crew lets them."""

    def __init__(
        self, setup: Setup, fleet: DrillFleet, backend: FleetBackend, paced: PacedReplicas, pin: VersionPin
    ) -> None:
        assert setup.rollout is not None
        self._seed, self._plan, self._fleet = setup.seed, setup.rollout, fleet
        self._crew = PacedCrew(fleet, paced, lambda replica_id: setup.one(int(replica_id[1:])))
        model = SimpleNamespace(model=SimpleNamespace(name=self._plan.new.partition("@")[0]))
        work: Any = SimpleNamespace(
            fleet=fleet,
            pin=pin,
            versions=self,
            events=EventLog(lambda: 0.0),
            catalogue=SimpleNamespace(entry=lambda name: model, remove_version=lambda name, version: None),
        )
        replicas = sum(spec.version == self._plan.new for spec in setup.specs().values())
        self.live = LiveRollout(work, RolloutOrder(self._plan.plan(replicas), self._plan.old, EvalScores(None, None)))
        backend.on_failed.append(self.live.failed)
        fleet.add_tick(self.live.tick)
        self.live.begin()

    def trouble(self, name: str) -> None:
        return None

    def retire_version(self, name: str) -> None:
        for view in self._fleet.view().replicas:
            if view.version == name:
                self._crew.drain(view.replica_id)

    def ended(self, request: Request, model: str, first_s: float | None) -> None:
        """Tell it of an answer, and what its reader thought of it."""
        now_s = self._fleet.clock()
        call = AnsweredCall(
            request.request_id, request, request.arrived_s, now_s, 200, model, None, "length", first_token_s=first_s
        )
        self.live.answered(call)
        bad = uniform(self._seed, "bad answer", request.request_id) < self._plan.bad_fraction.get(model, 0.0)
        if uniform(self._seed, "verdict", request.request_id) < self._plan.judged_fraction:
            self.live.judged(call, not bad)
