"""`miniserve chaos`: start a stack, send it a scenario's demand, and carry the scenario's faults out on it.

The exit code is 1 when a client noticed anything that could have been helped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

from miniserve.commands.options import add_model_options, at_least_one, say, served_name
from miniserve.errors import SetupError

if TYPE_CHECKING:
    from rich.progress import Progress

    from miniserve.drills.chaos import ChaosPlan
    from miniserve.drills.verdict import DrillVerdict
    from miniserve.policies.bundle import Policies

EXAMPLES = """
examples:
  miniserve chaos data/scenarios/chaos.toml
  miniserve chaos data/scenarios/chaos.toml --variant kills --json
  miniserve chaos data/scenarios/chaos.toml --set 'faults.events=[{at_s=3, kind="crash", replicas=["r-0"]}]'

Replicas are processes of this machine with a pace of their own, as many as the scenario's fleet has and four at most;
their hardware, step times and cold starts in the file are the simulation's. A crash is SIGKILL, a hang SIGSTOP, slow
is both signals in turn; refusals, cuts and partitions happen in a TCP hop between gateway and replica. Prompts are cut
to 60 words and answers to 200 tokens. Ctrl-C stops everything.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("scenario", type=Path, metavar="SCENARIO", help="see data/scenarios/chaos.toml")
    add_model_options(parser)
    parser.set_defaults(model="small")
    parser.add_argument("--variant", metavar="NAME", help="one of the scenario's variants")
    parser.add_argument("--seed", type=int, help="seed of the run (default: the scenario's own)")
    parser.add_argument("--requests", type=at_least_one, metavar="N", help="end after N requests")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="change any key; repeatable"
    )
    parser.add_argument(
        "--pace",
        default="default",
        metavar="SPEC",
        help="how long a step lasts, as for replica (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON, and nothing else on stdout")


def run(args: argparse.Namespace) -> int:
    """Check the scenario, run it, print the verdict."""
    from miniserve.drills.chaos import ChaosPlan
    from miniserve.replica.pace import parse_pace
    from miniserve.scenario import load
    from miniserve.scenario.build import resilience
    from miniserve.toml.source import Setting

    parse_pace(args.pace)
    settings = [Setting.parse(text) for text in args.settings]
    if args.requests is not None:
        settings.append(Setting(("run", "requests"), args.requests, f"--requests {args.requests}"))
    scenario = load(args.scenario, variant=args.variant, settings=settings)
    seed = scenario.run.seed if args.seed is None else args.seed
    try:
        plan = ChaosPlan.of(scenario, seed)
    except SetupError as error:
        raise SetupError(f"{args.scenario}: {error}") from None
    verdict = asyncio.run(_run(args, plan, resilience(scenario, seed)))
    if args.json:
        print(json.dumps(verdict.as_json()))
    else:
        print("\n".join(verdict.lines()))
    return 0 if verdict.passes else 1


async def _run(args: argparse.Namespace, plan: ChaosPlan, policies: Policies) -> DrillVerdict:
    from miniserve.drills.chaos import ChaosRun
    from miniserve.models.store import resolve_model
    from miniserve.processes.http_server import bind
    from miniserve.processes.stack import GatewayOptions, running_stack

    folder = resolve_model(args.model, args.cache, offline=args.offline, report=say)
    options = GatewayOptions(served_name(args), folder, policies=policies)
    more = ["--offline", "--threads", "1", "--quant", "fp32", "--pace", args.pace, "--log-level", "warning"]
    replicas = len(plan.names)
    say(f"starting {replicas} replicas of {options.name}")
    with bind(0) as sock, _progress() as progress:
        async with running_stack(options, sock, replicas=replicas, replica_arguments=more) as stack:
            say(plan.line())
            task = progress.add_task("", total=len(plan.requests))

            def news(now_s: float, what: str) -> None:
                progress.console.print(f"t={now_s:.1f} s: {what}", markup=False, highlight=False, soft_wrap=True)

            def answered(count: int) -> None:
                progress.update(task, completed=count, description=f"{count} of {len(plan.requests)} answered")

            return await ChaosRun(stack, plan, options.name, news, answered).run()


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
