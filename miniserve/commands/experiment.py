"""`miniserve experiment`: an A/B test between two versions of a model on a running gateway, and what it says so far."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from miniserve.commands.gateway_call import add_gateway_options, call_gateway
from miniserve.errors import SetupError

if TYPE_CHECKING:
    from rich.table import Table

PATH = "/admin/experiment"
EXAMPLES = """
examples:
  miniserve experiment start large@1 large@2 --split 50,50 --name shorter-prompts
  miniserve experiment report
  miniserve experiment stop
"""
_NAMES = {
    "liked": ("liked answers", "share"),
    "ttft_s": ("time to first token", "seconds"),
    "e2e_s": ("time to the end", "seconds"),
    "tokens": ("tokens of an answer", "tokens"),
    "retry": ("asked again", "share"),
    "rephrase": ("asked differently", "share"),
    "abandon": ("left before the end", "share"),
    "returns": ("came back after a break", "share"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's actions and options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    start = actions.add_parser("start", help="split the users of a model between two of its versions")
    start.add_argument("variants", nargs=2, metavar="NAME@VERSION", help="what is there now, and what may be better")
    start.add_argument("--split", type=_split, metavar="PERCENTS", help="of the users (default 50,50)")
    start.add_argument("--name", help="shuffles the users, and stands in the report (default: experiment)")
    about = "the smallest difference in the share of liked answers that matters, in points (default 5)"
    start.add_argument("--effect", type=float, metavar="POINTS", help=about)
    for name in ("report", "status"):
        report = actions.add_parser(name, help="the figures so far, and what follows from them")
        report.add_argument("--json", action="store_true", help="print the gateway's own answer, one line")
    actions.add_parser("stop", help="give all users the first variant, and keep the figures")
    actions.add_parser("clear", help="forget an experiment that was stopped")
    for action in actions.choices.values():
        add_gateway_options(action)


def run(args: argparse.Namespace) -> int:
    """Press one button, or show the report."""
    if args.action in ("report", "status"):
        return _show(args)
    body: dict[str, Any] = {"action": args.action}
    if args.action == "start":
        body["variants"] = args.variants
        effect = None if args.effect is None else args.effect / 100
        more = {"split": args.split, "name": args.name, "effect": effect}
        body |= {name: value for name, value in more.items() if value is not None}
    told = call_gateway(args, "POST", PATH, body)["experiment"]
    print("no experiment" if told is None else f"{told['name']}: {told['verdict']}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from rich.console import Console

    report = call_gateway(args, "GET", "/status").get("experiments")
    if args.json:
        print(json.dumps(report))
    elif report is None:
        print("no experiment has been started; `python -m miniserve experiment start` begins one")
    else:
        Console().print(experiment_table(report))
        print(report["verdict"])
    return 0


def experiment_table(report: dict[str, Any]) -> Table:
    """Return the figures of a report for a terminal."""
    from rich.table import Table

    one, other = report["variants"]
    mismatch_p = report["sample_ratio_p"]
    ratio = "no users yet" if mismatch_p is None else f"sizes as split: p = {mismatch_p:.2g}"
    table = Table(
        title=f"{report['name']}{'' if report['running'] else ' (stopped)'}",
        caption=f"{report['users'][0]:,} and {report['users'][1]:,} users, {ratio}; each user counts once",
    )
    table.add_column("per user")
    for name in (one, other, "difference", "95 % interval", "p, one look"):
        table.add_column(name, justify="right")
    for name, found in report["metrics"].items():
        words, unit = _NAMES.get(name, (name, ""))
        cells = [_number(value, unit) for value in (*found["means"], found["difference"])]
        interval = f"{_number(found['low'], unit)} to {_number(found['high'], unit)}"
        table.add_row(words, *cells, interval, f"{found['p_value']:.2g}")
    return table


def _number(value: float, unit: str) -> str:
    return {"share": f"{value:.1%}", "seconds": f"{value:.3f} s"}.get(unit, f"{value:.1f}")


def _split(text: str) -> list[float]:
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) != 2 or abs(sum(parts) - 100) > 1e-6 or min(parts) <= 0:
        raise SetupError(f"--split {text}: give two percentages that add up to 100, such as 50,50")
    return [part / 100 for part in parts]
