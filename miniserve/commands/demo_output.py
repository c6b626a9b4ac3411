"""What the demo tells the person at the terminal: what starts, where it answers, and how its replicas are doing."""

from __future__ import annotations

import asyncio
from shlex import quote
from typing import TYPE_CHECKING

from miniserve.clock import monotonic
from miniserve.commands.options import say

if TYPE_CHECKING:
    from pathlib import Path

    from miniserve.commands.live_table import GatewayNumbers, Remarks, ReplicaRow
    from miniserve.processes.pools import Pool
    from miniserve.processes.stack import Stack

REFRESH_S = 0.25
EVENTS_SHOWN = 4  # below the table
LOG_EVERY_S = 15.0  # without a table: how often lines are logged, if anything has changed


def described(pools: list[Pool]) -> str:
    """Say what is started: "2 replicas of smollm2, 1 of small@1 (paced)"."""
    running = [pool for pool in pools if pool.replicas]
    each = [f"{pool.replicas} of {pool.served_name}{' (paced)' if pool.pace else ''}" for pool in running]
    noun = " replica of" if running and running[0].replicas == 1 else " replicas of"
    return ", ".join(each).replace(" of", noun, 1) or "a gateway"


def welcome(url: str, pools: list[Pool], seconds: float, state: Path | None = None) -> str:
    """Return what is printed once the stack is up: where to look, what to try, and how to ask it."""
    from miniserve.commands.gateway_call import DEFAULT_URL

    name = pools[0].served_name
    names = " and ".join(f"{pool.served_name}{' (paced)' if pool.pace else ''}" for pool in pools)
    where = "" if url == DEFAULT_URL else f" --url {url}"
    body = f'{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello!"}}], "stream": true}}'
    lines = [
        f"ready: {url} serves {names} (after {seconds:.1f} s)",
        "",
        f"open {url}/ in a browser: what it does, what has happened, and buttons that make something happen",
        "",
        "in another terminal (`. .venv/bin/activate` first):",
        f"  python -m miniserve status --watch{where}",
    ]
    if "large@1" in [pool.served_name for pool in pools] and (where == "" or state is not None):
        folder = "" if state is None or where == "" else f" --state {quote(str(state))}"
        lines.append(f"  python -m miniserve rollout start large@2 --canary 10,50,100{where}{folder}")
    lines += [
        f"  curl -N {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'",
        "",
        "It is open to every program on this machine (bound to loopback only), and ignores clients' API keys.",
        "Ctrl-C drains and stops.",
        "",
    ]
    return "\n".join(lines)


async def show_table(stack: Stack) -> None:
    """Draw the live table until cancelled."""
    from rich.live import Live

    from miniserve.commands.live_table import live_table

    with Live(live_table(_numbers(stack), _rows(stack)), auto_refresh=False) as live:
        while True:
            await asyncio.sleep(REFRESH_S)
            live.update(live_table(_numbers(stack), _rows(stack), _remarks(stack)), refresh=True)


async def log_changes(stack: Stack) -> None:
    """Say a line whenever something has changed, until cancelled."""
    from miniserve.commands.live_table import gateway_line
    from miniserve.commands.status_sections import section_lines

    shown, warned = 0, ""
    while True:
        await asyncio.sleep(LOG_EVERY_S)
        numbers = _numbers(stack)
        if numbers.requests != shown:
            shown = numbers.requests
            for line in (gateway_line(numbers), *section_lines(stack.gateway.desk.status())):
                say(line)
        if (warning := _warning(stack)) and warning != warned:
            warned = warning
            say(warning)


def _remarks(stack: Stack) -> Remarks:
    from miniserve.commands.live_table import Remarks
    from miniserve.commands.status_sections import section_lines

    events = [(event.level, event.text) for event in stack.gateway.events.after()[-EVENTS_SHOWN:]]
    return Remarks(section_lines(stack.gateway.desk.status()), events, _warning(stack))


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
    """Return a row for each member of the fleet; a backend has no process of ours."""
    from miniserve.commands.live_table import ReplicaRow

    children = {child.replica_id: child for child in stack.supervisor.children}
    rows = []
    for member in stack.gateway.fleet.members():
        view, report, child = member.view(), member.report, children.get(member.replica_id)
        load = (view.running, view.queue_depth, view.kv_used_fraction, view.tokens_per_s)
        is_paced = report is not None and report.stats.paced_steps > 0
        stages = () if report is None else (report.import_s, report.load_s, report.warm_up_s)
        pid, restarts, start_s = (None, 0, None) if child is None else (child.pid, child.restarts, child.start_s)
        rows.append(ReplicaRow(member.replica_id, view.state, pid, *load, restarts, is_paced, start_s, stages))
    return rows
