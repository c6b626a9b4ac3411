"""The options that say how a fleet decides: a file of policies, single policies by name, and any key.

`demo` and `serve` make a gateway's policies of them, `simulate` lays them over its scenario. Later ones win: the file,
the policies that are named one by one, then `--set`, which can give those their keys.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from miniserve.commands.decisions import add_decisions_option

if TYPE_CHECKING:
    from miniserve.scenario.live import LivePolicies
    from miniserve.toml.source import Place, Setting

_NAMED: dict[str, tuple[Place, str]] = {
    "balancer": (("policies", "balancer"), "which replica gets a request: p2c, my_file.py:Mine, chapter.ipynb:Mine"),
    "router": (("policies", "router"), "which replicas may get it at all: version, feature, region, priority"),
    "retry": (("policies", "retry"), "whether a failed attempt is repeated: backoff, naive, never"),
    "autoscaler": (("autoscaler", "policy"), "how many replicas there are: reactive, target-tracking, queue"),
}


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    """Add --policies, --balancer, --router, --retry, --autoscaler, --set, --decisions."""
    about = "a policies file, or a scenario whose [policies], [autoscaler] and [engine.scheduler] are used"
    parser.add_argument("--policies", type=Path, metavar="FILE", help=about)
    for name, (_, about) in _NAMED.items():
        parser.add_argument(f"--{name}", metavar="NAME|FILE:CLASS", help=about)
    about = "change any key, such as policies.hedge_after_s=0.5; repeatable"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=about)
    add_decisions_option(parser)


def policy_settings(args: argparse.Namespace) -> list[Setting]:
    """Return what --set and the single policies lay over a file."""
    from miniserve.toml.source import Setting

    given = [(name, place, getattr(args, name)) for name, (place, _) in _NAMED.items()]
    policies = [named(place, value, f"--{name}") for name, place, value in given if value is not None]
    return [*policies, *(Setting.parse(text) for text in args.settings)]


def named(place: Place, name: str, option: str) -> Setting:
    """Return the setting that puts the policy `name` in its place: a word, a class in a file, or a table of TOML."""
    from miniserve.toml.source import Setting

    if name[:1] in ("{", "["):
        return Setting(place, Setting.parse(f"policy={name}", option).value, f"{option} {name}")
    file, colon, class_name = name.rpartition(":")
    if colon and Path(file).is_file():  # relative to the current folder, not to the file's
        name = f"{Path(file).absolute()}:{class_name}"
    return Setting(place, name, f"{option} {name}")


def live_policies(args: argparse.Namespace) -> LivePolicies:
    """Return the policies of one live gateway. Raises: SetupError for anything that is wrong with them."""
    from miniserve.scenario.live import read_live

    return read_live(args.policies, policy_settings(args))
