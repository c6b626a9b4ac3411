"""From scenario to result: every request ends once, runs repeat, and a run that breaks off keeps what it has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from miniserve.errors import SetupError
from miniserve.observe.goodput import attainment
from miniserve.policies.routing.balancer import Balancer
from miniserve.scenario import Scenario, load
from miniserve.sim import run
from miniserve.sim.comparison import PolicyComparison
from miniserve.sim.meter import Meter
from miniserve.sim.result import SimResult
from miniserve.sim.run import simulate
from miniserve.toml.reader import Recipe
from miniserve.toml.source import Setting

SCENARIOS = Path(__file__).parents[2] / "data" / "scenarios"
SMALL = """
[run]
requests = 300
seed = 5
[workload]
prompt = { kind = "geometric", mean_tokens = 40 }
output = { kind = "geometric", mean_tokens = 20 }
arrivals = { kind = "poisson", rate_per_s = 4 }
[[fleet.replicas]]
name = "r"
count = 2
step_time = { base_s = 0.02, per_prefill_token_s = 0.001 }
[slo]
e2e_s = 2
"""


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Scenario]:
    """`small("key=value", ...)`: the scenario above, changed."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)

    def make(*settings: str) -> Scenario:
        return load(path, settings=[Setting.parse(text) for text in settings])

    return make


def with_balancer(scenario: Scenario, make: Callable[[], Balancer]) -> Scenario:
    return replace(scenario, policies=replace(scenario.policies, balancer=Recipe("mine", make)))


def by_index(result: SimResult, column: str) -> list[float]:
    order = np.argsort(result.outcomes.index)
    values: list[float] = getattr(result.outcomes, column)[order].tolist()
    return values


def test_every_request_ends_exactly_once(small: Callable[..., Scenario]) -> None:
    result = simulate(small())
    assert sorted(result.outcomes.index) == list(range(300))
    assert result.outcomes.by_status() == {200: 300}
    assert result.stopped is None
    assert all(result.outcomes.e2e_s > 0)
    assert max(result.series["outstanding"][1]) > 0


def test_a_run_repeats_to_the_bit_and_another_seed_differs(small: Callable[..., Scenario]) -> None:
    first, again, other = simulate(small()), simulate(small()), simulate(small(), seed=6)
    for column in ("index", "arrived_s", "first_token_s", "ended_s", "output_tokens", "replica"):
        assert getattr(first.outcomes, column).tolist() == getattr(again.outcomes, column).tolist()
    assert first.outcomes.arrived_s.tolist() != other.outcomes.arrived_s.tolist()


def test_policies_meet_the_same_demand(small: Callable[..., Scenario]) -> None:
    runs = [simulate(small(f"policies.balancer={name}")) for name in ("round-robin", "p2c")]
    for column in ("arrived_s", "prompt_tokens", "output_tokens"):
        assert by_index(runs[0], column) == by_index(runs[1], column)
    assert by_index(runs[0], "ended_s") != by_index(runs[1], "ended_s")


def test_a_lonely_request_takes_as_long_as_its_steps(small: Callable[..., Scenario]) -> None:
    """One prefill step of 10 tokens, then four decode steps."""
    lonely = small(
        "run.requests=20",
        "workload.arrivals.rate_per_s=0.01",
        'workload.prompt={kind="constant", tokens=10}',
        'workload.output={kind="constant", tokens=5}',
        "fleet.replicas.0.speed=2",
    )
    result = simulate(lonely)
    assert result.outcomes.ttft_s.tolist() == pytest.approx([0.03 / 2] * 20)
    assert result.outcomes.e2e_s.tolist() == pytest.approx([(0.03 + 4 * 0.02) / 2] * 20)


def test_distance_is_paid_there_and_back(small: Callable[..., Scenario]) -> None:
    common = ("run.requests=20", "workload.arrivals.rate_per_s=0.01", "fleet.replicas.0.region=us")
    near = simulate(small(*common))
    far = simulate(small(*common, "workload.regions={eu=1}", "fleet.latency_s={eu={us=0.04}}"))
    assert (far.outcomes.ttft_s - near.outcomes.ttft_s).tolist() == pytest.approx([0.08] * 20)


def test_admission_refuses_and_the_rest_is_served(small: Callable[..., Scenario]) -> None:
    guarded = small('policies.admission=[{kind="concurrency", limit={kind="fixed", limit=2}}]')
    counts = simulate(guarded).outcomes.by_status()
    assert counts[503] > 10
    assert counts[200] + counts[503] == 300


def test_prefix_caches_are_found_by_follow_ups_only_when_they_are_on(small: Callable[..., Scenario]) -> None:
    chats = ("workload.conversations={}", "run.duration_s=3000", "run.requests=3000", "fleet.replicas.0.count=1")
    on = simulate(small(*chats))
    off = simulate(small(*chats, "engine.cache.prefix_caching=false"))
    assert on.outcomes.cached_tokens.sum() > 0
    assert off.outcomes.cached_tokens.sum() == 0
    assert on.outcomes.prompt_tokens.sum() == off.outcomes.prompt_tokens.sum()


def test_a_shared_cache_makes_any_replica_as_good_as_the_last_one(small: Callable[..., Scenario]) -> None:
    chats = ("workload.conversations={}", "run.requests=2000", "policies.balancer=random", "fleet.replicas.0.count=4")
    alone = simulate(small(*chats))
    tier = "fleet.prefix_tier={capacity_bytes=1e10, bandwidth_bytes_per_s=1e10}"
    shared = simulate(small(*chats, tier))
    assert shared.outcomes.cached_tokens.sum() > 2 * alone.outcomes.cached_tokens.sum()


def test_quantities_that_never_change_are_not_told(small: Callable[..., Scenario]) -> None:
    assert "replicas" not in simulate(small()).series
    assert "replicas" in simulate(small('faults.events=[{at_s=20, kind="crash"}]')).series


def test_faults_of_the_plan_happen(small: Callable[..., Scenario]) -> None:
    poisoned = simulate(small("faults.poison_fraction=0.2")).outcomes.by_status()
    assert poisoned[500] == pytest.approx(60, abs=25)
    slow = small('faults.events=[{at_s=0, kind="slow", factor=3}]')
    assert simulate(slow).outcomes.e2e_s.mean() > 2.5 * simulate(small()).outcomes.e2e_s.mean()


def test_a_fleet_that_hangs_for_ever_does_not_hang_the_run(small: Callable[..., Scenario]) -> None:
    hung = small('faults.events=[{at_s=30, kind="hang"}]', "policies.first_token_s=off", "policies.progress=off")
    result = simulate(hung)
    assert result.stopped is not None
    assert "requests had no answer 3,600 s after the last arrival" in result.stopped
    assert result.unanswered == result.outcomes.by_status()[504] > 0
    assert len(result.outcomes) == 300, "they are counted, as failed"


HUNG_FOR_EVER = ('faults.events=[{at_s=30, kind="hang", replicas=["r-0"]}]', "policies.first_token_s=off")


def test_a_run_with_unanswered_requests_is_billed_for_the_time_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "paid.toml"
    step_time = "step_time = { base_s = 0.02, per_prefill_token_s = 0.001 }"
    path.write_text(SMALL.replace(step_time, 'hardware = "cpu-2core"').replace("count = 2", "count = 4"))
    settings = [Setting.parse(text) for text in (*HUNG_FOR_EVER, "policies.progress=off")]
    result = simulate(load(path, settings=settings), meter=Meter())
    assert result.unanswered > 0
    assert result.outcomes.duration_s < 300
    ledger = result.ledger
    assert ledger is not None
    shown_s = float(result.outcomes.ended_s.max())
    assert ledger.billed_s == pytest.approx(4 * shown_s)
    assert ledger.seconds == pytest.approx(ledger.billed_s)
    assert result.meta["cost_usd"] == pytest.approx(ledger.billed_usd, abs=1e-4)
    assert all(max(times) <= shown_s for times, _ in result.series.values())


def test_what_arrives_in_the_warm_up_is_served_but_not_counted(small: Callable[..., Scenario]) -> None:
    whole, counted = simulate(small()), simulate(small("run.warmup_s=30"))
    late = whole.outcomes.arrived_s >= 30
    assert 0 < late.sum() < 300
    assert counted.outcomes.ended_s.tolist() == whole.outcomes.ended_s[late].tolist(), "the run itself is the same"
    assert counted.figures()["requests"] == late.sum()
    assert counted.meta["warmup_s"] == "30"
    assert counted.series == whole.series, "but figures over time show how it warmed up"


def test_the_warm_up_is_not_billed(small: Callable[..., Scenario]) -> None:
    priced = ('fleet.model="llama-3.1-8b"', 'fleet.replicas=[{name="r", hardware="a100-80gb", count=2}]')
    whole, counted = simulate(small(*priced)), simulate(small(*priced, "run.warmup_s=30"))
    ends_s = whole.outcomes.ended_s.max()
    assert counted.meta["cost_usd"] == pytest.approx(float(str(whole.meta["cost_usd"])) * (1 - 30 / ends_s), abs=2e-4)


def test_caches_count_the_blocks_they_held_and_those_they_overwrote(small: Callable[..., Scenario]) -> None:
    chats = ("workload.conversations={}", "run.duration_s=1000", "run.requests=1000", "fleet.replicas.0.count=1")
    roomy, tight = (
        simulate(small(*chats, f"engine.cache.num_blocks={blocks}", "engine.max_model_len=4096")).figures()
        for blocks in (100_000, 2_000)
    )
    assert roomy["block_evictions"] == 0
    assert tight["block_evictions"] > 0
    assert 0 < tight["block_hits"] < roomy["block_hits"]


def test_runs_with_unanswered_requests_are_compared(small: Callable[..., Scenario]) -> None:
    hung = small(*HUNG_FOR_EVER, "policies.progress=off")
    cases = {"one": hung, "other": replace(hung, policies=replace(hung.policies, hedge_after_s=1.0))}
    experiment = PolicyComparison(cases, range(2)).run()
    assert experiment.complete_seeds == 2
    assert experiment.stopped is not None
    assert "one, seed 0: " in experiment.stopped
    assert all(run["failed_fraction"] > 0 for run in experiment.figures["one"])
    assert experiment.comparison() is not None


def test_progress_is_told(small: Callable[..., Scenario], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_REPORT_EVERY", 50)
    told: list[tuple[int, float]] = []
    simulate(small(), on_progress=lambda answered, now_s: told.append((answered, now_s)))
    assert [answered for answered, _ in told] == [50, 100, 150, 200, 250, 300]
    assert told == sorted(told)


def test_demand_alone_cannot_be_simulated(small: Callable[..., Scenario]) -> None:
    with pytest.raises(SetupError, match=r"has no \[fleet\]"):
        simulate(replace(small(), fleet=None))


# --- runs that break off -------------------------------------------------------------------------------------------


class Broken:
    """Behaves for 100 requests."""

    def __init__(self) -> None:
        self.calls = 0

    def choose(self, request, replicas):  # type: ignore[no-untyped-def]
        self.calls += 1
        return replicas[0].replica_id if self.calls <= 100 else self.misbehave(replicas)


class Raises(Broken):
    def misbehave(self, replicas):  # type: ignore[no-untyped-def]
        raise KeyError("oops")


class Invents(Broken):
    def misbehave(self, replicas):  # type: ignore[no-untyped-def]
        return "nobody"


class Mutates(Broken):
    def misbehave(self, replicas):  # type: ignore[no-untyped-def]
        replicas[0].outstanding = 0


class Interrupted(Broken):
    def misbehave(self, replicas):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("make", "reason"), [(Raises, "KeyError"), (Invents, "'nobody'"), (Mutates, "outstanding"), (Interrupted, "interr")]
)
def test_what_a_policy_does_wrong_stops_the_run_and_keeps_the_results(
    small: Callable[..., Scenario], make: type[Broken], reason: str
) -> None:
    result = simulate(with_balancer(small(), make))
    assert result.stopped is not None
    assert reason in result.stopped
    if make is not Interrupted:
        assert make.__name__ in result.stopped
        assert "q100" in result.stopped, "the request that triggered it is named"
    assert 80 < len(result.outcomes) <= 100
    assert result.outcomes.by_status() == {200: len(result.outcomes)}


# --- a failure that outlives its cause -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.full), pytest.param(3, marks=pytest.mark.full)])
def test_naive_retries_keep_goodput_down_after_the_fault_and_a_budget_brings_it_back(seed: int) -> None:
    """The fault lasts from 60 s to 90 s; the last 100 s are looked at."""

    def shares(variant: str) -> tuple[float, float]:
        result = simulate(load(SCENARIOS / "retry_storm.toml", variant=variant), seed)
        before, late = (result.outcomes.arrived_between(*span) for span in ((10.0, 55.0), (140.0, 240.0)))
        return attainment(before, result.slo), attainment(late, result.slo)

    naive_before, naive_late = shares("naive")
    budgeted_before, budgeted_late = shares("budgeted")
    assert min(naive_before, budgeted_before) > 0.95
    assert naive_late < 0.2
    assert budgeted_late >= 0.95 * budgeted_before


def replayed(folder: Path, lines: Iterable[dict[str, object]]) -> Path:
    """Write a Mooncake trace and the scenario that replays it on four replicas; return the scenario's path."""
    (folder / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    path = folder / "trace.toml"
    path.write_text(
        '[workload]\ntrace = { file = "trace.jsonl", format = "mooncake" }\n[fleet]\nmodel = "llama-3.1-8b"\n'
        '[[fleet.replicas]]\nname = "a100"\ncount = 4\nhardware = "a100-80gb"\n',
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("balancer", ["prefix-affinity", "consistent-hash"])
def test_long_prompts_with_answers_of_one_token_do_not_pile_up_where_the_prefix_is(
    tmp_path: Path, balancer: str
) -> None:
    """Their beginnings are alike, and loads looked equal at each decision: elsewhere all went to the first worker."""
    path = replayed(
        tmp_path,
        (
            {
                "timestamp": i * 400,
                "input_length": 32_000,
                "output_length": 1,
                "hash_ids": [1, 2, *range(100 + i * 70, 161 + i * 70)],
            }
            for i in range(60)
        ),
    )
    run, drawn = (simulate(load(path, settings=[Setting.parse(f"policies.balancer={b}")])) for b in (balancer, "p2c"))
    shares = run.outcomes.by_replica()
    assert len(shares) == 4, "none is idle"
    assert max(shares.values()) <= 0.4 * 60
    assert run.figures()["ttft_p99_s"] <= 1.25 * drawn.figures()["ttft_p99_s"]


@pytest.mark.parametrize("balancer", ["prefix-affinity", "consistent-hash"])
def test_one_prompt_for_everybody_is_found_in_nearly_every_cache_and_no_replica_has_it_all(
    tmp_path: Path, balancer: str
) -> None:
    path = replayed(
        tmp_path,
        (
            {"timestamp": i * 40, "input_length": 2048, "output_length": 60, "hash_ids": [1, 2, 3, 4]}
            for i in range(400)
        ),
    )
    run = simulate(load(path, settings=[Setting.parse(f"policies.balancer={balancer}")]))
    shares = run.outcomes.by_replica()
    assert len(shares) == 4
    assert max(shares.values()) <= 0.4 * 400
    assert run.figures()["cached_fraction"] > 0.9
