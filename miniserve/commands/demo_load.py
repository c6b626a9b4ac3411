"""`miniserve demo-load`: the questions that the demo asks itself, sent to a running gateway and graded.

The demo runs it as a process of its own, so that its work costs the gateway nothing. A line of JSON each second says
what has come of it; a line such as {"factor": 2} on the standard input changes how much is sent, and the input's end
(Ctrl-D) ends it, once the last answers are in.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING

from miniserve.clock import monotonic
from miniserve.commands.gateway_call import add_gateway_options, call_gateway
from miniserve.errors import SetupError

if TYPE_CHECKING:
    from miniserve.clients.demo_load import DemoLoad, GradedQuestion
    from miniserve.policies.routing.model_names import ModelRouting
    from miniserve.processes.pools import Pool

DEFAULT_RATE = 12.0  # questions per second: a third of what the three paced replicas can do
TELL_S = 1.0
MIX = {  # (task, hard): how often; both models know the easy ones, and the larger one most of the hard ones
    ("arithmetic", False): 0.25,
    ("arithmetic", True): 0.15,
    ("string", False): 0.2,
    ("string", True): 0.15,
    ("fact", False): 0.1,
    ("fact", True): 0.15,
}
RATE_HELP = f"questions per second, on average (default {DEFAULT_RATE:g})"
MODELS = {"small": 1.0, "large": 3.0}  # how often each is asked; never a model for people
AUTO_SHARE = 1.0


# --- what the demo needs of it -----------------------------------------------------------------------------------


def add_load_options(parser: argparse.ArgumentParser) -> None:
    """Add --no-load and --load-rate."""
    which = parser.add_mutually_exclusive_group()
    about = "send no questions of its own: otherwise the demo without --model and --pool asks its paced replicas"
    which.add_argument("--no-load", action="store_true", help=about)
    which.add_argument("--load-rate", type=_rate, metavar="N", help=f"{RATE_HELP}; goes to paced small and large only")


def load_command(
    args: argparse.Namespace, pools: Sequence[Pool], routing: ModelRouting, *, by_itself: bool
) -> list[str] | None:
    """Return the command that sends the load, without the URL that follows; None: none is sent.

    `by_itself`: whether there is a load if the person does not ask for one. Raises: SetupError.
    """
    if args.no_load or not (by_itself or args.load_rate):
        return None
    paced = {pool.name for pool in pools if pool.pace is not None}
    asked = {name: share for name, share in MODELS.items() if name in paced}
    if not asked:
        raise SetupError(
            "--load-rate: the load goes to paced replicas of small or large; start some, as with "
            "--pool large,replicas=2,pace=default"
        )
    if "auto" in routing.by_question and len(asked) == len(MODELS):
        asked["auto"] = AUTO_SHARE
    shares = [word for name, share in asked.items() for word in ("--ask", f"{name}={share:g}")]
    rate = ("--load-rate", str(args.load_rate or DEFAULT_RATE))
    return [sys.executable, "-m", "miniserve", "demo-load", *rate, *shares, "--url"]


def _rate(text: str) -> float:
    """Parse a rate for argparse."""
    rate = float(text)
    if not 0 < rate <= 200:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 200, not {text}")
    return rate


# --- the command itself ------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_gateway_options(parser)
    about = "send nothing: have the running demo send N times what it does by itself (0 to 4)"
    parser.add_argument("--times", type=float, metavar="N", help=about)
    about = "a model that is asked, and how often in relation to the others; repeatable (default large=1)"
    parser.add_argument("--ask", action="append", default=[], metavar="MODEL=SHARE", help=about)
    parser.add_argument("--load-rate", type=_rate, default=DEFAULT_RATE, metavar="N", help=RATE_HELP)
    parser.add_argument("--seed", type=int, help="of the questions and their times (default: another one each time)")


def run(args: argparse.Namespace) -> int:
    """Send until the standard input ends; or turn the running demo's dial."""
    from miniserve.clients.demo_load import DemoLoad

    if args.times is not None:
        told = call_gateway(args, "POST", "/admin/load", {"factor": args.times})
        print(f"the demo's load is {told['factor']:g} times what it was at first")
        return 0
    rng = Random(args.seed)
    load = DemoLoad(args.url, _models(args.ask), _questions(rng), monotonic, rng, mean_per_s=args.load_rate)
    asyncio.run(_run(load))
    return 0


def _models(texts: list[str]) -> dict[str, float]:
    """Return the share of each model. Raises: SetupError."""
    shares: dict[str, float] = {}
    for text in texts or ["large=1"]:
        name, _, number = text.partition("=")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not name or not 0 < share < 1e6:
            raise SetupError(f"--ask {text}: give a model and a number above 0, as in large=2")
        shares[name] = share
    return shares


def _questions(rng: Random) -> Iterator[GradedQuestion]:
    """Yield questions that no shipped model was trained on."""
    from miniserve.clients.demo_load import GradedQuestion
    from miniserve.training.tasks import draw

    kinds, shares = list(MIX), list(MIX.values())
    while True:
        ((task, hard),) = rng.choices(kinds, shares)
        item = draw(rng, task, hard, held_out=True)
        yield GradedQuestion(item.task, item.question, item.answer)


async def _run(load: DemoLoad) -> None:
    loop = asyncio.get_running_loop()
    threading.Thread(target=_listen, args=(load, loop), daemon=True).start()  # a file cannot be read asynchronously
    telling = asyncio.create_task(_tell(load))
    try:
        await load.run()
    finally:
        telling.cancel()
    _say_counts(load)


def _listen(load: DemoLoad, loop: asyncio.AbstractEventLoop) -> None:
    """Carry out what comes on the standard input, and stop the load at its end. Runs in a thread.

    Reads the descriptor itself: a thread that waits inside `sys.stdin` would hold its lock when the program ends.
    """
    left = b""
    while chunk := os.read(0, 4096):
        *lines, left = (left + chunk).split(b"\n")
        for line in lines:
            try:
                loop.call_soon_threadsafe(load.turn, float(json.loads(line)["factor"]))
            except (ValueError, LookupError, TypeError):
                print(f"this is no factor: {line[:100]!r}", file=sys.stderr, flush=True)
    loop.call_soon_threadsafe(load.stop.set)


async def _tell(load: DemoLoad) -> None:
    while True:
        await asyncio.sleep(TELL_S)
        _say_counts(load)


def _say_counts(load: DemoLoad) -> None:
    print(json.dumps(load.counts.as_json()), flush=True)
