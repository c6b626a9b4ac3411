"""What a live gateway takes from a file: the decisions of a scenario, without its demand, fleet and faults.

A policies file has a `[policies]` table and perhaps `[autoscaler]`, `[engine.scheduler]`, `[fleet.latency_s]`,
`[models]`, `[deprecated]` and `[degradation]`, under the keys that they have in a scenario. Or it is a whole scenario:
then it is checked as one, and these tables are used.
The same reader and the same builder serve both worlds, so what a simulation was told the gateway is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from miniserve.config import SchedulerConfig
from miniserve.control.degrade import Degradation
from miniserve.errors import SetupError
from miniserve.policies.bundle import Policies
from miniserve.policies.routing.model_names import ModelRouting
from miniserve.scenario.build import bundle, distances
from miniserve.scenario.kinds import KINDS, loaders, make_scheduler, makers
from miniserve.scenario.model import Autoscaling, PolicySection, Scenario
from miniserve.scenario.models import ModelRule, model_routing
from miniserve.toml.reader import NotNegative, Reader
from miniserve.toml.source import Place, Setting, TomlSource, read_source_file

SHARED_TABLES: tuple[Place, ...] = (  # with a simulation, whose fleet knows its own distances
    ("policies",),
    ("autoscaler",),
    ("engine", "scheduler"),
    ("models",),
    ("deprecated",),
    ("degradation",),
)


@dataclass(frozen=True, slots=True)
class LiveEngine:
    """Of `[engine]`, what a replica process can be told."""

    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)


@dataclass(frozen=True, slots=True)
class LiveFleet:
    """Of `[fleet]`, what policies ask: how far regions are from each other. Their replicas are processes."""

    latency_s: Mapping[str, Mapping[str, NotNegative]] = field(default_factory=dict)  # one way, by pairs of regions


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policies file; its fields are the tables."""

    policies: PolicySection = field(default_factory=PolicySection)
    autoscaler: Autoscaling | None = None
    engine: LiveEngine = LiveEngine()
    fleet: LiveFleet = field(default_factory=LiveFleet)
    models: Mapping[str, str | ModelRule] = field(default_factory=dict)
    deprecated: Mapping[str, str] = field(default_factory=dict)
    degradation: Degradation | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class LivePolicies:
    """Everything that a live stack is told about its decisions. Belongs to one gateway: policies have a memory."""

    policies: Policies
    autoscaling: Autoscaling | None = None
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    latency_s: Mapping[tuple[str, str], float] = field(default_factory=dict)  # one way, by pairs of regions
    routing: ModelRouting = field(default_factory=ModelRouting)
    degradation: Degradation | None = None

    def scheduler_arguments(self) -> list[str]:
        """Return the options that tell a replica process its scheduler: `miniserve replica --scheduler KEY=VALUE`."""
        told, usual = asdict(self.scheduler), asdict(SchedulerConfig())
        settings = [f"{key}={_written(value)}" for key, value in told.items() if value != usual[key]]
        return [word for setting in settings for word in ("--scheduler", setting)]


def read_live(path: Path | None = None, settings: Sequence[Setting] = (), *, seed: int = 0) -> LivePolicies:
    """Return what a policies file says, with `settings` laid over it. Without a file only those count.

    Raises: SetupError naming file, line and key, the value, and what is allowed.
    """
    source = TomlSource("the options", {}) if path is None else read_source_file(path)
    is_scenario = "workload" in source.values
    if is_scenario:
        source.values.pop("variants", None)  # the scenario itself is meant
    for setting in settings:
        source = source.with_setting(setting)
    folder = Path() if path is None else path.parent
    reader = Reader(source, KINDS, loaders(folder), makers(folder))
    said = reader.construct(Scenario if is_scenario else PolicyFile, source.values)
    latency_s = distances({} if said.fleet is None else said.fleet.latency_s)
    if said.autoscaler is not None:
        _check_bounds(said.autoscaler, source, seed)
    policies = bundle(said.policies, seed, latency_s)
    routing = _routing(said.models, said.deprecated, source)
    return LivePolicies(policies, said.autoscaler, said.engine.scheduler, latency_s, routing, said.degradation)


def _routing(models: Mapping[str, str | ModelRule], deprecated: Mapping[str, str], source: TomlSource) -> ModelRouting:
    try:
        return model_routing(models, deprecated)
    except SetupError as error:
        raise source.error(("models",) if models else ("deprecated",), str(error)) from None


def _check_bounds(autoscaling: Autoscaling, source: TomlSource, seed: int) -> None:
    try:
        autoscaling.build(seed)
    except SetupError as error:
        raise source.error(("autoscaler",), str(error)) from None


def read_scheduler(texts: Sequence[str], option: str = "--scheduler") -> SchedulerConfig:
    """Return the scheduler that `KEY=VALUE` texts describe. Raises: SetupError naming the text that is wrong."""
    source = TomlSource(option, {})
    for text in texts:
        source = source.with_setting(Setting.parse(text, option))
    made = Reader(source).construct(make_scheduler, source.values)
    assert isinstance(made, SchedulerConfig)
    return made


def _written(value: object) -> str:
    """Return a value of the scheduler's as an option has it."""
    if value is None:
        return "off"
    return str(list(value)) if isinstance(value, tuple) else str(value)
