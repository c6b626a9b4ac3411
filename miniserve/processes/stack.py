"""The whole stack as one block: replica processes, the fleet that tracks them, and the gateway in front.

    async with running_stack(...) as stack:     everything is up; stack.url answers
        ...
                                                everything is down, and nothing is left behind

Leaving the block normally drains: new requests are refused, current answers are finished, then the replicas stop.
Leaving it by an exception stops everything at once.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from miniserve.api.backend import Backend
from miniserve.api.catalogue import Catalogue, ModelNames
from miniserve.api.wiring import api_app, served_catalogue
from miniserve.clock import monotonic
from miniserve.config import ApiConfig
from miniserve.control.autoscaler import Autoscaler
from miniserve.control.decisions import logged_autoscaler
from miniserve.control.degrade import Degradation
from miniserve.control.flags import FlagBook
from miniserve.errors import SetupError
from miniserve.gateway.degraded import DegradingBackend
from miniserve.gateway.distance import Distance, nowhere
from miniserve.gateway.drive import FleetBackend
from miniserve.gateway.fleet import Fleet
from miniserve.gateway.model_choice import CascadeBackend
from miniserve.gateway.scaling import LiveScaling
from miniserve.gateway.status import GatewayStatus, Processes, add_status_route
from miniserve.gateway.weights import SpeedWeights
from miniserve.machine import available_bytes
from miniserve.models.model_config import read_config
from miniserve.observe.fleet_metrics import FleetCollector
from miniserve.observe.recent import Recent
from miniserve.operations.alerts import AlertsPart
from miniserve.operations.desk import Desk, desk_of
from miniserve.operations.events import EventLog
from miniserve.operations.flags import live_flags
from miniserve.operations.replicas import say_size
from miniserve.operations.settings import OperatorSettings
from miniserve.operations.state_file import StateFile
from miniserve.operations.workplace import Hands, MakePart, Versions, Workplace
from miniserve.policies.bundle import Policies, by_model
from miniserve.policies.decision_log import OnDecision
from miniserve.policies.routing.balancer import LeastOutstanding
from miniserve.policies.routing.model_names import ModelRouting
from miniserve.policies.routing.router import VersionPin
from miniserve.processes.backends import VLLM_START_S, BackendOptions, connect_backends
from miniserve.processes.facts import process_facts
from miniserve.processes.hands import ProcessHands
from miniserve.processes.http_server import HttpServer, url_of
from miniserve.processes.pools import Pool, Pools, replica_command_line
from miniserve.processes.supervisor import ABSENT_S, START_TIMEOUT_S, Supervisor
from miniserve.processes.versions import VERSIONS_FILE, KeptPools, PoolVersions

DRAIN_TIMEOUT_S = 30.0  # how long we wait for answers when told to stop


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """The model's name for clients, the files the gateway needs to read it, and the policies.

    `more_models` are served beside it: the name that their replicas report (`small`, `large@2`) and their files. A
    bundle of policies has a memory and belongs to one gateway, so another gateway needs other options.
    """

    name: str
    folder: Path
    drain_timeout_s: float = DRAIN_TIMEOUT_S
    absent_s: float = ABSENT_S  # a replica process that answers no probe for so long is replaced
    api: ApiConfig = field(default_factory=ApiConfig)
    policies: Policies = field(default_factory=lambda: Policies(LeastOutstanding()))
    more_models: Mapping[str, Path] = field(default_factory=dict)
    routing: ModelRouting = field(default_factory=ModelRouting)
    degradation: Degradation | None = None
    on_decision: OnDecision | None = None  # told of every decision about a request, and of the autoscalers'
    vllm_metrics: bool = False  # repeat metrics under vLLM's names
    parts: Sequence[MakePart] = ()  # of operations, beside the serving
    settings: OperatorSettings = OperatorSettings()  # noqa: RUF009  # frozen
    state_dir: Path | None = None  # where they keep what must survive a restart; None: nowhere

    @property
    def folders(self) -> dict[str, Path]:
        """The files of every model, by the name that its replicas report."""
        return {self.name: self.folder, **self.more_models}


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway and its visible parts."""

    url: str
    fleet: Fleet
    backend: FleetBackend
    recent: Recent
    desk: Desk
    events: EventLog


@dataclass(frozen=True, slots=True)
class Scaling:
    """Who says how many replicas a pool has. `pool`: its served name. An autoscaler has a memory: one stack each."""

    autoscaler: Autoscaler
    pool: str
    period_s: float = 15.0  # between two ticks


@dataclass(frozen=True, slots=True)
class Stack:
    """A running gateway with its own replicas."""

    gateway: Gateway
    supervisor: Supervisor
    pools: Pools
    scaling: Mapping[str, LiveScaling]  # by pool

    @property
    def url(self) -> str:
        return self.gateway.url


@asynccontextmanager
async def running_gateway(
    options: GatewayOptions,
    fleet: Fleet,
    sock: socket.socket,
    *,
    processes: Processes = dict,
    hands: Hands | None = None,
    versions: Versions | None = None,
) -> AsyncGenerator[Gateway, None]:
    """Serve `fleet` on `sock` inside the block; `processes` tells what a supervisor knows of the replicas.

    Raises: SetupError when the replicas serve anything else than these models.
    """
    desk, events = desk_of(options.state_dir), EventLog(time.time)
    pin, flags = VersionPin(), FlagBook()
    backend = FleetBackend(fleet, by_model(options.policies, pin), on_decision=options.on_decision)
    recent = Recent()
    catalogue = _catalogue(options, fleet)
    status = GatewayStatus(fleet, backend, recent, url=url_of(sock), processes=processes)
    collector = FleetCollector(status.readings, vllm_aliases=options.vllm_metrics)
    app = api_app(
        _front(options, backend, fleet, catalogue, desk, events),
        catalogue,
        config=options.api,
        recent=recent,
        collectors=[collector, desk],
        vllm_metrics=options.vllm_metrics,
        on_answered=desk.answered,
        flags=live_flags(flags, fleet),
    )
    work = partial(Workplace, fleet, backend, catalogue, recent, events, desk.part, status.as_json, desk.door.token)
    workplace = work(hands, versions, pin, options.settings, desk.judged, desk.keep, time.time, processes, flags)
    desk.open([make(workplace) for make in options.parts], app)
    status.add_sections(desk.status)
    fleet.add_tick(desk.tick)
    add_status_route(app, status)
    await asyncio.to_thread(app.openapi)  # kept: the first to ask for the description would hold up the others
    async with HttpServer(app, sock) as server:
        yield Gateway(server.url, fleet, backend, recent, desk, events)
        await backend.drain(options.drain_timeout_s)
        fleet.drop_ticks(desk.tick)  # what happens to the replicas from now on is no news
        await desk.close()


def _catalogue(options: GatewayOptions, fleet: Fleet) -> Catalogue:
    routing, lengths = options.routing, _agreed_lengths(fleet, options.folders)
    pairs = {name: (cascade.small, cascade.large) for name, cascade in routing.cascades.items()}
    names = ModelNames(routing.aliases, routing.by_question, pairs, routing.deprecated)
    return served_catalogue(options.folders, lengths, names)


def _front(
    options: GatewayOptions, backend: Backend, fleet: Fleet, catalogue: Catalogue, desk: Desk, events: EventLog
) -> Backend:
    """Put in front of the fleet what chooses the model that answers."""
    if options.routing.cascades:
        backend = CascadeBackend(backend, options.routing.cascades, catalogue)
    if options.degradation is None:
        return backend

    def is_burning() -> bool:
        return isinstance(alerts := desk.part("alerts"), AlertsPart) and alerts.is_burning

    degrading = DegradingBackend(
        backend,
        options.degradation,
        catalogue,
        is_burning=is_burning,
        on_change=lambda text: events.say("overload", text, "warning"),
    )
    fleet.add_tick(degrading.tick)
    return degrading


@asynccontextmanager
async def running_stack(
    options: GatewayOptions, sock: socket.socket, *, replicas: int, replica_arguments: Sequence[str] = ()
) -> AsyncGenerator[Stack, None]:
    """Start `replicas` processes and a gateway on `sock`; all of them are gone after the block.

    `replica_arguments` are further options for `miniserve replica`. Raises: SetupError if something cannot start.
    """
    pool = Pool(options.name, options.folder, replicas=replicas, prefix="r", arguments=tuple(replica_arguments))
    async with running_pools(options, [pool], sock) as stack:
        yield stack


@asynccontextmanager
async def running_pools(
    options: GatewayOptions,
    pools: Sequence[Pool],
    sock: socket.socket,
    *,
    scaling: Sequence[Scaling] = (),
    distance: Distance = nowhere,
    measured_weights: bool = False,
    backends: BackendOptions | None = None,
) -> AsyncGenerator[Stack, None]:
    """Start several pools and a gateway on `sock`; autoscalers may change their sizes. All are gone after the block.

    `backends` run already and serve the first model too.

    A pool that cannot start is left out. Raises: SetupError if that leaves none, or if something else cannot start.
    """
    async with Fleet(monotonic, distance=distance) as fleet:
        drain_s = options.drain_timeout_s
        kept = KeptPools(pools, None if options.state_dir is None else StateFile(options.state_dir / VERSIONS_FILE))
        crew = Pools(fleet, kept.current, drain_timeout_s=drain_s, available_bytes=available_bytes)
        start_s = VLLM_START_S if any(pool.vllm for pool in pools) else START_TIMEOUT_S
        supervisor = Supervisor(
            (), (), crew, monotonic, start_timeout_s=start_s, drain_timeout_s=drain_s, absent_s=options.absent_s
        )
        fleet.add_tick(supervisor.replace_absent)
        if measured_weights:
            fleet.add_tick(SpeedWeights(fleet))
        if backends is not None:
            await connect_backends(fleet, options.name, options.folder, backends)
        async with supervisor:
            await crew.start_first(supervisor)
            facts = partial(process_facts, supervisor, fleet)
            serving = _serving(options, crew, is_less=bool(crew.lost or kept.retired))
            versions = PoolVersions(crew, kept)
            async with (
                crew,
                ProcessHands(supervisor) as hands,
                running_gateway(serving, fleet, sock, processes=facts, hands=hands, versions=versions) as gateway,
            ):
                named = [replace(one, pool=kept.successor(one.pool)) for one in scaling]
                wanted = [one for one in named if one.pool not in crew.lost]
                loops = {one.pool: _scaling_loop(one, crew, kept, gateway, options.on_decision) for one in wanted}
                for loop in loops.values():
                    fleet.add_tick(loop)
                yield Stack(gateway, supervisor, crew, loops)
                fleet.drop_ticks(*loops.values())  # a fleet that goes down is not to be refilled


def _serving(options: GatewayOptions, crew: Pools, *, is_less: bool) -> GatewayOptions:
    """Return the options of a gateway that serves the models of all pools, the first of them by default.

    If that is less than was asked for, the names go too that stand for what is missing.
    """
    if not crew.pools:
        return options  # all is served by backends
    first, *others = crew.pools
    more = {pool.served_name: pool.folder for pool in others}
    routing = options.routing.among([first.served_name, *more]) if is_less else options.routing
    return replace(options, name=first.served_name, folder=first.folder, more_models=more, routing=routing)


def _scaling_loop(
    scaling: Scaling, crew: Pools, kept: KeptPools, gateway: Gateway, on_decision: OnDecision | None
) -> LiveScaling:
    """Return a loop for a pool, or for the version that takes its place. Raises: SetupError if there is none."""
    pool = crew.named(scaling.pool)

    def current() -> Pool:
        return kept.known[kept.successor(pool.served_name)]

    came = gateway.backend.requests

    def requests() -> int:
        return came.total() if len(crew.pools) == 1 else came[pool.name] + came[pool.served_name]

    autoscaler = logged_autoscaler(scaling.autoscaler, on_decision)
    return LiveScaling(
        gateway.fleet,
        autoscaler,
        crew,
        lambda: current().id_prefix,
        period_s=scaling.period_s,
        requests=requests,
        on_wanted=lambda *sizes: say_size(gateway.events, current().served_name, *sizes),
    )


def replica_command(options: GatewayOptions, more: Sequence[str] = ()) -> list[str]:
    """Return the command line of a replica that dies with us, on a port it chooses itself."""
    return replica_command_line(options.name, options.folder, more)


def _agreed_lengths(fleet: Fleet, folders: Mapping[str, Path]) -> dict[str, int]:
    """Return the context length of each model that every replica of it has room for.

    A model none of whose replicas is there yet has that of its files.
    """
    reports = [member.report for member in fleet.members() if member.report is not None]
    others = sorted({report.model for report in reports} - set(folders))
    if others:
        told, found = ", ".join(folders), ", ".join(others)
        raise SetupError(f"the gateway was told to serve {told}, but a replica serves {found}")
    if not reports:
        raise SetupError("no replica answers, so the gateway has nothing to serve")
    lengths = {name: [report.max_model_len for report in reports if report.model == name] for name in folders}
    return {name: min(lengths[name], default=0) or read_config(folder).max_position for name, folder in folders.items()}
