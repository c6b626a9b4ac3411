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
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from miniserve.clock import monotonic
from miniserve.commands.decisions import decisions_to
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
    check_memory,
    demo_pools,
    demo_routing,
    demo_scaling,
    read_latencies,
)
from miniserve.errors import RequestError

if TYPE_CHECKING:
    from miniserve.commands.live_table import GatewayNumbers, ReplicaRow
    from miniserve.processes.pools import Pool
    from miniserve.processes.signals import StopSignals
    from miniserve.processes.stack import GatewayOptions, Stack

log = logging.getLogger(__name__)

DEFAULT_PORT = 8000
FALLBACK_MODEL = "large"  # shipped in data/models
REFRESH_S = 0.25
LOG_EVERY_S = 10.0  # without a table: how often a line is logged, if anything has changed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_model_options(parser)
    parser.set_defaults(model=None)  # to tell "not given", where we may fall back, from an explicit "smollm2"
    add_engine_options(parser)
    add_policy_options(parser)
    add_cors_option(parser)
    add_pool_options(parser)
    add_vllm_option(parser)
    parser.add_argument(
        "--port", type=port, help=f"the gateway's, on 127.0.0.1 (default {DEFAULT_PORT}; with --once any free one)"
    )
    parser.add_argument("--once", metavar="PROMPT", help="print the answer to PROMPT and exit")
    parser.add_argument(
        "--max-tokens", type=at_least_one, default=256, help="of the answer with --once (default %(default)s)"
    )
    parser.add_argument("--no-table", action="store_true", help="log lines instead of the live table")
    parser.add_argument("--no-load", action="store_true", help="send no load (the demo does not send any yet)")
    add_drain_option(parser)
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
        said = (args.model, args.replicas, args.once, args.pace)
        args.says_nothing = said == (None,) * len(said) and not args.pools
        folder = _model_folder(args)
        told = ["--drain-timeout", str(args.drain_timeout), "--log-level", "warning"]
        pools = demo_pools(args, folder, [*told, *args.live.scheduler_arguments()])
        check_memory(pools)
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
    from miniserve.processes.signals import StopSignals
    from miniserve.processes.stack import GatewayOptions

    api = ApiConfig(cors_origins=tuple(args.cors))
    options = GatewayOptions(
        pools[0].served_name,
        pools[0].folder,
        args.drain_timeout,
        args.absent_after,
        api,
        args.live.policies,
        on_decision=args.on_decision,
        routing=demo_routing(args, pools),
        degradation=args.live.degradation,
        vllm_metrics=args.vllm_metrics,
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

    say(f"starting {_described(pools)}")
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
    say(f"starting {_described(pools)}; the first import of torch may take a while")
    started_s = monotonic()
    async with starting as stack:
        up.set()
        print(_welcome(stack.url, pools, monotonic() - started_s), flush=True)
        showing = asyncio.create_task(_show_table(stack) if _wants_table(args) else _log_changes(stack))
        showing.add_done_callback(_tell_why_it_ended)
        await stop.first.wait()
        showing.cancel()
        await asyncio.wait({showing})
        say(f"draining {stack.gateway.recent.in_flight} requests; Ctrl-C again stops at once")
    say("stopped")
    return 0


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
        scaling=demo_scaling(args, args.live.autoscaling, pools),
        distance=between({**args.live.latency_s, **read_latencies(args.latency)}),
        measured_weights=args.measured_weights,
    )


# --- output for people -------------------------------------------------------------------------------------------


def _described(pools: list[Pool]) -> str:
    """Say what is started: "2 replicas of smollm2, 1 of small@1 (paced)"."""
    each = [f"{pool.replicas} of {pool.served_name}{' (paced)' if pool.pace else ''}" for pool in pools]
    return ", ".join(each).replace(" of", " replicas of", 1)


def _welcome(url: str, pools: list[Pool], seconds: float) -> str:
    name = pools[0].served_name
    names = " and ".join(f"{pool.served_name}{' (paced)' if pool.pace else ''}" for pool in pools)
    body = f'{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello!"}}], "stream": true}}'
    return f"""ready: {url} serves {names} (after {seconds:.1f} s)

  curl -N {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="unused")
  messages = [{{"role": "user", "content": "Hello!"}}]
  for chunk in client.chat.completions.create(model="{name}", messages=messages, stream=True):
      print(chunk.choices[0].delta.content or "", end="", flush=True)

It is open to every program on this machine (bound to loopback only) and ignores any API keys that clients send.
Ctrl-C drains and stops.
"""


async def _show_table(stack: Stack) -> None:
    from rich.live import Live

    from miniserve.commands.live_table import live_table

    with Live(live_table(_numbers(stack), _rows(stack)), auto_refresh=False) as live:
        while True:
            await asyncio.sleep(REFRESH_S)
            live.update(live_table(_numbers(stack), _rows(stack), _warning(stack)), refresh=True)


async def _log_changes(stack: Stack) -> None:
    from miniserve.commands.live_table import gateway_line

    shown, warned = 0, ""
    while True:
        await asyncio.sleep(LOG_EVERY_S)
        numbers = _numbers(stack)
        if numbers.requests != shown:
            shown = numbers.requests
            say(gateway_line(numbers))
        if (warning := _warning(stack)) and warning != warned:
            warned = warning
            say(warning)


def _warning(stack: Stack) -> str:
    """Return what is to be said about all figures, if the paced replicas cannot keep their pace."""
    from miniserve.replica.pace import overrun_warning

    reports = [member.report for member in stack.gateway.fleet.members()]
    return overrun_warning(report.stats for report in reports if report is not None)


def _numbers(stack: Stack) -> GatewayNumbers:
    from miniserve.commands.live_table import GatewayNumbers

    recent = stack.gateway.recent
    ttft_s, itl_s = (window.percentiles(50, 90, 99, 99.9) for window in (recent.ttft_s, recent.itl_s))
    rate = recent.tokens_per_s(monotonic())
    return GatewayNumbers(stack.url, recent.requests, recent.in_flight, recent.failed, ttft_s, itl_s, rate)


def _rows(stack: Stack) -> list[ReplicaRow]:
    from miniserve.commands.live_table import ReplicaRow

    members = {member.replica_id: member for member in stack.gateway.fleet.members()}
    rows = []
    for child in stack.supervisor.children:
        if (member := members.get(child.replica_id)) is None:
            continue
        view, report = member.view(), member.report
        load = (view.running, view.queue_depth, view.kv_used_fraction, view.tokens_per_s)
        is_paced = report is not None and report.stats.paced_steps > 0
        stages = () if report is None else (report.import_s, report.load_s, report.warm_up_s)
        row = ReplicaRow(
            child.replica_id, view.state, child.pid, *load, child.restarts, is_paced, child.start_s, stages
        )
        rows.append(row)
    return rows


def _print_piece(text: str) -> None:
    print(text, end="", flush=True)
