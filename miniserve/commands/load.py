"""`miniserve load`: send a scenario's demand to a running server, open-loop, and show what the clients saw."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

from miniserve.clock import monotonic
from miniserve.commands.options import at_least_one, check_outputs, share
from miniserve.errors import RequestError, SetupError

if TYPE_CHECKING:
    from miniserve.clients.load import Habits, LoadResult, OnSent
    from miniserve.scenario import Scenario
    from miniserve.scenario.model import Clients
    from miniserve.sim.result import SimResult

LATE_S = 0.05  # missing the schedule by more than this, at the 99th percentile, gives a warning
EXAMPLES = """
examples:
  miniserve load http://127.0.0.1:8000 --scenario data/scenarios/quickstart.toml --requests 60
  miniserve load http://127.0.0.1:8000 --scenario data/scenarios/quickstart.toml --set workload.arrivals.rate_per_s=1

Used of the scenario: [workload], [run], [clients] (their timeout, retries and budget) and [slo]. What is to leave
within its warmup_s is sent, but is in no figure. Requests leave at their scheduled times, whether or not earlier ones
have been answered, and say their tenant, session, region, feature, priority and time left in headers. Ctrl-C stops and
shows the answers so far.

Exit code: 1 if a limit of [slo] is kept by fewer requests than --slo-share, 2 if nothing could be sent, 130 after
Ctrl-C.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("url", help="an OpenAI-compatible server, such as http://127.0.0.1:8000")
    parser.add_argument("--scenario", type=Path, required=True, metavar="FILE", help="see data/scenarios for examples")
    parser.add_argument("--variant", metavar="NAME", help="one of the scenario's variants")
    parser.add_argument("--seed", type=int, help="seed of the run (default: the scenario's own)")
    parser.add_argument("--requests", type=at_least_one, metavar="N", help="end after N requests")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="change any key; repeatable"
    )
    parser.add_argument("--model", help="name of the model to ask (default: the server's first)")
    parser.add_argument("--api-key", metavar="KEY", help="sent as a bearer token")
    parser.add_argument(
        "--slo-share",
        type=share,
        default=0.95,
        metavar="SHARE",
        help="how many of the requests must keep each limit of [slo] (default %(default)g)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write figures (.png, .svg, .pdf)")


def run(args: argparse.Namespace) -> int:
    """Check the scenario and the server, send, show, judge."""
    from miniserve.observe.goodput import missed_limits
    from miniserve.scenario import load
    from miniserve.toml.source import Setting

    check_outputs(args.plot, args.out)
    settings = [Setting.parse(text) for text in args.settings]
    if args.requests is not None:
        settings.append(Setting(("run", "requests"), args.requests, f"--requests {args.requests}"))
    scenario = load(args.scenario, variant=args.variant, settings=settings)
    try:
        result = _send(args, scenario)
    except RequestError as error:
        raise SetupError(str(error)) from None
    missed = missed_limits(result.outcomes, scenario.slo, args.slo_share)
    _show(args, scenario, result, missed)
    if result.stopped is not None:
        return 130
    return 1 if missed else 0


def _show(args: argparse.Namespace, scenario: Scenario, result: LoadResult, missed: list[str]) -> None:
    from rich.console import Console

    from miniserve.observe.outcomes import Latency
    from miniserve.sim.result import SimResult

    console = Console()
    if len(result.outcomes):
        itl = Latency.of(result.itl_s)
        warm_up = {"warmup_s": f"{scenario.run.warmup_s:g}"} if scenario.run.warmup_s else {}
        origin = {"live": args.url, **warm_up}
        shown = SimResult(result.outcomes, {}, origin, scenario.slo, result.stopped, itl=itl)
        console.print(shown.table())
        if args.plot is not None:
            console.print(f"figures in {shown.plot(args.plot)}", markup=False, soft_wrap=True)
        if args.out is not None:
            _write(args, result, shown, missed)
    else:
        console.print("no request was answered")
    for line in _remarks(result) + [f"missed: {line}" for line in missed]:
        console.print(line, markup=False, soft_wrap=True)


def _write(args: argparse.Namespace, result: LoadResult, shown: SimResult, missed: list[str]) -> None:
    """Write the figures and what they were measured on."""
    record = {
        "url": args.url,
        "scenario": str(args.scenario),
        "variant": args.variant,
        "seed": args.seed,
        "settings": args.settings,
        "figures": shown.figures(),
        "by_status": {str(status): count for status, count in result.outcomes.by_status().items()},
        "reasons": {str(status): reason for status, reason in result.reasons.items()},
        "lag": result.lag_line(),
        "missed": missed,
        "stopped": result.stopped,
    }
    args.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _remarks(result: LoadResult) -> list[str]:
    from miniserve.observe.percentiles import percentile

    lines = [result.lag_line()]
    if result.lag_s and percentile(result.lag_s, 99) > LATE_S:
        lines.append("that is late: this machine could not send on time, so the load was less even than requested")
    lines += [f"first {status}: {reason}" for status, reason in sorted(result.reasons.items())]
    if result.unanswered:
        lines.append(f"{result.unanswered} requests were still open and are not counted")
    return lines


def _send(args: argparse.Namespace, scenario: Scenario) -> LoadResult:
    """Run the load with a progress bar."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=scenario.expected_requests)

        def show(sent: int, answered: int) -> None:
            progress.update(task, completed=answered, description=f"{sent} sent, {answered} answered")

        return asyncio.run(_run(args, scenario, show))


async def _run(args: argparse.Namespace, scenario: Scenario, show: OnSent) -> LoadResult:
    from miniserve.clients.load import LoadRun, first_model

    model = args.model or await first_model(args.url, args.api_key)
    seed = scenario.run.seed if args.seed is None else args.seed
    requests = scenario.workload.requests(seed, count=scenario.run.requests, duration_s=scenario.run.duration_s)
    load = LoadRun(
        args.url,
        model,
        monotonic,
        api_key=args.api_key,
        on_progress=show,
        habits=_habits(scenario.clients, seed),
        warmup_s=scenario.run.warmup_s,
    )
    return await load.run(requests)


def _habits(clients: Clients | None, seed: int) -> Habits:
    """Return what the scenario's clients do when they lose patience; without [clients] they wait for ever."""
    from miniserve.clients.load import Habits

    if clients is None:
        return Habits()
    budget = None if clients.budget is None else clients.budget.build(seed=seed)
    return Habits(clients.timeout_s, clients.retry.build(seed=seed), budget)
