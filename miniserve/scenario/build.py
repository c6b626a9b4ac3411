"""From a scenario's description to the things that run: fresh policies, replica specifications, distances.

Each call makes new objects, so two runs of one scenario share no memory. `seed` is the run's; every policy that draws
takes its own named stream from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from miniserve.errors import SetupError
from miniserve.hardware.prices import Hardware, ModelSize, PriceList, load_price_list
from miniserve.hardware.spec import ReplicaSpec, TierSpec, replica_spec
from miniserve.hardware.speculation import blocks_beside
from miniserve.policies.admission.admission import AllOf
from miniserve.policies.bundle import Policies, breakers
from miniserve.policies.routing.router import Routers
from miniserve.scenario.model import EngineSection, FleetSection, PolicySection, ReplicaGroup, Scenario

_PARTS = ("retry", "budget", "second_opinions", "ejector", "progress")
_NUMBERS = ("hedge_after_s", "first_token_s", "first_token_share", "resume", "same_replica")


def resilience(scenario: Scenario, seed: int) -> Policies:
    """Return the policies of one simulated gateway."""
    return bundle(scenario.policies, seed, {} if scenario.fleet is None else distances(scenario.fleet.latency_s))


def bundle(policies: PolicySection, seed: int, one_way_s: Mapping[tuple[str, str], float]) -> Policies:
    """Return the policies of one gateway, simulated or not. What the section does not name is left at its default.

    `one_way_s`: seconds between regions, for routers that go by distance.
    """
    chosen: dict[str, Any] = {}
    for name in _PARTS:
        if (recipe := getattr(policies, name)) is not None:
            chosen[name] = recipe.build(seed=seed)
    for name in _NUMBERS:
        if (value := getattr(policies, name)) is not None:
            chosen[name] = None if value == "off" else value
    if policies.breaker is not None and policies.breaker.name != "off":
        chosen["breakers"] = breakers(policies.breaker.build)
    if policies.admission:
        chosen["admission"] = AllOf(*(recipe.build(seed=seed) for recipe in policies.admission))
    if policies.routers:
        made = [recipe.build(seed=seed, latency_s=_both_ways(one_way_s)) for recipe in policies.routers]
        chosen["router"] = made[0] if len(made) == 1 else Routers(*made)
    return Policies(policies.balancer.build(seed=seed), **chosen)


def _both_ways(one_way_s: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    return {**one_way_s, **{(there, here): seconds for (here, there), seconds in one_way_s.items()}}


def distances(latency_s: Mapping[str, Mapping[str, float]]) -> dict[tuple[str, str], float]:
    """Return the one-way seconds between regions, by pairs of them."""
    return {(here, there): seconds for here, row in latency_s.items() for there, seconds in row.items()}


def replicas(scenario: Scenario) -> tuple[tuple[str, ReplicaSpec], ...]:
    """Return the id and the specification of every replica, those of a rollout's new version included.

    Raises: SetupError if the model does not fit on a group's hardware, or there is no fleet.
    """
    fleet = scenario.fleet
    assert fleet is not None, "the caller has checked that the scenario has a fleet"
    specify = partial(_spec, fleet=fleet, engine=scenario.engine, prices=load_price_list())
    return tuple(
        (replica_id, spec) for group in fleet.replicas for spec in [specify(group)] for replica_id in group.replica_ids
    )


def scaled_group(scenario: Scenario) -> tuple[str, ReplicaSpec]:
    """Return the name of the group that the autoscaler scales, and what its new replicas are."""
    assert scenario.autoscaler is not None
    assert scenario.fleet is not None
    fleet, name = scenario.fleet, scenario.autoscaler.group
    group = next(group for group in fleet.replicas if name in (None, group.name))
    return group.name, _spec(group, fleet, scenario.engine, load_price_list())


def prefix_tier(scenario: Scenario) -> TierSpec | None:
    """Return what the fleet's shared cache is, if it has one. Raises: SetupError if not one block fits in."""
    fleet = scenario.fleet
    if fleet is None or fleet.prefix_tier is None:
        return None
    tier = fleet.prefix_tier
    block_bytes = scenario.engine.cache.block_size * load_price_list().model(fleet.model).kv_bytes_per_token
    blocks = int(tier.capacity_bytes // block_bytes)
    return TierSpec(blocks, block_bytes, tier.bandwidth_bytes_per_s, tier.latency_s)


def _model(
    group: ReplicaGroup, fleet: FleetSection, engine: EngineSection, prices: PriceList, name: str | None = None
) -> ModelSize:
    """Return the group's model, or the one called `name`, with the engine's precision."""
    model = prices.model(name or group.model or fleet.model)
    if engine.bytes_per_weight is None:
        return model
    if group.hardware is not None and model.name in prices.machine(group.hardware).measured:
        raise SetupError(
            f"bytes_per_weight changes a roofline; {model.name} on {group.hardware} is measured, at one precision"
        )
    return replace(model, bytes_per_weight=engine.bytes_per_weight)


def _on_hardware(group: ReplicaGroup, machine: Hardware, model: ModelSize, engine: EngineSection) -> ReplicaSpec:
    return replica_spec(
        machine,
        model,
        scheduler=engine.scheduler,
        block_size=engine.cache.block_size,
        spot=group.spot,
        version=group.version,
        region=group.region,
    )


def _speculating(
    spec: ReplicaSpec, group: ReplicaGroup, fleet: FleetSection, engine: EngineSection, prices: PriceList
) -> ReplicaSpec:
    """Return `spec` with a draft model beside its own; as it is, if its own is no larger than the draft."""
    assert engine.speculation is not None
    assert group.hardware is not None
    model = _model(group, fleet, engine, prices)
    draft = _model(group, fleet, engine, prices, engine.speculation.draft)
    if model.parameters <= draft.parameters:
        return spec
    step_time = engine.speculation.applied(spec.step_time, prices.machine(group.hardware).step_time(draft))
    blocks = blocks_beside(draft, model, spec.cache)
    if blocks < 1:
        raise SetupError(f"{draft.name} does not fit beside {model.name} on {group.hardware}")
    return replace(spec, step_time=step_time, cache=replace(spec.cache, num_blocks=blocks))


def _spec(group: ReplicaGroup, fleet: FleetSection, engine: EngineSection, prices: PriceList) -> ReplicaSpec:
    cache = engine.cache
    if group.hardware is None:
        assert group.step_time is not None
        spec = ReplicaSpec(group.step_time, engine.scheduler, version=group.version, region=group.region)
    else:
        spec = _on_hardware(group, prices.machine(group.hardware), _model(group, fleet, engine, prices), engine)
        if engine.speculation is not None:
            spec = _speculating(spec, group, fleet, engine, prices)
    blocks = spec.cache.num_blocks if cache.num_blocks is None else cache.num_blocks
    pool = replace(spec.cache, num_blocks=blocks, block_size=cache.block_size, prefix_caching=cache.prefix_caching)
    if group.cold_start is not None:
        spec = replace(spec, cold_start=group.cold_start)
    return replace(spec, cache=pool, max_model_len=engine.max_model_len, weight=group.weight, speed=group.speed)
