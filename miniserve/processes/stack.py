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
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from miniserve.api.wiring import api_app, served_model
from miniserve.clock import monotonic
from miniserve.config import ApiConfig
from miniserve.errors import SetupError
from miniserve.gateway.drive import FleetBackend
from miniserve.gateway.fleet import Fleet
from miniserve.gateway.remote import RemoteReplica
from miniserve.gateway.status import GatewayStatus, Processes, ProcessFacts, add_status_route
from miniserve.observe.fleet_metrics import FleetCollector
from miniserve.observe.recent import Recent
from miniserve.policies.bundle import Policies
from miniserve.policies.routing.balancer import LeastOutstanding
from miniserve.processes.http_server import HttpServer, url_of
from miniserve.processes.supervisor import ABSENT_S, Supervisor

DRAIN_TIMEOUT_S = 30.0  # how long we wait for answers when told to stop


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """The model's name for clients, the files the gateway needs to read it, and the policies.

    A bundle of policies has a memory and belongs to one gateway, so another gateway needs other options.
    """

    name: str
    folder: Path
    drain_timeout_s: float = DRAIN_TIMEOUT_S
    absent_s: float = ABSENT_S  # a replica process that answers no probe for so long is replaced
    api: ApiConfig = field(default_factory=ApiConfig)
    policies: Policies = field(default_factory=lambda: Policies(LeastOutstanding()))
    vllm_metrics: bool = False  # repeat metrics under vLLM's names


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
async def running_gateway(
    options: GatewayOptions, fleet: Fleet, sock: socket.socket, *, processes: Processes = dict
) -> AsyncGenerator[Gateway, None]:
    """Serve `fleet` on `sock` inside the block; `processes` tells what a supervisor knows of the replicas.

    Raises: SetupError when the replicas do not serve this model.
    """
    backend = FleetBackend(fleet, options.policies)
    recent = Recent()
    model = served_model(options.name, options.folder, _agreed_length(fleet, options.name))
    status = GatewayStatus(fleet, backend, recent, url=url_of(sock), processes=processes)
    collector = FleetCollector(status.readings, vllm_aliases=options.vllm_metrics)
    app = api_app(
        backend,
        model,
        config=options.api,
        recent=recent,
        collectors=[collector],
        vllm_metrics=options.vllm_metrics,
    )
    add_status_route(app, status)
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
        async with supervisor, running_gateway(options, fleet, sock, processes=_facts(supervisor)) as gateway:
            yield Stack(gateway, supervisor)


def replica_command(options: GatewayOptions, more: Sequence[str] = ()) -> list[str]:
    """Return the command line of a replica that dies with us, on a port it chooses itself."""
    model = ["--model", str(options.folder), "--served-name", options.name]
    return [sys.executable, "-m", "miniserve", "replica", "--port", "0", "--die-with-parent", *model, *more]


def _facts(supervisor: Supervisor) -> Processes:
    """Return what tells the gateway's status about the replicas' processes."""
    return lambda: {child.replica_id: ProcessFacts(child.pid, child.restarts) for child in supervisor.children}


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


def _agreed_length(fleet: Fleet, name: str) -> int:
    """Return the context length that every replica has room for."""
    reports = [member.report for member in fleet.members() if member.report is not None]
    others = sorted({report.model for report in reports if report.model != name})
    if others:
        raise SetupError(f"the gateway was told to serve {name}, but a replica serves {', '.join(others)}")
    if not reports:
        raise SetupError("no replica answers, so the gateway has nothing to serve")
    return min(report.max_model_len for report in reports)
