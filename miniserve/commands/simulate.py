"""`miniserve simulate`: run a scenario in virtual time, show the results, compare policies on the same randomness."""

from __future__ import annotations

import argparse
import csv
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniserve.commands.decisions import decisions_to
from miniserve.commands.options import at_least_one, check_outputs
from miniserve.commands.policy_options import add_policy_options, named, policy_settings
from miniserve.errors import SetupError

if TYPE_CHECKING:
    from rich.console import Console

    from miniserve.scenario import Scenario
    from miniserve.sim.comparison import PolicyComparison
    from miniserve.toml.source import Setting

COST_DIMENSIONS = ("account", "request-type", "model", "tenant", "feature", "replica")
COMPARED_SEEDS = 5  # when policies are compared and --seeds is not given
EXAMPLES = """
examples:
  miniserve simulate data/scenarios/quickstart.toml
  miniserve simulate data/scenarios/quickstart.toml --plot run.png --set workload.arrivals.rate_per_s=6
  miniserve simulate data/scenarios/hetero.toml --compare round-robin weighted peak-ewma --seeds 10
  miniserve simulate data/scenarios/quickstart.toml --balancer my_file.py:Mine
  miniserve simulate data/scenarios/quickstart.toml --policies my_policies.toml     (as `miniserve demo` takes it)
  miniserve simulate data/scenarios/bursty.toml --cost
  miniserve simulate data/scenarios/retry_storm.toml --plot storm.png      (its variants, side by side)

A comparison runs every case on the same seeds: arrivals, lengths and faults are the same, so only the policy differs.
Ctrl-C stops and shows the results so far.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("scenario", type=Path, help="a scenario file; see data/scenarios for examples")
    parser.add_argument("--seed", type=int, help="seed of the run (default: the scenario's own)")
    parser.add_argument(
        "--seeds",
        type=at_least_one,
        metavar="N",
        help=f"run N seeds, from --seed on, and give intervals (default 1; {COMPARED_SEEDS} when comparing)",
    )
    parser.add_argument("--requests", type=at_least_one, metavar="N", help="end after N requests")
    add_policy_options(parser)
    parser.add_argument("--variant", metavar="NAME", help="only this one of the scenario's variants")
    parser.add_argument(
        "--compare",
        nargs="+",
        default=[],
        metavar="CASE",
        help="balancers (NAME or FILE:CLASS) or settings (KEY=VALUE) to run side by side; the first is the base",
    )
    parser.add_argument(
        "--cost",
        nargs="*",
        choices=COST_DIMENSIONS,
        metavar="BY",
        help=f"show where the money went, by any of {', '.join(COST_DIMENSIONS)} (default: all that differ); "
        "with --plot also as a figure, NAME-cost",
    )
    parser.add_argument("--advise", action="store_true", help="show which hardware, and how much, the demand asks for")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write figures (.png, .svg, .pdf)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all figures as JSON")
    parser.add_argument(
        "--requests-out", type=Path, metavar="FILE", help="write a row per request as CSV (of each case's first seed)"
    )


def run(args: argparse.Namespace) -> int:
    """Check the arguments, run, and show the results."""
    from rich.console import Console

    from miniserve.sim.comparison import PolicyComparison

    check_outputs(args.plot, args.out, args.requests_out)
    cases = _cases(args)
    first = next(iter(cases.values()))
    start = first.run.seed if args.seed is None else args.seed
    seeds = args.seeds or (COMPARED_SEEDS if len(cases) > 1 else 1)
    experiment = PolicyComparison(cases, range(start, start + seeds), with_ledger=args.cost is not None)
    if args.decisions is not None and len(cases) * seeds > 1:
        raise SetupError(f"--decisions {args.decisions}: one run at a time; choose a --variant, no --compare, one seed")
    with decisions_to(args.decisions) as experiment.on_decision:
        _run(experiment)
    console = Console()
    _show(experiment, console, first.description)
    if args.cost is not None:
        _show_costs(experiment, console, args)
    if args.advise and experiment.has_outcomes:
        _advise(experiment, console)
    if args.plot is not None and experiment.has_outcomes:
        console.print(f"figures in {experiment.plot(args.plot)}", markup=False, soft_wrap=True)
    if args.out is not None:
        _write(experiment, args)
        console.print(f"numbers in {args.out}", markup=False, soft_wrap=True)
    if args.requests_out is not None:
        _write_requests(experiment, args.requests_out)
        console.print(f"requests in {args.requests_out}", markup=False, soft_wrap=True)
    if experiment.stopped is None:
        return 0
    return 130 if experiment.interrupted else 1


# --- before anything runs ------------------------------------------------------------------------------------------


def _cases(args: argparse.Namespace) -> dict[str, Scenario]:
    """Return the scenarios to run, by name, all of them checked."""
    from miniserve.scenario import load, variants
    from miniserve.toml.source import Setting

    common = policy_settings(args)
    if args.requests is not None:
        common.append(Setting(("run", "requests"), args.requests, f"--requests {args.requests}"))
    load_with = partial(load, args.scenario, policies=args.policies)
    if args.compare:
        names = list(dict.fromkeys(args.compare))
        if len(names) < 2:
            raise SetupError(f"--compare {' '.join(args.compare)}: there is nothing to compare; name two or more cases")
        settings = [_case(name) for name in names]
        return {
            name: load_with(variant=args.variant, settings=[*common, setting])
            for name, setting in zip(names, settings, strict=True)
        }
    if args.variant is None and (there := variants(args.scenario)):
        return {name: load_with(variant=name, settings=common) for name in there}
    return {args.variant or args.scenario.stem: load_with(variant=args.variant, settings=common)}


def _case(text: str) -> Setting:
    from miniserve.toml.source import Setting

    return Setting.parse(text, "--compare") if "=" in text else named(("policies", "balancer"), text, "--compare")


# --- while it runs, and after --------------------------------------------------------------------------------------


def _run(experiment: PolicyComparison) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)

        def show(case: str, seed: int, answered: int, now_s: float) -> None:
            total = experiment.cases[case].expected_requests
            description = f"{case}, seed {seed}, second {now_s:,.0f}"
            progress.update(task, completed=answered, total=max(total, answered), description=description)

        with _ctrl_c_stops(experiment):
            experiment.run(show)


@contextmanager
def _ctrl_c_stops(experiment: PolicyComparison) -> Iterator[None]:
    """At the first Ctrl-C end the run between two events, so nothing is half written; a second one acts as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are not ours
        return
    before = signal.getsignal(signal.SIGINT)

    def ask_to_stop(number: int, frame: object) -> None:
        experiment.should_stop = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask_to_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _show(experiment: PolicyComparison, console: Console, description: str) -> None:
    if description:
        console.print(description, markup=False, style="bold")
    scenario = next(iter(experiment.cases.values()))
    arrivals = scenario.workload.arrivals
    live_only = [name for name in ("models", "deprecated", "degradation") if getattr(scenario, name)]
    if live_only:
        console.print(f"not simulated, of a live gateway only: {', '.join(live_only)}", markup=False)
    if unused := getattr(arrivals, "unused", ()):
        console.print(f"not used of the trace: {', '.join(unused)}", markup=False)
    if experiment.stopped is not None:
        word = "" if experiment.complete_seeds == len(experiment.seeds) else "stopped: "
        console.print(f"{word}{experiment.stopped}", markup=False, style="red")
    if not experiment.has_outcomes:
        console.print("nothing had been answered by then")
        return
    if experiment.complete_seeds == 0 or (len(experiment.cases) == 1 and experiment.complete_seeds == 1):
        for name, result in experiment.first.items():  # after a stop: each case's results so far
            if len(experiment.cases) > 1:
                console.print(f"{name}:", markup=False, emoji=False, style="bold")
            console.print(result.table())
            for event in result.rollout:
                console.print(f"{event.at_s:10,.1f} s  {event.text}", markup=False, highlight=False)
    elif (comparison := experiment.comparison()) is not None:
        console.print(comparison.table())
    else:
        console.print(experiment.table())
    if (table := experiment.phase_table()) is not None:
        console.print(table)


def _show_costs(experiment: PolicyComparison, console: Console, args: argparse.Namespace) -> None:
    """Print each case's ledger, and draw it if figures are requested."""
    from miniserve.commands.cost_report import cost_figure, cost_table
    from miniserve.observe import plots
    from miniserve.observe.cost import DIMENSIONS

    by_name = dict(zip(COST_DIMENSIONS, DIMENSIONS, strict=True))
    for name, result in experiment.first.items():
        ledger = result.ledger
        if ledger is None:
            continue
        if len(experiment.cases) > 1:
            console.print(f"{name}:", markup=False, emoji=False, style="bold")
        chosen = [by_name[each] for each in args.cost] or [each for each in DIMENSIONS if ledger.differs(each)]
        for dimension in chosen:
            console.print(cost_table(ledger, dimension))
        if args.plot is not None:
            case = f"-{name}" if len(experiment.cases) > 1 else ""
            path = args.plot.with_stem(f"{args.plot.stem}{case.replace('/', '_')}-cost")
            plots.save_figure(cost_figure(ledger, chosen), path)
            console.print(f"costs in {path}", markup=False, soft_wrap=True)


def _advise(experiment: PolicyComparison, console: Console) -> None:
    """Print what the right-sizing makes of the first case's run."""
    from miniserve.planning.advice import advice_table, fleet_advice

    name, scenario = next(iter(experiment.cases.items()))
    for advice in fleet_advice(scenario, experiment.first[name].outcomes):
        console.print(advice_table(advice))


def _write(experiment: PolicyComparison, args: argparse.Namespace) -> None:
    from miniserve import __version__

    record: dict[str, Any] = {
        "miniserve": __version__,
        "scenario": str(args.scenario),
        "settings": args.settings,
        "seeds": list(experiment.seeds),
        "stopped": experiment.stopped,
        "figures": experiment.figures,
        "served_well": {
            case: [{phase: None if share != share else share for phase, share in shares.items()} for shares in per_seed]
            for case, per_seed in experiment.shares.items()
        },
    }
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _write_requests(experiment: PolicyComparison, path: Path) -> None:
    """Write what became of each request that is counted, in the order in which they ended."""
    from miniserve.observe.outcomes import ROW

    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("case", "seed", *ROW))
        for name, result in experiment.first.items():
            rows.writerows((name, experiment.seeds[0], *row) for row in result.outcomes.rows())
