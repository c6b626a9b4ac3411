"""The smallest fleet that keeps the SLO, found by trial: a change is worth the machines it saves.

A faster step saves nothing by itself; the replicas cost the same and are merely idle more often. So a scenario is
priced at the fewest replicas with which its simulation still serves `target` of the requests within the SLO.

The size of the first group is searched (up in steps of a fifth until it is enough, then by bisection); every other
group is scaled to its share of the work, and then shrunk as far as possible. More replicas are assumed to be better.
One seed decides, and fleets without batching are on a knife edge: the 44 machines of the levers' base keep 99.5 % on
seed 1 and 98.5, 68, 93 and 95 % on seeds 2 to 5; with batching, 3 machines keep 100 % on all five.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from miniserve.control.autoscaler import Autoscaler, Scheduled
from miniserve.errors import SetupError
from miniserve.hardware.rightsizing import MeanLoad, seconds_per_request
from miniserve.hardware.spec import ReplicaSpec
from miniserve.observe.goodput import attainment
from miniserve.scenario.build import replicas
from miniserve.scenario.model import Autoscaling, Scenario
from miniserve.sim.meter import Meter
from miniserve.sim.result import SimResult
from miniserve.sim.run import simulate
from miniserve.toml.reader import Recipe

MARGINS = (
    1.6,
    1.3,
    1.0,
    0.8,
    0.65,
)  # tried for an autoscaler: how much of a replica's rate it counts on, riskiest first
_GIVE_UP = 3  # times the first guess

Counts = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sized:
    """A scenario with its smallest fleet, and the run that proves it. `kept`: whether any fleet was good enough."""

    scenario: Scenario
    counts: Counts
    result: SimResult
    kept: bool
    autoscaled: bool


def smallest_fleet(scenario: Scenario, seed: int, target: float = 0.99) -> Sized:
    """Return `scenario` with the fewest replicas of each group; `result` has a ledger.

    With an autoscaler called "predictive", the fixed fleet is found first, and shows what one replica can do.
    """
    assert scenario.fleet is not None
    search = _Search(scenario, seed, target)
    counts = search.counts()
    chosen, autoscaled = with_counts(scenario, counts), False
    if wants_autoscaling(scenario) and counts in search.good:
        better = _autoscaled(scenario, counts, seed, target, search.usd[counts])
        chosen, autoscaled = (chosen, False) if better is None else (better, True)
    return Sized(chosen, counts, simulate(chosen, seed, meter=Meter()), counts in search.good, autoscaled)


def wants_autoscaling(scenario: Scenario) -> bool:
    return scenario.autoscaler is not None and scenario.autoscaler.policy.name == "predictive"


def with_counts(scenario: Scenario, counts: Counts) -> Scenario:
    """Return `scenario` with these fixed numbers of replicas; spot machines that are reclaimed are replaced."""
    assert scenario.fleet is not None
    groups = tuple(replace(group, count=n) for group, n in zip(scenario.fleet.replicas, counts, strict=True))
    keep = None
    if groups[0].spot:
        plan = {"plan": [(0.0, counts[0])], "every_s": 0.0}
        recipe: Recipe[Autoscaler] = Recipe("scheduled", Scheduled, plan)
        keep = Autoscaling(recipe, groups[0].name, period_s=5.0, max_replicas=max(counts[0], 1))
    return replace(scenario, fleet=replace(scenario.fleet, replicas=groups), autoscaler=keep)


def _autoscaled(scenario: Scenario, counts: Counts, seed: int, target: float, fixed_usd: float) -> Scenario | None:
    """Return the cheapest autoscaled fleet that keeps the SLO and costs less than the fixed one; None if none does."""
    best, best_usd = None, fixed_usd
    for margin in MARGINS:
        trial = _with_autoscaler(scenario, counts, margin)
        share, usd = _judge(simulate(trial, seed))
        if share >= target and usd < best_usd:
            best, best_usd = trial, usd
    return best


def _with_autoscaler(scenario: Scenario, counts: Counts, margin: float) -> Scenario:
    scaling = scenario.autoscaler
    assert scaling is not None
    assert scenario.fleet is not None
    each_per_s = margin * peak_per_s(scenario) / counts[0]
    first = max(scaling.min_replicas, math.ceil(rate_at(scenario, 0.0) / each_per_s) + 1)
    policy = replace(scaling.policy, arguments={**scaling.policy.arguments, "replica_per_s": each_per_s})
    groups = with_counts(scenario, (first, *counts[1:])).fleet
    return replace(
        scenario,
        fleet=groups,
        autoscaler=replace(
            scaling, policy=policy, group=scenario.fleet.replicas[0].name, max_replicas=2 * counts[0] + 1
        ),
    )


class _Search:
    """A search over fixed fleets of one scenario, each simulated once."""

    def __init__(self, scenario: Scenario, seed: int, target: float) -> None:
        self._scenario = scenario
        self._seed = seed
        self._target = target
        self._needs = needs(scenario)
        self.good: set[Counts] = set()
        self.usd: dict[Counts, float] = {}

    def counts(self) -> Counts:
        """Return the smallest good fleet, or the first guess if even three times as many replicas are not enough."""
        guess = max(1, math.ceil(1.1 * self._needs[0]))
        least_good = self._upwards(guess, _GIVE_UP * guess + 1)
        if least_good is None:
            return self._with_others(guess)
        low, high = self._downwards(least_good)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._is_good(self._with_others(middle)) else (middle, high)
        return self._with_fewer_others(self._with_others(high))

    def _upwards(self, n: int, most: int) -> int | None:
        while n <= most:
            if self._is_good(self._with_others(n)):
                return n
            n = math.ceil(n * 1.2)
        return None

    def _downwards(self, good: int) -> tuple[int, int]:
        """Return one number that is too small and one that is enough, at most a fifth apart."""
        while good > 1:
            less = min(good - 1, math.floor(good / 1.2))
            if not self._is_good(self._with_others(less)):
                return less, good
            good = less
        return 0, good

    def _with_fewer_others(self, counts: Counts) -> Counts:
        for i in range(1, len(counts)):
            while counts[i] > 1 and self._is_good(less := (*counts[:i], counts[i] - 1, *counts[i + 1 :])):
                counts = less
        return counts

    def _with_others(self, n: int) -> Counts:
        """Return `n` for the first group and, for the others, what their share of the work then needs."""
        scale = n / self._needs[0] if self._needs[0] > 0 else 1.0
        return (n, *(max(1, math.ceil(scale * need)) for need in self._needs[1:]))

    def _is_good(self, counts: Counts) -> bool:
        if counts not in self.usd:
            share, self.usd[counts] = _judge(simulate(with_counts(self._scenario, counts), self._seed))
            if share >= self._target:
                self.good.add(counts)
        return counts in self.good


def _judge(result: SimResult) -> tuple[float, float]:
    return attainment(result.outcomes, result.slo) if result.stopped is None else 0.0, float(
        str(result.meta["cost_usd"])
    )


# --- a first guess -------------------------------------------------------------------------------------------------


def needs(scenario: Scenario) -> tuple[float, ...]:
    """Estimate how many replicas of each group the peak keeps busy, from step times alone."""
    assert scenario.fleet is not None
    specs, hits = dict(replicas(scenario)), scenario.response_cache.hit_fraction if scenario.response_cache else 0.0
    shares = version_shares(scenario)
    per_s = peak_per_s(scenario) * (1 - hits)
    found = []
    for group in scenario.fleet.replicas:
        spec = specs[group.replica_ids[0]]
        rate_per_s = max(1e-6, per_s * shares.get(group.version, 1.0 if len(scenario.fleet.replicas) == 1 else 0.0))
        found.append(rate_per_s * _seconds(scenario, spec, rate_per_s))
    return tuple(found)


def version_shares(scenario: Scenario) -> Mapping[str, float]:
    """Return the share of requests each version gets from a "feature" router; without one, the first group gets all."""
    assert scenario.fleet is not None
    router = next((router for router in scenario.policies.routers if router.name == "feature"), None)
    if router is None:
        return {scenario.fleet.replicas[0].version: 1.0}
    total: dict[str, float] = {}
    features = scenario.workload.features.shares
    for feature, share in features.items():
        parts: Mapping[str, float] = router.arguments["shares"][feature]
        for version, part in parts.items():
            total[version] = total.get(version, 0.0) + share / sum(features.values()) * part / sum(parts.values())
    return total


def _seconds(scenario: Scenario, spec: ReplicaSpec, rate_per_s: float) -> float:
    """Return the replica-seconds per request, with as many rows as slots, blocks and the token interval allow."""
    work = MeanLoad(rate_per_s, scenario.workload.prompt.mean_tokens, scenario.workload.output.mean_tokens)
    room = spec.cache.num_blocks * spec.cache.block_size / (work.prompt_tokens + work.output_tokens)
    rows = max(1.0, min(float(spec.scheduler.max_running), room))
    limit_s = scenario.slo.tpot_s or math.inf

    def step_s(rows: float) -> float:
        return seconds_per_request(spec.step_time, work, rows) * rows / work.output_tokens

    while rows > 1 and step_s(rows) > limit_s:
        rows = max(1.0, rows * 0.9)
    return seconds_per_request(spec.step_time, work, rows) / spec.speed


def peak_per_s(scenario: Scenario) -> float:
    """Return the highest rate of the run, on a grid of a thousand points."""
    end_s = scenario.run.duration_s or scenario.expected_s
    return max(rate_at(scenario, end_s * i / 1000) for i in range(1001))


def rate_at(scenario: Scenario, time_s: float) -> float:
    curve: Callable[[float], float] | None = getattr(scenario.workload.arrivals, "rate_at", None)
    return scenario.workload.arrivals.rate_per_s if curve is None else curve(time_s)


def check_scenario(scenario: Scenario) -> None:
    """Raises: SetupError if the scenario's fleet cannot be sized."""
    if scenario.fleet is None or any(group.hardware is None for group in scenario.fleet.replicas):
        raise SetupError("to be priced, a scenario needs a [fleet] whose groups all name their `hardware`")
