"""Levers change what they say and nothing else; sizing finds the smallest fleet; savings are not a sum."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from miniserve.bench.levers import SCENARIO, bench_levers, cases, findings, levers_table
from miniserve.bench.record import save_record
from miniserve.errors import SetupError
from miniserve.observe.goodput import attainment
from miniserve.planning.levers import (
    DISTILLED,
    LARGE,
    SMALL,
    Assumptions,
    levers,
    pulled,
    quality,
    recorded_quantization,
    recorded_scores,
    small_shares,
)
from miniserve.planning.sizing import check_scenario, needs, peak_per_s, smallest_fleet, version_shares, with_counts
from miniserve.scenario import Scenario, load
from miniserve.scenario.build import replicas
from miniserve.sim.run import simulate
from miniserve.toml.source import Setting

SCORES = {
    LARGE: {"easy": 0.98, "hard": 0.9},
    SMALL: {"easy": 0.96, "hard": 0.3},
    DISTILLED: {"easy": 0.975, "hard": 0.4},
}
LEVERS = {lever.name: lever for lever in levers(Assumptions(SCORES))}


@pytest.fixture(scope="module")
def base() -> Scenario:
    return load(SCENARIO)


def quick(*settings: str) -> Scenario:
    """The scenario, but a steady minute of short answers."""
    short = ("workload.arrivals={kind='poisson', rate_per_s=8}", "run.duration_s=60", "workload.output.scale=0.5")
    return load(SCENARIO, settings=[Setting.parse(text) for text in (*short, *settings)])


def shown(scenario: Scenario) -> str:
    return re.sub("0x[0-9a-f]+", "", repr(scenario))


@pytest.mark.parametrize("name", LEVERS)
def test_a_lever_pulled_twice_is_pulled_once_and_leaves_the_scenario_alone(base: Scenario, name: str) -> None:
    before = shown(base)
    once = LEVERS[name].pull(base)
    assert shown(base) == before
    assert shown(once) != before
    assert shown(LEVERS[name].pull(once)) == shown(once)
    assert LEVERS[name].assumes


def test_every_lever_says_what_it_changes(base: Scenario) -> None:
    def spec(*names: str):
        return replicas(pulled(base, tuple(LEVERS[name] for name in names)))[0][1]

    plain = spec()
    assert (plain.scheduler.max_running, spec("batching").scheduler.max_running) == (1, 64)
    assert spec("quantization").step_time.base_s < 0.6 * plain.step_time.base_s
    assert spec("quantization").step_time.per_decode_row_s == plain.step_time.per_decode_row_s
    assert spec("prefix cache").cache.prefix_caching
    assert spec("speculation").step_time.base_s < plain.step_time.base_s
    assert spec("speculation").step_time.per_decode_row_s > plain.step_time.per_decode_row_s
    assert spec("spot").usd_per_hour < 0.6 * plain.usd_per_hour
    assert spec("spot").interruptions_per_hour > 0
    assert LEVERS["response cache"].pull(base).response_cache.hit_fraction == 0.1
    assert LEVERS["autoscaling"].pull(base).autoscaler.policy.name == "predictive"
    assert spec("batching", "quantization", "right-sizing").hardware == "l4"


def test_routing_keeps_the_quality_that_was_asked_for(base: Scenario) -> None:
    """With everything on `large` 95.6 % are right; half a point may be lost."""
    routed, distilled = (LEVERS[name].pull(base) for name in ("routing", "distillation"))
    assert quality(base, SCORES) == pytest.approx(0.7 * 0.98 + 0.3 * 0.9)
    assert quality(routed, SCORES) == pytest.approx(0.956 - 0.005)
    assert quality(distilled, SCORES) == pytest.approx(0.956 - 0.005)
    assert version_shares(routed)[SMALL] == pytest.approx(0.7 * (0.005 / 0.014))
    assert version_shares(distilled)[DISTILLED] == pytest.approx(0.7 + 0.3 * (0.0015 / 0.15)), (
        "all easy ones, a few hard"
    )
    both = pulled(base, (LEVERS["routing"], LEVERS["distillation"]))
    assert [group.version for group in both.fleet.replicas] == [LARGE, DISTILLED]


shares = st.floats(0, 1)
scores = st.fixed_dictionaries({"easy": shares, "hard": shares})


@given(
    features=st.fixed_dictionaries({"easy": st.floats(0.1, 9), "hard": st.floats(0.1, 9)}), large=scores, small=scores
)
def test_shares_never_cost_more_than_allowed_and_use_what_is_allowed(features, large, small) -> None:
    found = small_shares(features, large, small, 0.01)
    total = sum(features.values())
    lost = {name: features[name] / total * found[name] * (large[name] - small[name]) for name in features}
    assert all(0 <= share <= 1 for share in found.values())
    assert sum(max(0.0, each) for each in lost.values()) <= 0.01 + 1e-9
    assert all(share == 1 for share in found.values()) or sum(max(0.0, each) for each in lost.values()) > 0.01 - 1e-9


def test_the_smallest_fleet_is_good_and_one_less_is_not() -> None:
    scenario = LEVERS["batching"].pull(quick("fleet.replicas.0.hardware=l4"))
    sized = smallest_fleet(scenario, seed=1, target=0.95)
    assert sized.kept
    assert attainment(sized.result.outcomes, scenario.slo) >= 0.95
    (n,) = sized.counts
    assert n > 1
    less = simulate(with_counts(scenario, (n - 1,)), 1)
    assert attainment(less.outcomes, scenario.slo) < 0.95
    assert sized.result.ledger.usd == pytest.approx(n * 0.707 / 3600 * sized.result.ledger.billed_s / n)
    assert 0.3 * n < needs(scenario)[0] < 2 * n


def test_a_goal_that_no_fleet_reaches_is_said() -> None:
    sized = smallest_fleet(quick("slo.ttft_s=0.0001", "run.duration_s=5"), seed=1)
    assert not sized.kept
    assert attainment(sized.result.outcomes, sized.scenario.slo) < 0.99


def test_spot_machines_are_replaced() -> None:
    spot = with_counts(LEVERS["spot"].pull(quick()), (3,))
    assert spot.autoscaler.policy.arguments["plan"] == [(0.0, 3)]
    assert len(simulate(spot).outcomes) > 400


def test_the_peak_is_seen(base: Scenario) -> None:
    assert peak_per_s(base) == pytest.approx(3.0)
    assert base.expected_requests == pytest.approx(3120, rel=0.05)


def row(usd: float) -> dict[str, float]:
    return {"usd": usd}


def test_findings_by_hand() -> None:
    """Two levers that each halve the cost, and overlap; a third that does nothing."""
    rows = {
        "base": {"nothing pulled": row(100)},
        "alone": {"a": row(50), "b": row(50), "c": row(100)},
        "stacked": {"a": row(50), "b": row(40), "c": row(40)},
        "all but": {"a": row(50), "b": row(50), "c": row(40)},
    }
    found = findings(rows)
    assert found["all_save"] == pytest.approx(0.6)
    assert found["sum_of_alone"] == pytest.approx(1.0)
    assert found["if_alone_multiplied"] == pytest.approx(0.75)
    assert found["missing_costs"] == {"a": 0.25, "b": 0.25, "c": 0.0}
    assert found["saves_nothing_alone"] == ["c"]
    assert found["saves_nothing_in_the_stack"] == ["c"]


def test_the_whole_bench_on_a_small_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three levers only: the command's own run takes minutes."""
    text = SCENARIO.read_text().replace("scale = 6.0", "scale = 0.5").replace("duration_s = 1800", "duration_s = 30")
    path = tmp_path / "levers.toml"
    path.write_text(text)
    some = tuple(LEVERS[name] for name in ("batching", "response cache", "right-sizing"))
    monkeypatch.setattr("miniserve.bench.levers.levers", lambda assumptions: some)
    console = Console(width=200, record=True)
    result = bench_levers(2, console, path)
    assert result["alone"]["batching"] == result["stacked"]["batching"]
    assert result["stacked"]["right-sizing"]["usd"] <= result["base"]["nothing pulled"]["usd"]
    assert all(each["kept"] and each["slo_attainment"] >= 0.99 for each in result["stacked"].values())
    console.print(levers_table(result))
    assert "the savings of each alone add up to" in console.export_text()
    record = json.loads(save_record("levers", result, tmp_path).read_text())
    assert record["result"]["seed"] == 2
    assert record["environment"]["versions"]


def test_cases_are_each_alone_stacked_and_left_out() -> None:
    known = tuple(LEVERS.values())
    named = cases(known)
    assert [len(case.chosen) for case in named["stacked"]] == list(range(1, len(known) + 1))
    assert all(len(case.chosen) == 1 for case in named["alone"])
    assert all(len(case.chosen) == len(known) - 1 for case in named["all but"])


def test_the_recorded_scores_are_found_and_bad_records_refused(tmp_path: Path) -> None:
    recorded = recorded_scores()
    assert recorded[LARGE]["hard"] > recorded[DISTILLED]["hard"] > recorded[SMALL]["hard"]
    assert "perplexity" in recorded_quantization()
    for read, message in ((recorded_scores, "miniserve eval"), (recorded_quantization, "miniserve bench quant")):
        with pytest.raises(SetupError, match=f"has no record of `{message}"):
            read(tmp_path)
    for name in ("eval-large", "quant"):
        (tmp_path / f"2026-01-01-{name}.json").write_text('{"result": {}}')
    with pytest.raises(SetupError, match=r"eval-large\.json is not a record"):
        recorded_scores(tmp_path)
    with pytest.raises(SetupError, match=r"quant\.json is not a record"):
        recorded_quantization(tmp_path)


def test_a_scenario_without_prices_cannot_be_sized(base: Scenario) -> None:
    check_scenario(base)
    for fleet in (None, replace(base.fleet, replicas=(replace(base.fleet.replicas[0], hardware=None),))):
        with pytest.raises(SetupError, match="to be priced"):
            check_scenario(replace(base, fleet=fleet))
