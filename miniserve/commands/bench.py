"""`miniserve bench`: measure this machine, side by side with peers, and record the results."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miniserve.commands.options import add_model_options, at_least_one
from miniserve.errors import SetupError

PROSE = Path(__file__).parents[2] / "data" / "eval" / "prose.txt"
WHAT = ("engine", "quant", "steps", "stack", "overhead", "race", "profile", "sim", "calibrate", "autoscale", "levers")
_WITHOUT_A_MODEL = {"sim", "autoscale", "levers", "overhead"}
SIM_REQUESTS = (10_000, 100_000, 1_000_000)
_RECORDS = {"calibrate": "calibration"}  # the names of records that differ from their benchmark's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_model_options(parser)
    parser.add_argument("what", nargs="*", help=f"what to measure: {', '.join(WHAT)} (default: all)")
    parser.add_argument("--repeats", type=at_least_one, default=3, help="runs of each figure (default %(default)s)")
    parser.add_argument("--threads", type=at_least_one, help="for the engine and its peers (default: all usable cores)")
    parser.add_argument(
        "--requests", type=at_least_one, default=1000, help="for stack and calibrate (default %(default)s)"
    )
    parser.add_argument(
        "--sim-requests",
        type=at_least_one,
        nargs="+",
        metavar="N",
        default=SIM_REQUESTS,
        help="sizes at which the simulator is timed (default: 10 thousand, 100 thousand, a million)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("data/results"),
        metavar="DIR",
        help="where the record goes (default %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the chosen benchmarks one after another."""
    unknown = sorted(set(args.what) - set(WHAT))
    if unknown:
        raise SetupError(f"bench does not know {', '.join(unknown)}: choose from {', '.join(WHAT)}")
    from rich.console import Console

    from miniserve.bench.record import save_record
    from miniserve.models.store import resolve_model

    console = Console()
    console.print("Stop other work first: another busy process makes small matrix products several times slower.")
    chosen = args.what or WHAT
    folder = resolve_model(args.model, args.cache, offline=args.offline) if set(chosen) - _WITHOUT_A_MODEL else Path()
    for what in chosen:
        result = _BENCHES[what](args, folder, console)
        console.print(f"recorded in {save_record(_RECORDS.get(what, what), result, args.out)}")
    return 0


def _engine(args: argparse.Namespace, folder: Path, console: Any) -> dict[str, Any]:
    from miniserve.bench.engine import bench_engine, engine_table

    try:
        result = bench_engine(folder, _threads(args), args.repeats, args.seed, console)
    except ModuleNotFoundError as error:
        raise SetupError(f"{error}: the peer comes with the extra `test` (pip install -e '.[test]')") from None
    console.print(engine_table(result))
    return result


def _stack(args: argparse.Namespace, folder: Path, console: Any) -> dict[str, Any]:
    from miniserve.bench.stack import bench_memory, bench_start, stack_table

    console.print("starting and stopping the stack several times ...")
    result = bench_start(folder, args.repeats)
    result |= asyncio.run(bench_memory(folder, args.requests, streams=8, console=console))
    console.print(stack_table(result))
    return result


def _overhead(args: argparse.Namespace, folder: Path, console: Any) -> dict[str, Any]:
    from miniserve.bench.overhead import MODEL, bench_overhead, overhead_table
    from miniserve.models.store import resolve_model

    small = resolve_model(MODEL, args.cache, offline=True)
    result = asyncio.run(bench_overhead(small, 2 * args.repeats, console))
    console.print(overhead_table(result))
    return result


def _quant(args: argparse.Namespace, folder: Path, console: Any) -> dict[str, Any]:
    from miniserve.bench.quant import bench_quant, quant_table

    result = bench_quant(folder, PROSE, _threads(args), console)
    console.print(quant_table(result))
    return result


def _steps(args: argparse.Namespace, folder: Path, console: Any) -> dict[str, Any]:
    from dataclasses import asdict

    from miniserve.bench.steps import bench_steps, steps_table

    model, result = bench_steps(folder, "fp16", _threads(args), args.seed, console)
    console.print(steps_table(model, result))
    model.save(args.out / f"step_time-{folder.name}.json")  # the price list reads data/step_time: yours by copying only
    return result | {"fit": asdict(model)}


def _race(args: argparse.Namespace, folder: Path, console: Any) -> dict[str, Any]:
    from miniserve.bench.race import race_table, run_race

    vllm_bin = os.environ.get("VLLM_BIN")
    if not vllm_bin:
        console.print("racing without vLLM: set VLLM_BIN to the `vllm` program of an environment that has it")
    result = run_race(folder, vllm_bin, _threads(args), args.repeats, args.seed, console)
    console.print(race_table(result))
    return result


def _profile(args: argparse.Namespace, folder: Path, console: Any) -> dict[str, Any]:
    from miniserve.bench.profile import bench_profile, profile_table

    result = bench_profile(folder, _threads(args), console)
    console.print(profile_table(result))
    return result


def _calibrate(args: argparse.Namespace, folder: Path, console: Any) -> dict[str, Any]:
    from miniserve.bench.calibrate import bench_calibrate, calibrate_table

    console.print("one request takes about half a second on a CPU, so a thousand of them take a quarter of an hour ...")
    result = bench_calibrate(folder, "fp16", args.threads or 1, args.requests, args.seed, console)
    console.print(calibrate_table(result))
    return result


def _sim(args: argparse.Namespace, folder: Path, console: Any) -> dict[str, Any]:
    from miniserve.bench.sim import bench_sim, sim_table

    console.print("a million requests take three to five minutes, so the usual sizes take a quarter of an hour ...")
    result = bench_sim(args.sim_requests, args.seed, console)
    console.print(sim_table(result))
    return result


def _autoscale(args: argparse.Namespace, folder: Path, console: Any) -> dict[str, Any]:
    from miniserve.bench.autoscale import DEMANDS, autoscale_table, bench_autoscale

    console.print("two days of demand for each autoscaler, and more: about 10 minutes on 2 cores ...")
    result = bench_autoscale(list(DEMANDS), range(args.seed, args.seed + args.repeats), console)
    console.print(autoscale_table(result))
    return result


def _levers(args: argparse.Namespace, folder: Path, console: Any) -> dict[str, Any]:
    from miniserve.bench.levers import bench_levers, levers_table

    console.print("pricing thirty fleets, each by several simulations: a quarter of an hour ...")
    result = bench_levers(args.seed, console)
    console.print(levers_table(result))
    for name, assumes in result["assumes"].items():
        console.print(f"{name}: {assumes}", markup=False, highlight=False)
    return result


def _threads(args: argparse.Namespace) -> int:
    from miniserve.machine import usable_cores

    threads: int = args.threads or usable_cores()
    return threads


_BENCHES: dict[str, Callable[[argparse.Namespace, Path, Any], dict[str, Any]]] = {
    "engine": _engine,
    "quant": _quant,
    "steps": _steps,
    "stack": _stack,
    "overhead": _overhead,
    "race": _race,
    "profile": _profile,
    "sim": _sim,
    "levers": _levers,
    "calibrate": _calibrate,
    "autoscale": _autoscale,
}
