"""`miniserve status`: what a running gateway says about itself, as a table for a person or as JSON for a script."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from miniserve.errors import SetupError

if TYPE_CHECKING:
    from rich.console import RenderableType

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 5.0
REFRESH_S = 1.0
EXAMPLES = """
examples:
  miniserve status
  miniserve status --url http://127.0.0.1:8010 --watch
  miniserve status --json | python -m json.tool
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("--url", default=DEFAULT_URL, help="of the gateway (default %(default)s)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print the gateway's own answer, one line")
    how.add_argument("--watch", action="store_true", help="show it anew every second, until Ctrl-C")


def run(args: argparse.Namespace) -> int:
    """Ask once and print, or watch."""
    from rich.console import Console

    from miniserve.commands.status_table import status_table

    if args.watch:
        return _watch(args.url)
    status = fetch_status(args.url)
    if args.json:
        print(json.dumps(status))
    else:
        Console().print(status_table(status))
    return 0


def fetch_status(url: str) -> dict[str, Any]:
    """Return what `GET /status` answers. Raises: SetupError, saying what to do, if no gateway of ours answers there."""
    import httpx

    where = url.rstrip("/").removesuffix("/v1")
    try:
        answer = httpx.get(f"{where}/status", timeout=TIMEOUT_S, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise SetupError(
            f"no gateway answers at {where} ({type(error).__name__}): start one with `miniserve demo`, or name another "
            "with --url"
        ) from None
    try:
        status: Any = answer.raise_for_status().json()
    except (httpx.HTTPStatusError, ValueError):
        status = None
    if not isinstance(status, dict) or not {"replicas", "requests"} <= status.keys():
        raise SetupError(f"{where} answers, but not as a miniserve gateway: a replica or another server has no /status")
    return status


def _watch(url: str) -> int:
    """Redraw the table until Ctrl-C. A gateway that has gone is told, and waited for."""
    from rich.live import Live

    from miniserve.commands.status_table import status_table

    shown: RenderableType = status_table(fetch_status(url))
    try:
        with Live(shown, auto_refresh=False) as live:
            while True:
                live.update(shown, refresh=True)
                time.sleep(REFRESH_S)
                try:
                    shown = status_table(fetch_status(url))
                except SetupError as error:
                    shown = str(error)
    except KeyboardInterrupt:
        return 0
