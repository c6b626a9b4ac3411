"""`miniserve rollout`: introduce a new version of a model on a running gateway, watch it, hurry it, call it back."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from miniserve.commands.gateway_call import add_gateway_options, call_gateway
from miniserve.commands.options import at_least_one, share
from miniserve.errors import SetupError

if TYPE_CHECKING:
    from rich.table import Table

PATH = "/admin/rollout"
EXAMPLES = """
examples:
  miniserve rollout start large@2 --canary 1,10,50,100     percent of the users, stage by stage
  miniserve rollout start large@2 --blue-green             all users at once, when all new replicas are ready
  miniserve rollout start large@2 --shadow 0.1             copies of a tenth of the requests; nobody sees an answer
  miniserve rollout start large@bad --without-eval         although its recorded eval says that it is worse
  miniserve rollout status
  miniserve rollout rollback
"""
_METRICS = {"errors": "failed", "slow": "slower than the old version's p95", "bad": "judged bad"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's actions and options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_start(actions.add_parser("start", help="begin a rollout", allow_abbrev=False))
    status = actions.add_parser("status", help="how far it has come, and what the figures say", allow_abbrev=False)
    status.add_argument("--json", action="store_true", help="print the gateway's own answer, one line")
    actions.add_parser("promote", help="show the new version to all users now; again: retire the old one")
    back = actions.add_parser("rollback", help="bring all users back to the old version at once", allow_abbrev=False)
    back.add_argument("--reason", help="what the record is to say")
    actions.add_parser("clear", help="forget a rollout that is over")
    for action in actions.choices.values():
        add_gateway_options(action)


def _add_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("new", metavar="NAME@VERSION", help="the version to introduce, such as large@2")
    how = parser.add_mutually_exclusive_group()
    about = "percent of the users in each stage (default 1,10,50,100)"
    how.add_argument("--canary", type=_percents, metavar="PERCENTS", help=about)
    how.add_argument("--blue-green", action="store_true", help="all users at once, when all new replicas are ready")
    about = "copy this share of the requests to it and throw its answers away (default 0.1)"
    how.add_argument("--shadow", type=share, nargs="?", const=0.1, metavar="FRACTION", help=about)
    how.add_argument("--ramp", type=at_least_one, metavar="STEPS", help="equal steps by time, of --min-s each (30 s)")
    about = "answers of the new version in each stage (default 200: see `rollout` in the README)"
    parser.add_argument("--min-answers", type=int, metavar="N", help=about)
    parser.add_argument("--min-s", type=float, metavar="S", help="seconds that each stage lasts at least")
    parser.add_argument("--replicas", type=at_least_one, metavar="N", help="of the new version (default: as the old)")
    about = "how long the old version is kept ready after the last stage began (default 600)"
    parser.add_argument("--keep-warm", type=float, metavar="S", dest="keep_warm_s", help=about)
    parser.add_argument("--from", dest="old", metavar="NAME@VERSION", help="the version it follows, if several serve")
    about = "the new version's files: a shipped model, or a folder on the gateway's machine (default: its name)"
    parser.add_argument("--model", dest="source", metavar="MODEL", help=about)
    parser.add_argument(
        "--without-eval", action="store_true", help="start although its recorded eval is too low, or there is none"
    )


def run(args: argparse.Namespace) -> int:
    """Press one button, or show how things stand."""
    if args.action == "status":
        return _show(args)
    body = {"action": args.action, **_fields(args)}
    told = call_gateway(args, "POST", PATH, body)["rollout"]
    print(_pressed(args.action, told))
    return 0


def _fields(args: argparse.Namespace) -> dict[str, Any]:
    if args.action == "rollback" and args.reason is not None:
        return {"reason": args.reason}
    if args.action != "start":
        return {}
    names = ("new", "old", "source", "min_answers", "min_s", "replicas", "keep_warm_s")
    said = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return {**said, **_strategy(args), **({"without_eval": True} if args.without_eval else {})}


def _strategy(args: argparse.Namespace) -> dict[str, Any]:
    if args.blue_green:
        return {"strategy": "blue-green"}
    if args.shadow is not None:
        return {"strategy": "shadow", "mirror": args.shadow}
    if args.ramp is not None:
        return {"strategy": "ramp", "steps": args.ramp}
    return {"strategy": "canary", **({"shares": args.canary} if args.canary is not None else {})}


def _percents(text: str) -> list[float]:
    """Return fractions."""
    shares = [float(part) / 100 for part in text.split(",")]
    if not all(0 < each <= 1 for each in shares) or shares != sorted(shares):
        raise argparse.ArgumentTypeError(
            f"percents must rise from above 0 to at most 100, as in 1,10,50,100; not {text}"
        )
    return shares


def _pressed(action: str, told: dict[str, Any] | None) -> str:
    if told is None:
        return "no rollout is remembered any more"
    if action == "start":
        note = "; its recorded eval was not asked for" if told["without_eval"] else ""
        return (
            f"{told['new']} is being started beside {told['old']}{note}; `miniserve rollout status` tells how it goes"
        )
    if action == "rollback":
        return f"all users are back with {told['old']}"
    if told["phase"] == "done":
        return f"{told['old']} is retired; {told['new']} has taken its place"
    return f"all users get {told['new']} now; promote again to retire {told['old']}"


# --- status ------------------------------------------------------------------------------------------------------


def _show(args: argparse.Namespace) -> int:
    status = call_gateway(args, "GET", "/status")
    if not isinstance(status, dict):
        raise SetupError(f"{args.url} answers, but not as a miniserve gateway")
    told = status.get("rollout")
    if args.json:
        print(json.dumps(told))
        return 0
    from rich.console import Console

    console = Console(highlight=False)
    if told is None:
        console.print("no rollout; `miniserve rollout start NAME@VERSION` begins one")
        return 0
    for line in rollout_lines(told):
        console.print(line)
    console.print(_evidence(told))
    if told["shadow"] is not None:
        console.print(_shadow(told))
    return 0


def rollout_lines(told: dict[str, Any]) -> list[str]:
    """Return how far a rollout has come, in words."""
    old, new = told["old"], told["new"]
    stages = " -> ".join(f"{100 * each:g} %" for each in told["stages"])
    lines = [f"{old} -> {new} ({told['strategy']}: {stages}), begun {told['since_s']:,.0f} s ago"]
    lines.append(_phase_line(told))
    if told["without_eval"]:
        lines.append(f"! it was started without asking for the recorded eval ({_evals(told['eval'])})")
    if told["switched_after_s"] is not None:
        lines.append(f"the last answer of {old} came {told['switched_after_s']:.1f} s after the start")
    if told["back_after_s"] is not None:
        lines.append(f"the last answer of {new} came {told['back_after_s']:.1f} s after the way back began")
    return lines


def _phase_line(told: dict[str, Any]) -> str:
    old, new, share = told["old"], told["new"], f"{100 * told['share']:g} %"
    stage = f"stage {told['stage'] + 1} of {len(told['stages'])}"
    answers = f"{told['answers_in_stage']:,} of at least {told['min_answers']:,} answers"
    copies = f", and {100 * told['mirror']:g} % of the requests are copied to it" if told["mirror"] else ""
    lines = {
        "waiting": f"waits until replicas of {new} are ready",
        "running": f"{stage}: {share} of the users get {new}{copies}; {answers}",
        "warm": f"all users get {new}; {old} is kept ready to take over again",
        "done": f"done: {share} of the users get {new}",
        "rolled_back": f"ROLLED BACK after {told['rolled_back_after_s']} s in {stage}: {told['reason']}. "
        f"{told['exposed_share']:.1%} of all answers came from {new}",
        "failed": f"FAILED: {told['reason']}. {old} serves all users",
    }
    return lines[told["phase"]]


def _evals(scores: dict[str, float | None]) -> str:
    return ", ".join(f"{name}: {'none' if score is None else f'{score:.1%}'}" for name, score in scores.items())


def _evidence(told: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title="evidence against the new version")
    for heading in ("answers that were", told["new"], told["old"], "p", "rolled back at"):
        table.add_column(heading, justify="left" if heading.startswith("answers") else "right")
    for metric, p_value in told["p_values"].items():
        counts = told["counts"][metric]
        cells = (_rate(counts["new"]), _rate(counts["old"]), f"{p_value:.3g}", f"{told['alpha'][metric]:g}")
        table.add_row(_METRICS.get(metric, metric), *cells)
    return table


def _rate(count: dict[str, int]) -> str:
    return f"{count['bad'] / count['of']:.1%} of {count['of']:,}" if count["of"] else "-"


def _shadow(told: dict[str, Any]) -> Table:
    from rich.table import Table

    shadow = told["shadow"]
    table = Table(title=f"{shadow['copies']:,} copies, {shadow['errors']:,} failed, {shadow['skipped']:,} left out")
    for heading in ("", f"{told['old']} (shown)", f"{told['new']} (copy)"):
        table.add_column(heading, justify="left" if not heading else "right")
    same = shadow["same_text_share"]
    table.add_row("same text", "", "-" if same is None else f"{same:.1%}")
    for name, key, unit in (("mean characters", "mean_characters", ""), ("median TTFT", "median_ttft_s", " s")):
        values = (shadow[key]["shown"], shadow[key]["copy"])
        table.add_row(name, *("-" if value is None else f"{value:g}{unit}" for value in values))
    return table
