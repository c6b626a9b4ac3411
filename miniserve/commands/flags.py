"""`miniserve flags`: features that are on for some users of a running gateway."""

from __future__ import annotations

import argparse
import json
from typing import Any

from miniserve.commands.gateway_call import add_gateway_options, call_gateway
from miniserve.errors import SetupError

PATH = "/admin/flags"
EXAMPLES = """
examples:
  miniserve flags set brief --share 10 --cohort beta=50 --off ann     (the rest of the flag stays as it is)
  miniserve flags set newest --on bob --serves large@2
  miniserve flags list
  miniserve flags clear brief
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's actions and options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    put = actions.add_parser("set", help="set a flag, or change what is said of it here")
    put.add_argument("name", metavar="NAME")
    put.add_argument("--share", type=float, metavar="PERCENT", help="of all users (default 0)")
    put.add_argument("--on", nargs="*", metavar="USER", help="users who have it in any case")
    put.add_argument("--off", nargs="*", metavar="USER", help="users who never have it")
    about = "a share of its own for the users of a cohort, which the header x-cohort names"
    put.add_argument("--cohort", action="append", metavar="NAME=PERCENT", help=about)
    about = "who has the flag and asks for NAME gets this version of it"
    put.add_argument("--serves", metavar="NAME@VERSION", help=about)
    show = actions.add_parser("list", help="show all flags")
    show.add_argument("--json", action="store_true", help="print the gateway's own answer, one line")
    clear = actions.add_parser("clear", help="forget a flag: nobody has it")
    clear.add_argument("name", metavar="NAME")
    for action in actions.choices.values():
        add_gateway_options(action)


def run(args: argparse.Namespace) -> int:
    """Press one button, and show the flags that there are now."""
    body: dict[str, Any] = {"action": args.action}
    if args.action != "list":
        body["name"] = args.name
    if args.action == "set":
        body |= _said(args)
    told = call_gateway(args, "POST", PATH, body)
    if args.action == "list" and args.json:
        print(json.dumps(told))
        return 0
    for flag in told["flags"]:
        print(flag_line(flag))
    if not told["flags"]:
        print("no flags")
    return 0


def flag_line(flag: dict[str, Any]) -> str:
    """Return a flag in a line."""
    shares = {"all users": flag["share"], **flag["cohorts"]}
    parts = [f"{share * 100:.4g} % of {whom}" for whom, share in shares.items()]
    parts += [f"{word} for {', '.join(flag[word])}" for word in ("on", "off") if flag[word]]
    parts += [f"serves {flag['serves']}"] if flag["serves"] else []
    return f"{flag['name']}: {'; '.join(parts)}"


def _said(args: argparse.Namespace) -> dict[str, Any]:
    cohorts = None if args.cohort is None else dict(map(_cohort, args.cohort))
    share = None if args.share is None else args.share / 100
    said = {"share": share, "on": args.on, "off": args.off, "cohorts": cohorts, "serves": args.serves}
    return {name: value for name, value in said.items() if value is not None}


def _cohort(text: str) -> tuple[str, float]:
    name, _, percent = text.rpartition("=")
    try:
        share = float(percent) / 100
    except ValueError:
        share = -1.0
    if not name or not 0 <= share <= 1:
        raise SetupError(f"--cohort {text}: give a name and a percentage, such as beta=50")
    return name, share
