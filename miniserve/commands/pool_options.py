"""The options that say which replicas the demo starts, how fast they are made to be, and how many there may be."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from miniserve.commands.backend_options import vllm_engine
from miniserve.commands.options import at_least_one, engine_arguments, say, served_name
from miniserve.errors import SetupError, WeightsError

if TYPE_CHECKING:
    from miniserve.policies.routing.model_names import ModelRouting
    from miniserve.processes.pools import Pool
    from miniserve.processes.stack import Scaling
    from miniserve.scenario.model import Autoscaling

MOST_REPLICAS = 4  # of a scaled pool, unless --max-replicas says more: this is one machine
PEOPLE_NICE = 5  # of the replica that serves people, beside paced ones: they must keep their pace
DEMO_PACE = "base_s=0.025,per_decode_row_s=0.001,per_prefill_token_s=0.004"  # about 13 of the demo's questions a second
DEMO_AUTOSCALER = (  # in flight for each replica: 1 to 2 under the demo's own load, 5 when that is doubled
    ("autoscaler.policy", '{kind = "target-tracking", target = 3, look_back_s = 15}'),
    ("autoscaler.period_s", "5"),
    ("autoscaler.min_replicas", "2"),
    ("autoscaler.max_replicas", "3"),
    ("autoscaler.down_after_s", "60"),
)
_KEYS = ("replicas", "pace", "region", "weight", "nice")


def add_pool_options(parser: argparse.ArgumentParser) -> None:
    """Add --replicas, --pool, --pace, --region, the autoscaler's bounds, --latency, --measured-weights."""
    about = "replica processes (default 2, with --once or --engine vllm 1, with --backend none)"
    parser.add_argument("--replicas", type=at_least_one, help=about)
    parser.add_argument(
        "--pool",
        action="append",
        default=[],
        metavar="MODEL[,KEY=VALUE...]",
        dest="pools",
        help="serve another model or version beside --model, such as small,replicas=2 or large@2,pace=default; "
        f"repeatable; keys: {', '.join(_KEYS)}",
    )
    parser.add_argument(
        "--pace",
        nargs="?",
        const="default",
        metavar="SPEC",
        help="let each step of --model's replicas last as long as a step-time model says: default (25 ms + 1 ms per "
        "running sequence), or base_s=0.025,per_decode_row_s=0.001,...",
    )
    parser.add_argument("--region", default="", help="where --model's replicas are, for routers and --latency")
    for least in ("min", "max"):
        about = f"{least}imum number of replicas in the pool that --autoscaler scales"
        parser.add_argument(f"--{least}-replicas", type=at_least_one, metavar="N", help=about)
    about = "let all pools keep their size (without --model and --pool, the demo keeps 2 to 3 replicas of large)"
    parser.add_argument("--no-autoscaler", action="store_true", help=about)
    parser.add_argument(
        "--latency",
        action="append",
        default=[],
        metavar="REGION:REGION=S",
        help="how far two regions are from each other, one way in seconds; repeatable",
    )
    parser.add_argument(
        "--measured-weights",
        action="store_true",
        help="weigh replicas by their measured speed, for --balancer weighted",
    )


def demo_pools(args: argparse.Namespace, folder: Path, more: Sequence[str] = ()) -> list[Pool]:
    """Return the pools that the options describe, the one of --model first. `more`: options for each replica.

    Raises: SetupError for a key or a value that is none; WeightsError for a model that is not there.
    """
    from miniserve.processes.pools import Pool

    _check_pace(args.pace)
    if args.says_nothing and fits(default_pools(args.model, folder)):
        pools = default_pools(args.model, folder)
    else:
        count = args.replicas or _usual_count(args)
        name, _, version = served_name(args).partition("@")
        prefix, vllm = "" if args.pools else "r", vllm_engine(args)
        main = Pool(name, folder, version, count, args.pace, args.region, prefix=prefix, vllm=vllm)
        pools = [main, *(pool for text in args.pools if (pool := _read_pool(text, args)) is not None)]
    names = [pool.served_name for pool in pools]
    if len(set(names)) < len(names):
        raise SetupError(f"--pool: two pools serve {next(one for one in names if names.count(one) > 1)}; give it once")
    threads = _threads_per_replica(sum(pool.replicas for pool in pools))
    arguments = ("--offline", *engine_arguments(args), "--threads", str(threads), *more)
    return [replace(pool, arguments=arguments) for pool in pools]


def _usual_count(args: argparse.Namespace) -> int:
    """Return how many replicas are started if the person does not say: none beside backends, one vLLM."""
    if args.backends:
        return 0
    return 2 if args.once is None and args.engine == "miniserve" else 1


def default_pools(model: str, folder: Path) -> list[Pool]:
    """Return what the demo starts when nothing is said: a model for people, and two small ones to try policies on.

    The small ones are paced, so that another replica, or one that fails, changes what the fleet can do: otherwise all
    would share the same cores. The model for people gives way to them.
    """
    from miniserve.models.store import resolve_model
    from miniserve.processes.pools import Pool

    small, large = (resolve_model(name, Path(), offline=True) for name in ("small", "large"))
    paced = [Pool("small", small, "1", 1, DEMO_PACE), Pool("large", large, "1", 2, DEMO_PACE)]
    return paced[::-1] if model == "large" else [Pool(model, folder, nice=PEOPLE_NICE), *paced]


def demo_autoscaling(args: argparse.Namespace, said: Autoscaling | None, *, by_itself: bool) -> Autoscaling | None:
    """Return the autoscaler that was asked for; without one, the demo's own if it has one `by_itself`."""
    from miniserve.scenario.live import read_live
    from miniserve.toml.source import Setting

    if args.no_autoscaler:
        return None
    if said is not None or not by_itself:
        return said
    group = ("autoscaler.group", '"large@1"')
    return read_live(None, [Setting.parse(f"{key}={value}") for key, value in (group, *DEMO_AUTOSCALER)]).autoscaling


def demo_scaling(args: argparse.Namespace, autoscaling: Autoscaling | None, pools: Sequence[Pool]) -> list[Scaling]:
    """Return who changes the size of which pool: `autoscaler.group`, or the largest paced pool, or just the largest.

    Raises: SetupError for bounds that exclude each other, or a pool that is not there.
    """
    from miniserve.processes.stack import Scaling

    least, most = args.min_replicas, args.max_replicas
    if autoscaling is None:
        if (least, most) != (None, None):
            raise SetupError(
                "--min-replicas and --max-replicas are bounds of an autoscaler: name one with --autoscaler"
            )
        return []
    largest = max(pools, key=lambda pool: (pool.pace is not None, pool.replicas))
    name = autoscaling.group or largest.served_name
    if name not in [pool.served_name for pool in pools]:
        there = ", ".join(pool.served_name for pool in pools)
        raise SetupError(f"autoscaler.group: there is no pool {name!r}; there are {there}")
    bounded = replace(
        autoscaling,
        min_replicas=autoscaling.min_replicas if least is None else least,
        max_replicas=min(autoscaling.max_replicas, MOST_REPLICAS) if most is None else most,
    )
    return [Scaling(bounded.build(seed=0), name, autoscaling.period_s)]


def _read_pool(text: str, args: argparse.Namespace) -> Pool | None:
    """Return the pool that `text` describes; None, and say so, if its model cannot be used: others can be served."""
    from miniserve.models.store import resolve_model
    from miniserve.processes.pools import Pool

    model, *settings = text.split(",")
    values: dict[str, str] = {}
    for setting in settings:
        key, is_there, value = setting.partition("=")
        if not is_there or key not in _KEYS:
            raise SetupError(f"--pool {text}: {setting!r} is no setting; allowed: {', '.join(_KEYS)}, as KEY=VALUE")
        values[key] = value
    try:
        folder = resolve_model(model, args.cache, offline=args.offline, report=say)
    except WeightsError as error:
        say(f"miniserve: {error}; continuing without {model}")
        return None
    name, _, version = Path(model).name.removesuffix(".gguf").partition("@")
    pace = values.get("pace", "").replace("+", ",") or None  # within a pool, commas are taken
    _check_pace(pace)
    try:
        counts = int(values.get("replicas", "1")), float(values.get("weight", "1")), int(values.get("nice", "0"))
    except ValueError as error:
        raise SetupError(f"--pool {text}: {error}") from None
    return Pool(name, folder, version, counts[0], pace, values.get("region", ""), counts[1], counts[2])


def _check_pace(pace: str | None) -> None:
    """Raises: SetupError now, rather than in each replica."""
    from miniserve.replica.pace import parse_pace

    if pace is not None:
        parse_pace(pace)


def read_latencies(texts: Sequence[str]) -> Mapping[tuple[str, str], float]:
    """Return the distances that --latency gives. Raises: SetupError."""
    found: dict[tuple[str, str], float] = {}
    for text in texts:
        pair, _, number = text.partition("=")
        one, _, other = pair.partition(":")
        try:
            seconds = float(number)
        except ValueError:
            seconds = -1.0
        if not one or not other or not 0 <= seconds <= 10:
            raise SetupError(f"--latency {text}: give two regions and 0 to 10 seconds, as in eu:us=0.04")
        found[one, other] = seconds
    return found


def _threads_per_replica(replicas: int) -> int:
    """Give each replica its share of the cores: more threads than free cores make small products 10x slower."""
    from miniserve.machine import usable_cores

    return max(1, usable_cores() // max(1, replicas))


def fits(pools: Sequence[Pool]) -> bool:
    """Say whether all replicas fit into memory; tell the person what does not, and what happens instead."""
    try:
        require_memory_for(pools)
    except SetupError as error:
        say(f"miniserve: {error}; starting {pools[0].served_name} alone")
        return False
    return True


def require_memory_for(pools: Sequence[Pool]) -> None:
    """Raises: SetupError if the replicas of all pools together do not fit into memory."""
    from miniserve.machine import available_bytes
    from miniserve.processes.memory import require_memory

    available = available_bytes()
    for pool in pools:
        if pool.replicas and pool.vllm is None:  # vLLM has limits of its own
            need = pool.need()
            require_memory(need, pool.replicas, available)
            available = None if available is None else available - need.total * pool.replicas


def demo_routing(args: argparse.Namespace, pools: Sequence[Pool]) -> ModelRouting:
    """Return what models are called. Where nothing is said, `auto` is the small or the large one, by the question."""
    from miniserve.scenario.models import ModelRule, model_routing

    said: ModelRouting = args.live.routing
    if any((said.aliases, said.by_question, said.cascades, said.deprecated)):
        return said
    both = {"small", "large"} <= {pool.name for pool in pools}
    return model_routing({"auto": ModelRule("learned", "small", "large")} if both else {}, {})
