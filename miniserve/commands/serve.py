"""`miniserve serve`: a gateway in front of replicas, and other OpenAI-compatible servers, that are already running."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from miniserve.clock import monotonic
from miniserve.commands.backend_options import add_backend_options, backend_options
from miniserve.commands.decisions import decisions_to
from miniserve.commands.operations_options import add_operations_options, operations_settings
from miniserve.commands.options import (
    add_cors_option,
    add_drain_option,
    add_log_option,
    add_model_options,
    add_vllm_option,
    log_to_stderr,
    port,
    say,
    served_name,
)
from miniserve.commands.policy_options import add_policy_options, live_policies
from miniserve.commands.state_options import add_state_option, state_folder
from miniserve.errors import SetupError

if TYPE_CHECKING:
    from miniserve.policies.decision_log import OnDecision
    from miniserve.scenario.live import LivePolicies

CONNECT_TIMEOUT_S = 10.0  # a running replica answers at once; wait for loading ones before you start the gateway


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_model_options(parser)
    add_policy_options(parser)
    add_cors_option(parser)
    add_vllm_option(parser)
    add_log_option(parser)
    parser.add_argument(
        "--replica",
        action="append",
        default=[],
        metavar="URL",
        dest="replicas",
        help="address of a replica; repeat for each one",
    )
    add_backend_options(parser)
    parser.add_argument("--port", type=port, default=8000, help="on 127.0.0.1; 0 = any free one (default %(default)s)")
    add_drain_option(parser)
    add_state_option(parser)
    add_operations_options(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from miniserve.processes.http_server import bind

    log_to_stderr(args.log_level)
    live = live_policies(args)
    if not args.replicas and not args.backends:
        raise SetupError("serve needs at least one --replica URL or --backend URL")
    for line in _not_ours(live):
        say(line)
    with decisions_to(args.decisions) as on_decision, bind(args.port) as sock:
        args.state = state_folder(args.state, sock, passing=args.port == 0)
        return asyncio.run(serve(args, sock, live, on_decision))


async def serve(
    args: argparse.Namespace, sock: socket.socket, live: LivePolicies, on_decision: OnDecision | None = None
) -> int:
    """Connect the fleet, open the gateway, drain at the first signal."""
    from miniserve.config import ApiConfig
    from miniserve.gateway.fleet import Fleet
    from miniserve.models.store import resolve_model
    from miniserve.operations.standard import STANDARD_PARTS
    from miniserve.processes.backends import connect, connect_backends
    from miniserve.processes.signals import StopSignals
    from miniserve.processes.stack import GatewayOptions, running_gateway

    backends = backend_options(args)
    folder = resolve_model(args.model, args.cache, offline=args.offline, report=say)
    api = ApiConfig(cors_origins=tuple(args.cors))
    options = GatewayOptions(
        served_name(args),
        folder,
        args.drain_timeout,
        api=api,
        policies=live.policies,
        on_decision=on_decision,
        routing=live.routing,
        degradation=live.degradation,
        vllm_metrics=args.vllm_metrics,
        parts=STANDARD_PARTS,
        settings=operations_settings(args),
        state_dir=args.state,
    )
    stop = StopSignals(at_once=lambda: os._exit(130))
    with stop.caught():
        async with Fleet(monotonic) as fleet:
            if args.replicas:
                await connect(fleet, args.replicas, CONNECT_TIMEOUT_S)
            if backends is not None:
                await connect_backends(fleet, options.name, folder, backends)
            async with running_gateway(options, fleet, sock) as gateway:
                say(f"ready: {gateway.url} serves {options.name} from {_count(args)}")
                await stop.first.wait()
                say(f"draining {gateway.recent.in_flight} requests; Ctrl-C again stops at once")
    return 0


def _not_ours(live: LivePolicies) -> Iterator[str]:
    """Yield what the policies say about replicas, which run elsewhere: their own commands must say it."""
    if settings := " ".join(live.scheduler_arguments()):
        yield f"[engine.scheduler] is not for a gateway: start the replicas with {settings}"
    if live.autoscaling is not None:
        yield "[autoscaler] is left alone: `serve` starts no replicas; `demo` does"


def _count(args: argparse.Namespace) -> str:
    counts = {"replica": len(args.replicas), "backend": len(args.backends)}
    return " and ".join(f"{count} {what}{'s' * (count > 1)}" for what, count in counts.items() if count)
