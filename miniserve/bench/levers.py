"""What does each lever save? By itself, added to the ones before it, and removed from the whole stack.

The three prices differ: a lever that halves the cost of an idle machine saves nothing on a busy one, and two levers
that save the same second do not save it twice. Every price is that of the smallest fleet that keeps the SLO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from miniserve.observe.goodput import attainment
from miniserve.planning.levers import (
    Assumptions,
    Lever,
    Scores,
    levers,
    pulled,
    quality,
    recorded_quantization,
    recorded_scores,
)
from miniserve.planning.sizing import Sized, check_scenario, smallest_fleet
from miniserve.scenario import load
from miniserve.scenario.model import Scenario

SCENARIO = Path(__file__).resolve().parents[2] / "data" / "scenarios" / "levers.toml"
TARGET = 0.99  # share of requests within the SLO
NOTHING = 0.01  # a saving below this share of the cost counts as none


@dataclass(frozen=True, slots=True)
class LeverCase:
    """A named set of levers to pull."""

    name: str
    chosen: tuple[Lever, ...]


def cases(known: tuple[Lever, ...]) -> dict[str, list[LeverCase]]:
    """Return what to price: no lever, each alone, one more at a time, and all but one."""
    return {
        "base": [LeverCase("nothing pulled", ())],
        "alone": [LeverCase(lever.name, (lever,)) for lever in known],
        "stacked": [LeverCase(known[i].name, known[: i + 1]) for i in range(len(known))],
        "all but": [LeverCase(lever.name, tuple(each for each in known if each is not lever)) for lever in known],
    }


def bench_levers(seed: int, console: Console, path: Path = SCENARIO) -> dict[str, Any]:
    """Price every case on one seed. Raises: SetupError if the scenario's fleet cannot be sized."""
    scenario = load(path)
    check_scenario(scenario)
    assumptions = Assumptions(recorded_scores(), recorded_quantization())
    known = levers(assumptions)
    todo = [(kind, case) for kind, of_kind in cases(known).items() for case in of_kind]
    rows: dict[str, dict[str, Any]] = {kind: {} for kind, _ in todo}
    priced: dict[tuple[str, ...], dict[str, Any]] = {}  # the first of the stack also stands alone
    for kind, case in track(todo, "fleets", console=console):
        key = tuple(lever.name for lever in case.chosen)
        if key not in priced:
            priced[key] = price(pulled(scenario, case.chosen), seed, assumptions.scores)
        rows[kind][case.name] = priced[key]
    return {
        "scenario": path.name,
        "seed": seed,
        "target": TARGET,
        "slo": str(scenario.slo),
        "assumes": {lever.name: lever.assumes for lever in known},
        "findings": findings(rows),
        **rows,
    }


def price(scenario: Scenario, seed: int, scores: Scores) -> dict[str, Any]:
    """Return the cost and performance of the smallest fleet for `scenario`."""
    sized = smallest_fleet(scenario, seed, TARGET)
    ledger, outcomes = sized.result.ledger, sized.result.outcomes
    assert ledger is not None
    served = outcomes.where(outcomes.served)
    usd = ledger.usd
    return {
        "fleet": fleet_of(sized),
        "usd": round(usd, 4),
        "usd_per_1000_requests": round(usd / len(served) * 1000, 4),
        "usd_per_million_tokens": round(usd / int(served.output_tokens.sum()) * 1e6, 4),
        "idle_fraction": round(ledger.of_account("idle", "starting") / usd, 4),
        "slo_attainment": round(attainment(outcomes, scenario.slo), 4),
        "kept": sized.kept,
        "quality": round(quality(scenario, scores), 4),
        "requests": len(outcomes),
        "failed": int(len(outcomes) - len(served)),
    }


def fleet_of(sized: Sized) -> str:
    """Describe the fleet: `5 a100-80gb large + 1 l4 small`, noting what is autoscaled or spot."""
    assert sized.scenario.fleet is not None
    parts = []
    for i, (group, count) in enumerate(zip(sized.scenario.fleet.replicas, sized.counts, strict=True)):
        scaled = "up to " if i == 0 and sized.autoscaled else ""
        parts.append(f"{scaled}{count} {group.hardware}{' spot' if group.spot else ''} {group.name}")
    return " + ".join(parts)


def findings(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return what saved nothing, and by how much the single levers' savings fail to add up."""
    base = rows["base"]["nothing pulled"]["usd"]
    alone = {name: 1 - row["usd"] / base for name, row in rows["alone"].items()}
    steps = [base, *(row["usd"] for row in rows["stacked"].values())]
    last = steps[-1]
    without = {name: row["usd"] / last - 1 for name, row in rows["all but"].items()}
    product = 1.0
    for saving in alone.values():
        product *= 1 - saving
    return {
        "alone_saves": {name: round(saving, 4) for name, saving in alone.items()},
        "all_save": round(1 - last / base, 4),
        "sum_of_alone": round(sum(alone.values()), 4),
        "if_alone_multiplied": round(1 - product, 4),
        "missing_costs": {name: round(more, 4) for name, more in without.items()},
        "saves_nothing_alone": [name for name, saving in alone.items() if saving < NOTHING],
        "saves_nothing_in_the_stack": [name for name, more in without.items() if more < NOTHING],
    }


def levers_table(result: Mapping[str, Any]) -> Table:
    """Return all levers as a rich table; costs are USD per 1,000 requests."""
    found = result["findings"]
    title = f"USD per 1,000 requests, smallest fleet with {result['target']:.0%} within {result['slo']}"
    table = Table(title=title, caption=_caption(found), caption_justify="left")
    table.add_column("lever")
    for heading in ("alone", "saves", "stacked", "per M tokens", "SLO", "right", "without it"):
        table.add_column(heading, justify="right")
    table.add_column("fleet, stacked")
    base = result["base"]["nothing pulled"]
    table.add_row("(none)", _usd(base), "", _usd(base), *_shared(base), "", base["fleet"])
    for name, row in result["stacked"].items():
        alone, saves, more = result["alone"][name], found["alone_saves"][name], found["missing_costs"][name]
        table.add_row(name, _usd(alone), f"{saves:.0%}", _usd(row), *_shared(row), f"{more:+.0%}", row["fleet"])
    return table


def _usd(row: Mapping[str, Any]) -> str:
    return f"{row['usd_per_1000_requests']:.3f}" + ("" if row["kept"] else " (SLO missed)")


def _shared(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return f"{row['usd_per_million_tokens']:.2f}", f"{row['slo_attainment']:.1%}", f"{row['quality']:.1%}"


def _caption(found: Mapping[str, Any]) -> str:
    def names(which: str) -> str:
        return ", ".join(found[which]) or "none"

    return (
        f"together they save {found['all_save']:.1%}; the savings of each alone add up to {found['sum_of_alone']:.0%}\n"
        "fleets are whole machines: a lever that saves less than one of them saves nothing\n"
        f"saves nothing alone: {names('saves_nothing_alone')}\n"
        f"saves nothing in the stack (without it the rest costs no more): {names('saves_nothing_in_the_stack')}"
    )
