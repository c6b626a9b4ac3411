"""`miniserve load`: send a scenario's demand to a running server, open-loop, and show what the clients saw."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from miniserve.clock import monotonic
from miniserve.commands.options import at_least_one, check_outputs
from miniserve.errors import RequestError, SetupError

if TYPE_CHECKING:
    from miniserve.clients.load import LoadResult, OnSent
    from miniserve.scenario import Scenario

LATE_S = 0.05  # missing the schedule by more than this, at the 99th percentile, gives a warning
EXAMPLES = """
examples:
  miniserve load http://127.0.0.1:8000 --scenario data/scenarios/quickstart.toml --requests 60
  miniserve load http://127.0.0.1:8000 --scenario data/scenarios/quickstart.toml --set workload.arrivals.rate_per_s=1

Only the scenario's demand and goals are used: [workload], [run], [slo], and the timeout of [clients] (without their
retries). Requests leave at their scheduled times, whether or not earlier ones have been answered. Ctrl-C stops and
shows the answers so far.
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
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write figures (.png, .svg, .pdf)")


def run(args: argparse.Namespace) -> int:
    """Check the scenario and the server, send, show."""
    from rich.console import Console

    from miniserve.scenario import load
    from miniserve.sim.result import SimResult
    from miniserve.toml.source import Setting

    check_outputs(plot=args.plot)
    settings = [Setting.parse(text) for text in args.settings]
    if args.requests is not None:
        settings.append(Setting(("run", "requests"), args.requests, f"--requests {args.requests}"))
    scenario = load(args.scenario, variant=args.variant, settings=settings)
    try:
        result = _send(args, scenario)
    except RequestError as error:
        raise SetupError(str(error)) from None
    console = Console()
    if len(result.outcomes):
        shown = SimResult(result.outcomes, {}, {"live": args.url}, scenario.slo, result.stopped)
        console.print(shown.table())
        if args.plot is not None:
            console.print(f"figures in {shown.plot(args.plot)}", markup=False, soft_wrap=True)
    else:
        console.print("no request was answered")
    for line in _remarks(result):
        console.print(line, markup=False, soft_wrap=True)
    return 0 if result.stopped is None else 130


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
    from dataclasses import replace

    from miniserve.clients.load import LoadRun, first_model

    workload = scenario.workload
    if scenario.clients is not None and workload.deadline_after_s is None:
        workload = replace(workload, deadline_after_s=scenario.clients.timeout_s)
    model = args.model or await first_model(args.url, args.api_key)
    seed = scenario.run.seed if args.seed is None else args.seed
    requests = workload.requests(seed, count=scenario.run.requests, duration_s=scenario.run.duration_s)
    return await LoadRun(args.url, model, monotonic, api_key=args.api_key, on_progress=show).run(requests)
