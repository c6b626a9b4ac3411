"""What makes answers cheaper: ten levers, each a pure transformation of a scenario, with what it assumes.

A lever changes what a scenario says and nothing else, so levers can be pulled alone, stacked in any order, or left out
of the stack. `sizing` finds what that is worth: the smallest fleet that still keeps the SLO.

The quality of both model sizes is what the project's own `large`, `small` and `small-distilled` scored (the records
`data/results/*-eval-*.json`); their speed is that of the scenario's models. No model has both: a measured difference in
quality is set beside a computed difference in cost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from miniserve.control.autoscaler import Autoscaler, TargetTracking
from miniserve.control.predictive import Predictive
from miniserve.errors import SetupError
from miniserve.hardware.prices import load_price_list
from miniserve.hardware.rightsizing import MeanLoad, SpeedTarget, cheapest
from miniserve.hardware.speculation import Speculation
from miniserve.planning.sizing import peak_per_s, version_shares
from miniserve.policies.routing.balancer import BALANCERS
from miniserve.policies.routing.router import FeatureRouter
from miniserve.scenario.model import Autoscaling, ReplicaGroup, ResponseCache, Scenario
from miniserve.toml.reader import Recipe

RESULTS = Path(__file__).resolve().parents[2] / "data" / "results"
LARGE, SMALL, DISTILLED = "large", "small", "small-distilled"
FEATURES = ("easy", "hard")

Scores = Mapping[str, Mapping[str, float]]  # model -> feature -> share of answers that are right


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Every number that a lever assumes. None is measured on this workload."""

    scores: Scores
    quantization_measured: str = ""  # what was measured, for comparison
    max_running: int = 64  # for the batching lever
    bytes_per_weight: float = 1.0  # int8
    hit_fraction: float = 0.1  # share of requests that repeat an earlier one word for word
    lost_points: float = 0.5  # how many points of accuracy routing may lose
    small_model: str = "llama-3.2-1b"
    draft: Speculation = field(default_factory=lambda: Speculation("llama-3.2-1b", 4, 0.7))


@dataclass(frozen=True, slots=True)
class Lever:
    """`assumes` says in a sentence what it assumes, and from what source."""

    name: str
    assumes: str
    pull: Callable[[Scenario], Scenario]


def recorded_scores(folder: Path = RESULTS) -> Scores:
    """Return the three models' latest recorded scores. Raises: SetupError if a record is missing or unreadable."""
    return {name: _scores(name, folder) for name in (LARGE, SMALL, DISTILLED)}


def _scores(name: str, folder: Path) -> Mapping[str, float]:
    records = sorted(folder.glob(f"????-??-??-eval-{name}.json"))
    if not records:
        raise SetupError(f"{folder} has no record of `miniserve eval --model {name}`")
    try:
        rows = json.loads(records[-1].read_text(encoding="utf-8"))["result"]["scores"]
        found = {row["difficulty"]: float(row["accuracy"]) for row in rows if row["task"] == "all"}
        return {feature: found[feature] for feature in FEATURES}
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{records[-1]} is not a record of `miniserve eval` ({error!r})") from None


def recorded_quantization(folder: Path = RESULTS) -> str:
    """Describe the latest record of `bench quant`. Raises: SetupError if it is missing or unreadable."""
    records = sorted(folder.glob("????-??-??-quant.json"))
    if not records:
        raise SetupError(f"{folder} has no record of `miniserve bench quant`")
    try:
        result = json.loads(records[-1].read_text(encoding="utf-8"))["result"]
        fp16, int8 = ({r["precision"]: r for r in result["rows"]}[name] for name in ("fp16", "int8"))
        steps = ", ".join(f"{n} rows {int8['step_ms'][n]:.1f} ms for {fp16['step_ms'][n]:.1f}" for n in ("1", "16"))
        return (
            f"Measured with {result['model']} on {result['threads']} CPU cores, int8 for fp16: {steps}; "
            f"{int8['weights_mib']} MiB for {fp16['weights_mib']}; perplexity {int8['perplexity']} for "
            f"{fp16['perplexity']}"
        )
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{records[-1]} is not a record of `miniserve bench quant` ({error!r})") from None


# --- quality -------------------------------------------------------------------------------------------------------


def quality(scenario: Scenario, scores: Scores) -> float:
    """Return the expected share of right answers, given which model answers what."""
    features = scenario.workload.features.shares
    shares: Mapping[str, Mapping[str, float]] = next(
        (one.arguments["shares"] for one in scenario.policies.routers if one.name == "feature"), {}
    )
    total = sum(features.values())
    right = 0.0
    for feature, share in features.items():
        parts = shares.get(feature, {LARGE: 1.0})
        right += share / total * sum(part * scores[model][feature] for model, part in parts.items())
    return right


def small_shares(
    features: Mapping[str, float], large: Mapping[str, float], small: Mapping[str, float], lost: float
) -> dict[str, float]:
    """Return the share of each feature's requests that the small model may take if accuracy may fall by `lost`.

    Easy ones go first, because moving them costs least. Where the small model is no worse, it gets them all.
    """
    total, shares = sum(features.values()), {}
    for feature in sorted(features, key=lambda feature: large[feature] - small[feature]):
        each = features[feature] / total * (large[feature] - small[feature])
        shares[feature] = 1.0 if each <= lost else lost / each
        lost = max(0.0, lost - shares[feature] * max(0.0, each))
    return shares


# --- the levers ----------------------------------------------------------------------------------------------------


def _batching(scenario: Scenario, max_running: int) -> Scenario:
    scheduler = replace(scenario.engine.scheduler, max_running=max_running)
    return replace(scenario, engine=replace(scenario.engine, scheduler=scheduler))


def _quantization(scenario: Scenario, bytes_per_weight: float) -> Scenario:
    return replace(scenario, engine=replace(scenario.engine, bytes_per_weight=bytes_per_weight))


def _prefix_cache(scenario: Scenario) -> Scenario:
    engine = replace(scenario.engine, cache=replace(scenario.engine.cache, prefix_caching=True))
    balancer = Recipe("prefix-affinity", BALANCERS["prefix-affinity"])
    return replace(scenario, engine=engine, policies=replace(scenario.policies, balancer=balancer))


def _response_cache(scenario: Scenario, hit_fraction: float) -> Scenario:
    return replace(scenario, response_cache=ResponseCache(hit_fraction))


def _routing(scenario: Scenario, small: str, assumptions: Assumptions) -> Scenario:
    """Add a group with the small model and give it as many requests as the quality allows."""
    fleet, scores = scenario.fleet, assumptions.scores
    assert fleet is not None
    shares = small_shares(
        scenario.workload.features.shares, scores[LARGE], scores[small], assumptions.lost_points / 100
    )
    parts = {feature: {small: share, LARGE: 1 - share} for feature, share in shares.items()}
    group = ReplicaGroup(small, hardware=fleet.replicas[0].hardware, model=assumptions.small_model, version=small)
    policies = replace(scenario.policies, router=Recipe("feature", FeatureRouter, {"shares": parts}))
    return replace(scenario, fleet=replace(fleet, replicas=(fleet.replicas[0], group)), policies=policies)


def _speculation(scenario: Scenario, speculation: Speculation) -> Scenario:
    return replace(scenario, engine=replace(scenario.engine, speculation=speculation))


def _right_sizing(scenario: Scenario) -> Scenario:
    """Give each group the cheapest hardware for its share of the peak, by averages; keep its own if none fits."""
    fleet, prices = scenario.fleet, load_price_list()
    assert fleet is not None
    shares, groups = version_shares(scenario), []
    goals = SpeedTarget(ttft_s=scenario.slo.ttft_s or float("inf"), tpot_s=scenario.slo.tpot_s or float("inf"))
    for group in fleet.replicas:
        model = prices.model(group.model or fleet.model)
        if scenario.engine.bytes_per_weight is not None:
            model = replace(model, bytes_per_weight=scenario.engine.bytes_per_weight)
        rate_per_s = max(1e-6, peak_per_s(scenario) * shares.get(group.version, 0.0))
        work = MeanLoad(rate_per_s, scenario.workload.prompt.mean_tokens, scenario.workload.output.mean_tokens)
        machines = [
            replace(each, scheduler=scenario.engine.scheduler) for each in prices.hardware.values() if not each.measured
        ]
        best, _ = cheapest(machines, model, work, goals)
        groups.append(group if best is None else replace(group, hardware=best.hardware))
    return replace(scenario, fleet=replace(fleet, replicas=tuple(groups)))


def _autoscaling(scenario: Scenario) -> Scenario:
    """Scale the first group; `sizing` fills in the rate that a replica is trusted with."""
    floor = TargetTracking(target=max(1.0, 0.6 * scenario.engine.scheduler.max_running))
    settings = {"replica_per_s": 1.0, "interval_s": 30.0, "horizon_s": 180.0, "floor": floor}
    recipe: Recipe[Autoscaler] = Recipe("predictive", Predictive, settings)
    return replace(scenario, autoscaler=Autoscaling(recipe, period_s=10.0, down_after_s=120.0))


def _spot(scenario: Scenario) -> Scenario:
    fleet = scenario.fleet
    assert fleet is not None
    groups = (replace(fleet.replicas[0], spot=True), *fleet.replicas[1:])
    return replace(scenario, fleet=replace(fleet, replicas=groups))


def levers(assumptions: Assumptions) -> tuple[Lever, ...]:
    """Return all levers, in the order in which they are stacked."""
    return (*_engine_levers(assumptions), *_model_levers(assumptions), *_fleet_levers())


def _engine_levers(a: Assumptions) -> tuple[Lever, ...]:
    return (
        Lever(
            "batching",
            f"{a.max_running} sequences per step instead of one; step times from the price list's roofline",
            partial(_batching, max_running=a.max_running),
        ),
        Lever(
            "quantization",
            "int8 weights: half the bytes to read and to keep, in the roofline; arithmetic no faster, answers as good. "
            + a.quantization_measured,
            partial(_quantization, bytes_per_weight=a.bytes_per_weight),
        ),
        Lever("prefix cache", "follow-ups go back to the replica that has their beginning", _prefix_cache),
        Lever(
            "response cache",
            f"{a.hit_fraction:.0%} of requests are an earlier one word for word: an assumption; a hit costs nothing",
            partial(_response_cache, hit_fraction=a.hit_fraction),
        ),
    )


def _model_levers(a: Assumptions) -> tuple[Lever, ...]:
    draft = a.draft
    return (
        Lever(
            "routing",
            f"{a.small_model} answers as many requests, easy ones first, as cost {a.lost_points} points of accuracy, "
            "by the recorded scores of `large` and `small`; which are easy is known and costs nothing",
            partial(_routing, small=SMALL, assumptions=a),
        ),
        Lever(
            "distillation",
            "routing, by the recorded scores of `small-distilled`, which allow more; they are one seed's, and better "
            "by less than two seeds differ",
            partial(_routing, small=DISTILLED, assumptions=a),
        ),
        Lever(
            "speculation",
            f"{draft.tokens} tokens drafted by {draft.draft}, each accepted with {draft.acceptance:g}, so "
            f"{draft.tokens_per_round:.2f} tokens per round: a model, no measurement",
            partial(_speculation, speculation=draft),
        ),
    )


def _fleet_levers() -> tuple[Lever, ...]:
    return (
        Lever(
            "right-sizing",
            "the machine of the price list that is cheapest at the peak, by averages and without speculation",
            _right_sizing,
        ),
        Lever(
            "autoscaling",
            "a forecast (Holt) over target tracking, for the large model's group; half an hour stands for a day, and "
            "cold starts are as long as ever",
            _autoscaling,
        ),
        Lever(
            "spot",
            "the large model's group at the spot price; a mean life of 20 hours is an assumption; what is taken away "
            "is replaced after a cold start",
            _spot,
        ),
    )


def pulled(scenario: Scenario, chosen: tuple[Lever, ...]) -> Scenario:
    """Return the scenario with all of `chosen` pulled, in this order."""
    for lever in chosen:
        scenario = lever.pull(scenario)
    return scenario
