"""Autoscalers on the same demand, compared with an oracle: SLO, late requests, replica-hours, changes of direction.

The fleet and the autoscalers are those of `data/scenarios/autoscale.toml`, one per variant; the demands are below. Only
part of each counts: of the days, the second and later ones, so that a forecast has already seen one. Replica-hours
cover that part, and so do the oracle's (`planning.clairvoyant`).

`CAPACITY_PER_S` is measured: for each number of replicas, the highest steady rate at which they keep the SLO for 99 %
of requests, by bisection with 20,000 requests per try (`capacity_per_s`); for 2 and 3 replicas, where seeds differ by 4
to 7 %, a value between the results of two seeds. A full test checks the figures against the simulator. The minimum is
two replicas, for the autoscalers as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from miniserve.machine import usable_cores
from miniserve.observe.goodput import attainment, kept
from miniserve.planning.clairvoyant import MINUTE_S, hours, minutes_of, plan
from miniserve.scenario import Scenario, load, variants
from miniserve.seeds import generator
from miniserve.sim.result import SimResult
from miniserve.sim.run import simulate
from miniserve.toml.source import Setting
from miniserve.workload.rates import realised

SCENARIO = Path(__file__).parents[2] / "data" / "scenarios" / "autoscale.toml"
CAPACITY_PER_S = {2: 0.54, 3: 0.87, 4: 1.18, 6: 1.85, 8: 2.52, 12: 3.92}
DAY_S = 86_400.0
_PAID = ("replicas", "replicas_starting", "replicas_draining")
FLAPPING_S = 600.0  # more than one change of direction within this time at steady load is flapping


@dataclass(frozen=True, slots=True)
class Demand:
    """Arrivals as written in a scenario file, how long they last, and from when on they count."""

    arrivals: str
    duration_s: float
    from_s: float = 0.0


_DAY = "kind = 'diurnal', rate_per_s = 1.31, night_to_peak = 0.2, noise_cv = 0.15, noise_s = 300"
DEMANDS: dict[str, Demand] = {
    # 5x between night and peak, and every five minutes a new factor of mean 1 and deviation 0.15
    "days": Demand(f"{{ {_DAY} }}", 2 * DAY_S, DAY_S),
    "ramp": Demand("{ kind = 'piecewise', points = [[0, 0.5], [1200, 0.5], [3000, 2.5], [4800, 2.5]] }", 4800),
    "steep ramp": Demand("{ kind = 'piecewise', points = [[0, 0.5], [1200, 0.5], [1800, 2.5], [4800, 2.5]] }", 4800),
    "spike": Demand(
        "{ kind = 'spikes', base = { kind = 'poisson', rate_per_s = 1.2 }, "
        "spikes = [{ at_s = 1800, duration_s = 1200, factor = 2 }] }",
        4800,
    ),
    "steady": Demand("{ kind = 'poisson', rate_per_s = 1.2 }", 4 * 3600, 600),
}


def bench_autoscale(demands: Sequence[str], seeds: Sequence[int], console: Console) -> dict[str, Any]:
    """Return one row for each demand, autoscaler and seed; multi-day demands run only on the first seed."""
    todo = [
        (demand, variant, seed)
        for demand in demands
        for variant in variants(SCENARIO)
        for seed in (seeds if DEMANDS[demand].duration_s < DAY_S else seeds[:1])
    ]
    rows = []
    with ProcessPoolExecutor(min(usable_cores(), len(todo)), get_context("spawn")) as processes:
        for row in processes.map(measure, *zip(*todo, strict=True)):
            console.print(f"{row['demand']}, {row['autoscaler']}, seed {row['seed']}: {row['attainment']:.2%}")
            rows.append(row)
    told = {name: DEMANDS[name].arrivals for name in demands}
    return {"capacity_per_s": CAPACITY_PER_S, "demands": told, "rows": rows}


def measure(demand: str, variant: str, seed: int) -> dict[str, Any]:
    """Run one autoscaler on one demand."""
    over = DEMANDS[demand]
    scenario = scenario_of(over, variant)
    result = simulate(scenario, seed)
    counted = result.outcomes.arrived_between(over.from_s, over.duration_s)
    paid = replica_hours(result, over.from_s, over.duration_s)
    ideal = clairvoyant_hours(scenario, seed, over)
    changes = direction_changes(result)
    return {
        "demand": demand,
        "autoscaler": variant,
        "seed": seed,
        "requests": len(counted),
        "attainment": attainment(counted, result.slo),
        "late": int((~kept(counted, result.slo)).sum()),
        "unanswered": int((~result.outcomes.served).sum()),
        "replica_hours": paid,
        "clairvoyant_hours": ideal,
        "ratio": paid / ideal,
        "turns": len(changes),
        "most_turns": most_within(changes, FLAPPING_S),
        "stopped": result.stopped,
    }


def scenario_of(demand: Demand, variant: str | None, *more: str) -> Scenario:
    """Return the shipped scenario with this autoscaler and demand, and `more` settings."""
    settings = (f"workload.arrivals={demand.arrivals}", f"run.duration_s={demand.duration_s}", *more)
    return load(SCENARIO, variant=variant, settings=[Setting.parse(text) for text in settings])


def clairvoyant_hours(scenario: Scenario, seed: int, demand: Demand) -> float:
    """Return the replica-hours of an oracle that knows the rates, over the part that counts."""
    arrivals: Any = scenario.workload.arrivals
    rate_at = arrivals.rate_at
    if hasattr(arrivals, "pieces"):
        rate_at = realised(arrivals, generator(seed, "arrivals"), demand.duration_s + MINUTE_S).rate_at
    assert scenario.fleet is not None
    cold_start = scenario.fleet.replicas[0].cold_start
    assert cold_start is not None
    paid = plan(minutes_of(rate_at, demand.duration_s), CAPACITY_PER_S, cold_start.nominal_s)
    return hours(paid[round(demand.from_s / MINUTE_S) :])


def capacity_per_s(replicas: int, low: float, high: float, tries: int = 5, requests: int = 20_000) -> float:
    """Return the highest rate at which `replicas` keep the SLO for 99 % of requests, between `low` and `high`."""
    for _ in range(tries):
        middle = (low + high) / 2
        if attainment_at(replicas, middle, requests) >= 0.99:
            low = middle
        else:
            high = middle
    return low


def attainment_at(replicas: int, rate_per_s: float, requests: int, seed: int = 1) -> float:
    """Return the share of requests that a fixed fleet serves within the SLO at a steady rate."""
    steady = Demand(f"{{ kind = 'poisson', rate_per_s = {rate_per_s} }}", requests / rate_per_s)
    scenario = replace(scenario_of(steady, None, f"fleet.replicas.0.count={replicas}"), autoscaler=None)
    return attainment(simulate(scenario, seed).outcomes, scenario.slo)


# --- the size of a group over time ---------------------------------------------------------------------------------


def replica_hours(result: SimResult, from_s: float, to_s: float) -> float:
    """Return the replica-hours paid for between two times: replicas that were starting, ready or draining."""
    sizes = [float(sum(each)) for each in zip(*(result.series[name][1] for name in _PAID), strict=True)]
    times = [*map(float, result.series["replicas"][0]), math.inf]
    stretches = zip(pairwise(times), sizes, strict=True)
    return sum(size * max(0.0, min(end, to_s) - max(begin, from_s)) for (begin, end), size in stretches) / 3600


def direction_changes(result: SimResult) -> list[float]:
    """Return the times at which the number of replicas, ready or starting, changed direction."""
    times, ready = result.series["replicas"]
    sizes = [a + b for a, b in zip(ready, result.series["replicas_starting"][1], strict=True)]
    steps = zip(times[1:], pairwise(sizes), strict=True)
    moves = [(float(at_s), after > before) for at_s, (before, after) in steps if after != before]
    return [at_s for (_, was_up), (at_s, is_up) in pairwise(moves) if was_up != is_up]


def most_within(times: Sequence[float], seconds: float) -> int:
    """Return the largest number of `times` within any stretch of `seconds`."""
    return max((sum(begin <= time < begin + seconds for time in times) for begin in times), default=0)


def autoscale_table(result: Mapping[str, Any]) -> Table:
    table = Table(title="autoscalers on the same demand; 1.00 = the replica-hours of an oracle that knows it")
    for heading in ("demand", "autoscaler", "seed", "TTFT kept", "late", "replica-hours", "of clairvoyant", "turns"):
        table.add_column(heading, justify="left" if heading in ("demand", "autoscaler") else "right")
    for row in result["rows"]:
        table.add_row(
            row["demand"],
            row["autoscaler"],
            str(row["seed"]),
            f"{row['attainment']:.2%}",
            f"{row['late']:,} of {row['requests']:,}",
            f"{row['replica_hours']:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['turns']} ({row['most_turns']} in 10 min)",
        )
    return table
