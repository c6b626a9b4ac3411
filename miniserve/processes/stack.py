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
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from miniserve.api.backend import Backend
from miniserve.api.catalogue import ModelNames
from miniserve.api.wiring import api_app, served_catalogue
from miniserve.clock import monotonic
from miniserve.config import ApiConfig
from miniserve.control.degrade import Degradation
from miniserve.errors import SetupError
from miniserve.gateway.degraded import DegradingBackend
from miniserve.gateway.drive import FleetBackend
from miniserve.gateway.fleet import Fleet
from miniserve.gateway.model_choice import CascadeBackend
from miniserve.gateway.remote import RemoteReplica
from miniserve.models.model_config import read_config
from miniserve.observe.recent import Recent
from miniserve.policies.bundle import Policies, by_model
from miniserve.policies.routing.balancer import LeastOutstanding
from miniserve.policies.routing.model_names import ModelRouting
from miniserve.processes.http_server import HttpServer
from miniserve.processes.supervisor import ABSENT_S, Supervisor

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


@dataclass(frozen=True, slots=True)
class Stack:
    """A running gateway with its own replicas."""

    gateway: Gateway
    supervisor: Supervisor

    @property
    def url(self) -> str:
        return self.gateway.url


@asynccontextmanager
async def running_gateway(options: GatewayOptions, fleet: Fleet, sock: socket.socket) -> AsyncGenerator[Gateway, None]:
    """Serve `fleet` on `sock` inside the block. Raises: SetupError when its replicas serve anything else."""
    backend = FleetBackend(fleet, by_model(options.policies))
    recent = Recent()
    routing, lengths = options.routing, _agreed_lengths(fleet, options.folders)
    pairs = {name: (cascade.small, cascade.large) for name, cascade in routing.cascades.items()}
    names = ModelNames(routing.aliases, routing.by_question, pairs, routing.deprecated)
    catalogue = served_catalogue(options.folders, lengths, names)
    front: Backend = CascadeBackend(backend, routing.cascades, catalogue)
    if options.degradation is not None:
        front = degrading = DegradingBackend(front, options.degradation, catalogue)
        fleet.add_tick(degrading.tick)
    app = api_app(front, catalogue, config=options.api, recent=recent)
    await asyncio.to_thread(app.openapi)  # kept: the first to ask for the description would hold up the others
    async with HttpServer(app, sock) as server:
        yield Gateway(server.url, fleet, backend, recent)
        await backend.drain(options.drain_timeout_s)


@asynccontextmanager
async def running_stack(
    options: GatewayOptions, sock: socket.socket, *, replicas: int, replica_arguments: Sequence[str] = ()
) -> AsyncGenerator[Stack, None]:
    """Start `replicas` processes and a gateway on `sock`; all of them are gone after the block.

    `replica_arguments` are further options for `miniserve replica`. Raises: SetupError if something cannot start.
    """
    async with Fleet(monotonic) as fleet:
        supervisor = Supervisor(
            replica_command(options, replica_arguments),
            [f"r{i}" for i in range(replicas)],
            _Registrar(fleet),
            monotonic,
            drain_timeout_s=options.drain_timeout_s,
            absent_s=options.absent_s,
        )
        fleet.add_tick(supervisor.replace_absent)
        async with supervisor, running_gateway(options, fleet, sock) as gateway:
            yield Stack(gateway, supervisor)


def replica_command(options: GatewayOptions, more: Sequence[str] = ()) -> list[str]:
    """Return the command line of a replica that dies with us, on a port it chooses itself."""
    model = ["--model", str(options.folder), "--served-name", options.name]
    return [sys.executable, "-m", "miniserve", "replica", "--port", "0", "--die-with-parent", *model, *more]


class _Registrar:
    """Tells the fleet what the supervisor observes."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def up(self, replica_id: str, url: str) -> None:
        await self._fleet.put(replica_id, RemoteReplica(url))

    def down(self, replica_id: str) -> None:
        self._fleet.mark_down(replica_id)


async def connect(fleet: Fleet, urls: Sequence[str], timeout_s: float) -> None:
    """Add replicas that run elsewhere to the fleet. Raises: SetupError if none of them answers in time."""
    for i, url in enumerate(urls):
        await fleet.put(f"r{i}", RemoteReplica(url))
    try:
        async with asyncio.timeout(timeout_s):
            await fleet.answered.wait()
    except TimeoutError:
        raise SetupError(f"no replica answered within {timeout_s:g} s at {', '.join(urls)}") from None


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
