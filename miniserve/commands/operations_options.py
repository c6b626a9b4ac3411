"""The options about what clients are promised, and whom to tell when it is not kept."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from miniserve.operations.settings import OperatorSettings

PRICED_AS = "cpu-2core"  # a laptop has no price per hour; this machine's is the nearest in the list


def add_operations_options(parser: argparse.ArgumentParser) -> None:
    """Add --availability, --slo-ttft, --slo-period and --alert-webhook."""
    group = parser.add_argument_group("promises and alerts")
    about = "share of requests that must not fail through our fault (default 0.99)"
    group.add_argument("--availability", type=float, metavar="SHARE", help=about)
    about = "95 of 100 answers must begin within so many seconds (default 2)"
    group.add_argument("--slo-ttft", type=float, metavar="S", help=about)
    about = "how long an error budget must last; the alerts' windows shrink with it (default 21600 s: six hours)"
    group.add_argument("--slo-period", type=float, metavar="S", help=about)
    about = "the price of a replica (default: that of cpu-2core in data/hardware.toml)"
    group.add_argument("--usd-per-replica-hour", type=float, metavar="USD", help=about)
    about = "send each alert that begins or ends there, as a JSON object"
    group.add_argument("--alert-webhook", metavar="URL", help=about)


def operations_settings(args: argparse.Namespace) -> OperatorSettings:
    """Return what the options say. Raises: SetupError naming what is wrong."""
    from miniserve.hardware.prices import load_price_list
    from miniserve.operations.settings import OperatorSettings

    price = args.usd_per_replica_hour
    said = {
        "availability": args.availability,
        "ttft_s": args.slo_ttft,
        "slo_period_s": args.slo_period,
        "usd_per_replica_hour": load_price_list().machine(PRICED_AS).usd_per_hour if price is None else price,
        "alert_webhook": args.alert_webhook,
    }
    return OperatorSettings(**{name: value for name, value in said.items() if value is not None})
