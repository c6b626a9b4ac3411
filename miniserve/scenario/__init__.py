"""Scenarios: demand, fleet, policies, faults and goals of a run in one TOML file, for both worlds.

    scenario = load(Path("data/scenarios/quickstart.toml"))

Everything is checked here, before anything runs: `toml.reader` checks types, units and names, `model` says what there
is to say, and what needs more than one value to see is checked below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from miniserve.control.autoscaler import check_horizon
from miniserve.errors import SetupError
from miniserve.hardware.prices import PriceList, load_price_list
from miniserve.policies.recovery.progress import ProgressWatch
from miniserve.scenario.build import prefix_tier, replicas, scaled_group
from miniserve.scenario.kinds import KINDS, loaders, makers
from miniserve.scenario.live import SHARED_TABLES, read_live
from miniserve.scenario.model import Scenario
from miniserve.toml.reader import Reader, check_name, suggestion
from miniserve.toml.source import Place, Setting, TomlSource, read_source_file
from miniserve.workload.replay import RecordedTrace

__all__ = ["Scenario", "load", "variants"]

MOST_REQUESTS = 1e9
MOST_S = 1e8  # three years
LEAST_PROBE_S = 0.001


def variants(path: Path) -> tuple[str, ...]:
    """Return the names of the variants that a scenario file describes. Raises: SetupError if it cannot be read."""
    table = read_source_file(path).values.get("variants", {})
    return tuple(table) if isinstance(table, dict) else ()


def load(
    path: Path, *, variant: str | None = None, settings: Sequence[Setting] = (), policies: Path | None = None
) -> Scenario:
    """Read and check a scenario, with one of its variants and then `settings` laid over it.

    The tables of a file of `policies` (see `live`) take the place of its own; its distances are the fleet's own.

    Raises: SetupError naming file, line and key, the value, and what is allowed.
    """
    source = read_source_file(path)
    table = source.values.pop("variants", {})
    if not isinstance(table, dict) or not all(isinstance(item, dict) for item in table.values()):
        raise source.error(("variants",), "must hold one table per variant: [variants.NAME.policies] ...")
    if variant is not None:
        if variant not in table:
            raise SetupError(f"{path} has no variant {variant!r}; {suggestion(variant, table)}")
        source = source.with_laid_over(table[variant], ("variants", variant))
    if policies is not None:
        read_live(policies)  # to hear of what is wrong in the rest of it
        source = source.with_tables_of(read_source_file(policies), SHARED_TABLES)
    for setting in settings:
        source = source.with_setting(setting)
    return from_source(source, path.parent, *([] if policies is None else [policies.parent]))


def from_source(source: TomlSource, folder: Path, *others: Path) -> Scenario:
    """Return the scenario that `source` describes; user files are looked for in the folders. Raises: SetupError."""
    reader = Reader(source, KINDS, loaders(folder, *others), makers(folder))
    scenario = reader.construct(Scenario, source.values)
    assert isinstance(scenario, Scenario)
    _check_run(scenario, source)
    if scenario.fleet is not None:
        _check_probes(scenario, source)
        _check_groups(scenario, source, load_price_list())
        _check_regions(scenario, source)
        _check_room(scenario, source)
    _check_autoscaler(scenario, source)
    _check_rollout(scenario, source)
    _check_faults(scenario, source)
    return scenario


def _check_run(scenario: Scenario, source: TomlSource) -> None:
    ends = isinstance(scenario.workload.arrivals, RecordedTrace)
    if scenario.run.requests is None and scenario.run.duration_s is None and not ends:
        raise source.error(("run",), "`requests` or `duration_s` is missing: one of them must say when to stop")
    if scenario.expected_requests > MOST_REQUESTS:
        raise source.error(
            ("run",),
            f"about {scenario.expected_requests:.2g} requests would come; at most {MOST_REQUESTS:g} can be run",
        )
    if scenario.expected_s > MOST_S:
        raise source.error(("run",), f"would take {scenario.expected_s:.2g} s of simulated time; at most {MOST_S:g}")
    lasts_s = scenario.run.duration_s or math.inf
    if scenario.run.requests is not None or ends:
        lasts_s = min(lasts_s, scenario.expected_s)
    if 0 < lasts_s <= scenario.run.warmup_s:
        raise source.error(
            ("run", "warmup_s"),
            f"{scenario.run.warmup_s:g} s leaves nothing to count: requests come for {lasts_s:.4g} s",
        )


def _check_probes(scenario: Scenario, source: TomlSource) -> None:
    assert scenario.fleet is not None
    interval_s = scenario.fleet.probe_interval_s
    if 0 < interval_s < LEAST_PROBE_S:
        wanted = f"0 (views are always fresh) or at least {LEAST_PROBE_S:g}"
        raise source.error(("fleet", "probe_interval_s"), f"{interval_s:g} is not allowed; it must be {wanted}")
    recipe = scenario.policies.progress
    watch = ProgressWatch() if recipe is None else recipe.build()
    if isinstance(watch, ProgressWatch) and interval_s >= min(watch.stall_s, watch.move_s):
        raise source.error(
            ("fleet", "probe_interval_s"),
            f"{interval_s:g} s is too long for a progress watch that takes {min(watch.stall_s, watch.move_s):g} s of "
            'silence for a hang; probe more often, give policies.progress a longer stall_s, or set it to "off"',
        )


def _check_groups(scenario: Scenario, source: TomlSource, prices: PriceList) -> None:
    fleet = scenario.fleet
    assert fleet is not None
    if not fleet.replicas:
        raise source.error(("fleet", "replicas"), "must have at least one group")
    check_name(fleet.model, prices.models, source, ("fleet", "model"))
    seen: dict[str, int] = {}
    for i, group in enumerate(fleet.replicas):
        place: Place = ("fleet", "replicas", i)
        if group.name in seen:
            raise source.error((*place, "name"), f'"{group.name}" is the name of an earlier group')
        seen[group.name] = i
        if (group.hardware is None) == (group.step_time is None):
            raise source.error(place, "needs either `hardware` or `step_time`, and not both")
        if group.hardware is not None:
            check_name(group.hardware, prices.hardware, source, (*place, "hardware"))
        if group.model is not None:
            check_name(group.model, prices.models, source, (*place, "model"))
    if (speculation := scenario.engine.speculation) is not None:
        check_name(speculation.draft, prices.models, source, ("engine", "speculation", "draft"))


def _check_rollout(scenario: Scenario, source: TomlSource) -> None:
    """See that both versions have replicas, and that the plan is possible."""
    rollout, fleet = scenario.rollout, scenario.fleet
    if rollout is None:
        return
    assert fleet is not None
    counts = {group.version: group.count for group in fleet.replicas if group.version}
    for name in ("old", "new"):
        check_name(getattr(rollout, name), counts, source, ("rollout", name))
    for version in rollout.bad_fraction:
        check_name(version, counts, source, ("rollout", "bad_fraction"))
    try:
        rollout.plan(counts[rollout.new]).build(rollout.old, rollout.new)
    except SetupError as error:
        raise source.error(("rollout",), str(error)) from None
    if scenario.autoscaler is not None:
        raise source.error(
            ("rollout",), "an autoscaler would add replicas of one version meanwhile; leave out one of the two"
        )


def _check_regions(scenario: Scenario, source: TomlSource) -> None:
    """Latencies, clients and replicas must speak of the same regions, and every distance must be known."""
    fleet = scenario.fleet
    assert fleet is not None
    there = {group.region: True for group in fleet.replicas if group.region}
    here = {region: True for region in scenario.workload.regions.shares if region is not None}
    known = there | here
    for one, row in fleet.latency_s.items():
        for other in (one, *row):
            if other not in known:
                place = ("fleet", "latency_s", one) if other == one else ("fleet", "latency_s", one, other)
                raise source.error(place, f"no client and no replica is there; {suggestion(other, known)}")
    for client in here:
        for region in there:
            rows = fleet.latency_s.get(client, {}), fleet.latency_s.get(region, {})
            if client != region and region not in rows[0] and client not in rows[1]:
                raise source.error(("fleet", "latency_s"), f"`{client}.{region}` is missing: seconds one way")


def _check_room(scenario: Scenario, source: TomlSource) -> None:
    """See whether the model fits on its hardware, and a block into the shared cache."""
    for build, place in ((replicas, ("fleet", "replicas")), (prefix_tier, ("fleet", "prefix_tier"))):
        try:
            build(scenario)
        except SetupError as error:
            raise source.error(place, str(error)) from None


def _check_autoscaler(scenario: Scenario, source: TomlSource) -> None:
    """See that there is a group to scale, that it begins within the bounds, and that no forecast looks too near."""
    scaling, fleet = scenario.autoscaler, scenario.fleet
    if scaling is None:
        return
    if scenario.gateway_queue is not None:
        raise source.error(("gateway_queue",), "an autoscaler would not see who waits there; leave out one of the two")
    if fleet is None:
        raise source.error(("autoscaler",), "needs a [fleet]: there is nothing to scale")
    groups = {group.name: group for group in fleet.replicas}
    if scaling.group is None and len(groups) > 1:
        raise source.error(("autoscaler",), f"`group` is missing; allowed: {', '.join(groups)}")
    if scaling.group is not None:
        check_name(scaling.group, groups, source, ("autoscaler", "group"))
    least, most = scaling.min_replicas, scaling.max_replicas
    if least > most:
        raise source.error(("autoscaler", "min_replicas"), f"{least} is more than max_replicas, {most}")
    name, spec = scaled_group(scenario)
    if not least <= groups[name].count <= most:
        place: Place = ("fleet", "replicas", list(groups).index(name), "count")
        raise source.error(place, f"{groups[name].count} is not within the autoscaler's bounds, {least} to {most}")
    try:
        check_horizon(scaling.build(scenario.run.seed), spec.cold_start.nominal_s)
    except SetupError as error:
        raise source.error(("autoscaler", "policy"), str(error)) from None


def _check_faults(scenario: Scenario, source: TomlSource) -> None:
    events, before_s = scenario.faults.events, 0.0
    ids = () if scenario.fleet is None else scenario.fleet.replica_ids
    for i, event in enumerate(events):
        place: Place = ("faults", "events", i)
        if event.at_s < before_s:
            raise source.error((*place, "at_s"), f"{event.at_s:g} is before {before_s:g}: events go forward in time")
        before_s = event.at_s
        for k, pattern in enumerate(event.replicas):
            _check_pattern(pattern, ids, source, (*place, "replicas", k))
    for k, pattern in enumerate(scenario.faults.only_replicas):
        _check_pattern(pattern, ids, source, ("faults", "only_replicas", k))


def _check_pattern(pattern: str, ids: Sequence[str], source: TomlSource, place: Place) -> None:
    if ids and not any(fnmatchcase(each, pattern) for each in ids):
        raise source.error(place, f'"{pattern}" is no replica; they are {", ".join(ids)}')
