"""`miniserve` or `miniserve demo`: the whole stack on this machine, in one command.

Replica processes, a gateway in front with OpenAI's API, and a live table. `--once` asks one question through the whole
stack, prints only the answer on stdout, and exits. Ctrl-C drains; a second Ctrl-C, or one before the stack is up, stops
at once.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import sys
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from miniserve.clock import monotonic
from miniserve.commands.backend_options import (
    add_backend_options,
    add_vllm_engine_options,
    backend_options,
    vllm_engine,
)
from miniserve.commands.decisions import decisions_to
from miniserve.commands.demo_load import add_load_options, load_command
from miniserve.commands.demo_output import described, log_changes, show_table, welcome
from miniserve.commands.operations_options import add_operations_options, operations_settings
from miniserve.commands.options import (
    DEFAULT_MODEL,
    add_cors_option,
    add_drain_option,
    add_engine_options,
    add_model_options,
    add_vllm_option,
    at_least_one,
    log_to_stderr,
    port,
    say,
)
from miniserve.commands.policy_options import add_policy_options, live_policies
from miniserve.commands.pool_options import (
    add_pool_options,
    demo_autoscaling,
    demo_pools,
    demo_routing,
    demo_scaling,
    read_latencies,
    require_memory_for,
)
from miniserve.commands.state_options import add_state_option, state_folder
from miniserve.commands.status_sections import section_lines
from miniserve.errors import RequestError

if TYPE_CHECKING:
    from miniserve.processes.pools import Pool
    from miniserve.processes.signals import StopSignals
    from miniserve.processes.stack import GatewayOptions, Stack

log = logging.getLogger(__name__)

DEFAULT_PORT = 8000
FALLBACK_MODEL = "large"  # shipped in data/models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_model_options(parser)
    parser.set_defaults(model=None)  # to tell "not given", where we may fall back, from an explicit "smollm2"
    add_engine_options(parser)
    add_policy_options(parser)
    add_cors_option(parser)
    add_pool_options(parser)
    add_backend_options(parser)
    add_vllm_engine_options(parser)
    add_vllm_option(parser)
    parser.add_argument(
        "--port", type=port, help=f"the gateway's, on 127.0.0.1 (default {DEFAULT_PORT}; with --once any free one)"
    )
    parser.add_argument("--once", metavar="PROMPT", help="print the answer to PROMPT and exit")
    parser.add_argument(
        "--max-tokens", type=at_least_one, default=256, help="of the answer with --once (default %(default)s)"
    )
    parser.add_argument("--no-table", action="store_true", help="log lines instead of the live table")
    add_load_options(parser)
    add_drain_option(parser)
    add_state_option(parser)
    add_operations_options(parser)
    about = "replace a replica process that answers no health probe for so many seconds (default %(default)g)"
    parser.add_argument("--absent-after", type=float, default=30.0, metavar="S", help=about)


def run(args: argparse.Namespace) -> int:
    """Run the stack until Ctrl-C, or for one question."""
    from miniserve.processes.http_server import bind

    _set_up_logging(args)
    args.live = live_policies(args)  # before anything is loaded
    default_port = DEFAULT_PORT if args.once is None else 0
    port_asked = default_port if args.port is None else args.port
    with decisions_to(args.decisions) as args.on_decision, bind(port_asked) as sock:  # before anything is loaded
        args.state = state_folder(args.state, sock, passing=args.once is not None or port_asked == 0)
        args.other_backends = backend_options(args)
        said = (args.model, args.replicas, args.once, args.pace, args.other_backends, vllm_engine(args))
        args.says_nothing = said == (None,) * len(said) and not args.pools
        folder = _model_folder(args)
        told = ["--drain-timeout", str(args.drain_timeout), "--log-level", "warning"]
        pools = demo_pools(args, folder, [*told, *args.live.scheduler_arguments()])
        require_memory_for(pools)
        by_itself = args.says_nothing and len(pools) > 1  # the pools that we chose, so we know what suits them
        args.autoscaling = demo_autoscaling(args, args.live.autoscaling, by_itself=by_itself)
        args.routing = demo_routing(args, pools)
        args.load = load_command(args, pools, args.routing, by_itself=by_itself)
        return asyncio.run(_main(args, pools, sock))


# --- before the stack --------------------------------------------------------------------------------------------


def _model_folder(args: argparse.Namespace) -> Path:
    from miniserve.errors import WeightsError
    from miniserve.models.store import resolve_model

    if args.model is not None:
        return resolve_model(args.model, args.cache, offline=args.offline, report=say)
    try:
        args.model = DEFAULT_MODEL
        return resolve_model(DEFAULT_MODEL, args.cache, offline=args.offline, report=say)
    except WeightsError as error:
        say(f"miniserve: {error}")
        say(f"miniserve: continuing with {FALLBACK_MODEL}, which ships with this project and knows little")
        args.model = FALLBACK_MODEL
        return resolve_model(FALLBACK_MODEL, args.cache, offline=True)


def _wants_table(args: argparse.Namespace) -> bool:
    return not args.no_table and args.once is None and sys.stdout.isatty()


def _set_up_logging(args: argparse.Namespace) -> None:
    if _wants_table(args):
        from rich.logging import RichHandler

        logging.basicConfig(handlers=[RichHandler(show_path=False)], level=logging.WARNING, format="%(message)s")
        return
    log_to_stderr("info" if args.once is None else "warning")
    logging.getLogger("miniserve.access").setLevel(logging.WARNING)  # not a line for each request


# --- the stack ---------------------------------------------------------------------------------------------------


async def _main(args: argparse.Namespace, pools: list[Pool], sock: socket.socket) -> int:
    """Run until the work is done (and return its exit code) or a signal cuts it off (130)."""
    from miniserve.config import ApiConfig
    from miniserve.operations.load import LoadDial, LoadPart
    from miniserve.operations.standard import STANDARD_PARTS
    from miniserve.processes.signals import StopSignals
    from miniserve.processes.stack import GatewayOptions

    api = ApiConfig(cors_origins=tuple(args.cors))
    args.dial = LoadDial()
    more_parts = () if args.load is None else (partial(LoadPart, args.dial),)
    options = GatewayOptions(
        pools[0].served_name,
        pools[0].folder,
        args.drain_timeout,
        args.absent_after,
        api,
        args.live.policies,
        on_decision=args.on_decision,
        routing=args.routing,
        degradation=args.live.degradation,
        vllm_metrics=args.vllm_metrics,
        parts=(*STANDARD_PARTS, *more_parts),
        settings=operations_settings(args),
        state_dir=args.state,
    )
    up = asyncio.Event()
    with StopSignals().caught() as stop:
        stack = _stack(args, options, pools, sock)
        job = _serve(args, stack, pools, stop, up) if args.once is None else _answer_once(args, stack, pools)
        work, cut = asyncio.create_task(job), asyncio.create_task(_cut_off(stop, up))
        try:
            await asyncio.wait({work, cut}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            work.cancel()  # which stops the replicas at once
            await asyncio.wait({work})
            return 130
        finally:
            cut.cancel()


async def _cut_off(stop: StopSignals, up: asyncio.Event) -> None:
    """Return when the work must be interrupted: at the first signal before the stack is up, later at the second."""
    await stop.first.wait()
    if up.is_set():
        await stop.second.wait()


async def _answer_once(
    args: argparse.Namespace, starting: AbstractAsyncContextManager[Stack], pools: list[Pool]
) -> int:
    from miniserve.clients.ask import ask_once

    say(f"starting {described(pools)}")
    async with starting as stack:
        try:
            await ask_once(stack.url, pools[0].served_name, args.once, args.max_tokens, _print_piece)
        except RequestError as error:
            say(f"miniserve: {error}")
            return 1
    print(flush=True)
    return 0


async def _serve(
    args: argparse.Namespace,
    starting: AbstractAsyncContextManager[Stack],
    pools: list[Pool],
    stop: StopSignals,
    up: asyncio.Event,
) -> int:
    say(f"starting {described(pools)}; the first import of torch may take a while")
    started_s = monotonic()
    async with starting as stack:
        up.set()
        print(welcome(stack.url, pools, monotonic() - started_s, args.state), flush=True)
        async with _load(args, stack):
            showing = asyncio.create_task(show_table(stack) if _wants_table(args) else log_changes(stack))
            showing.add_done_callback(_tell_why_it_ended)
            await stop.first.wait()
            showing.cancel()
            await asyncio.wait({showing})
        say(f"draining {stack.gateway.recent.in_flight} requests; Ctrl-C again stops at once")
    for line in section_lines({} if args.load is None else {"load": args.dial.as_json()}):
        say(line)
    say("stopped")
    return 0


def _load(args: argparse.Namespace, stack: Stack) -> AbstractAsyncContextManager[None]:
    """Return the block in which the demo's own load runs, if there is one; it ends with its last answers."""
    from miniserve.processes.load_process import running_load

    return nullcontext() if args.load is None else running_load([*args.load, stack.url], args.dial)


def _tell_why_it_ended(showing: asyncio.Task[None]) -> None:
    """Log why the table ended; the stack goes on serving without it."""
    if not showing.cancelled() and (error := showing.exception()) is not None:
        log.error("the live table ended; requests are still served", exc_info=error)


def _stack(
    args: argparse.Namespace, options: GatewayOptions, pools: list[Pool], sock: socket.socket
) -> AbstractAsyncContextManager[Stack]:
    from miniserve.gateway.distance import between
    from miniserve.processes.stack import running_pools

    return running_pools(
        options,
        pools,
        sock,
        scaling=demo_scaling(args, args.autoscaling, pools),
        distance=between({**args.live.latency_s, **read_latencies(args.latency)}),
        measured_weights=args.measured_weights,
        backends=args.other_backends,
    )


def _print_piece(text: str) -> None:
    print(text, end="", flush=True)
