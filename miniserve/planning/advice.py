"""Which hardware, and how much of it, for what a scenario's run has shown: right-sizing by averages, as a table.

The lengths and the share of cached tokens are the run's own; the rate is the highest of the scenario's curve. See
`hardware.rightsizing` for what the averages leave out: try the advice by simulating it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rich.table import Table

from miniserve.errors import SetupError
from miniserve.hardware.prices import load_price_list
from miniserve.hardware.rightsizing import Advice, MeanLoad, SpeedTarget, Unfit, cheapest
from miniserve.observe.outcomes import Outcomes
from miniserve.planning.sizing import peak_per_s, version_shares
from miniserve.scenario.model import Scenario

_LEAST_PER_S = 1e-6  # a version that gets no requests is sized for next to none


@dataclass(frozen=True, slots=True)
class FleetAdvice:
    """What each hardware type would take for one model; `best` None: none of them keeps the goals."""

    model: str
    load: MeanLoad
    goals: SpeedTarget
    best: Advice | None
    answers: tuple[Advice | Unfit, ...]


def fleet_advice(scenario: Scenario, outcomes: Outcomes) -> tuple[FleetAdvice, ...]:
    """Return the advice for each model of the fleet. Raises: SetupError where there is nothing to go by."""
    served, fleet = outcomes.served, scenario.fleet
    if fleet is None or not served.any():
        raise SetupError("no advice: it needs a run in which requests were answered")
    prompt, cached = float(outcomes.prompt_tokens[served].mean()), float(outcomes.cached_tokens[served].mean())
    output, shares = float(outcomes.output_tokens[served].mean()), version_shares(scenario)
    goals = SpeedTarget(scenario.slo.ttft_s or math.inf, scenario.slo.tpot_s or math.inf)
    prices, found = load_price_list(), dict[tuple[str, str], FleetAdvice]()
    for group in fleet.replicas:
        name = group.model or fleet.model
        if group.hardware is None or (name, group.version) in found:
            continue
        model = prices.model(name)
        if (size := scenario.engine.bytes_per_weight) is not None:
            model = replace(model, bytes_per_weight=size)
        rate_per_s = max(_LEAST_PER_S, peak_per_s(scenario) * shares.get(group.version, 0.0))
        load = MeanLoad(rate_per_s, max(1.0, prompt), max(1.0, output), min(cached / prompt, 0.999))
        machines = [replace(each, scheduler=scenario.engine.scheduler) for each in prices.hardware.values()]
        found[name, group.version] = FleetAdvice(name, load, goals, *cheapest(machines, model, load, goals))
    if not found:
        raise SetupError("no advice: the fleet's groups have step times of their own and no hardware with a price")
    return tuple(found.values())


def advice_table(advice: FleetAdvice) -> Table:
    """Return all answers, the best one marked."""
    load, goals = advice.load, advice.goals
    limits = (("TTFT", goals.ttft_s), ("TPOT", goals.tpot_s))
    kept = ", ".join(f"mean {name} <= {limit:g} s" for name, limit in limits if limit < math.inf)
    title = (
        f"{advice.model} at {load.requests_per_s:.3g} requests/s of {load.prompt_tokens:,.0f} + "
        f"{load.output_tokens:,.0f} tokens, {load.cached_fraction:.0%} of the prompts cached; {kept or 'no goals'}"
    )
    table = Table(title=title, caption="by averages, 30 % of the capacity kept free; * is the cheapest")
    table.add_column("hardware", no_wrap=True)
    for heading in ("replicas", "each (1/s)", "TTFT (s)", "TPOT (s)", "USD/h"):
        table.add_column(heading, justify="right")
    table.add_column("limited by")
    for answer in advice.answers:
        if isinstance(answer, Unfit):
            table.add_row(answer.hardware, *("-",) * 5, answer.why)
            continue
        mark = " *" if answer is advice.best else ""
        cells = (f"{answer.replicas:,}", f"{answer.requests_per_s_each:.3g}", f"{answer.ttft_s:.3f}")
        table.add_row(
            answer.hardware + mark, *cells, f"{answer.tpot_s:.4f}", f"{answer.usd_per_hour:,.2f}", answer.limited_by
        )
    return table
