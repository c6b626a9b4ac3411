"""The ledger: worked by hand, equal to the bill in every scenario, the same however steps are simulated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import simpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import UpstreamError
from miniserve.faults import ReplicaEvent, ReplicaFault
from miniserve.hardware.prices import ColdStart
from miniserve.hardware.spec import ReplicaSpec
from miniserve.observe.cost import ACCOUNTS, DIMENSIONS, Ledger
from miniserve.scenario import Scenario, load
from miniserve.sim import run as run_module
from miniserve.sim.fleet import SimFleet
from miniserve.sim.meter import Meter
from miniserve.sim.result import SimResult
from miniserve.sim.run import simulate
from miniserve.toml.source import Setting
from miniserve.types import AttemptResult, FinishReason, Outcome, Priority, Request, SamplingParams, Send

SCENARIOS = sorted((Path(__file__).parents[2] / "data" / "scenarios").glob("*.toml"))
SPEC = ReplicaSpec(
    StepTimeModel(1.0, 0.1, 0.05, 0.0, 0.0),
    hardware="gpu",
    usd_per_hour=3600.0,  # a dollar per second
    version="chat",
    cold_start=ColdStart(2.0, 1.0, 0.0, spread_fraction=0.0),
)


def send(name: str, prompt: int, output: int, replica: str = "r0", attempt: int = 0, tenant: str = "") -> Send:
    first = sum(name.encode()) << 20
    sampling = SamplingParams(max_tokens=output, ignore_eos=True)
    request = Request(name, "m", range(first, first + prompt), sampling, tenant=tenant, priority=Priority.BATCH)
    return Send(replica, request, attempt)


def ok(name: str, *replicas: str) -> Outcome:
    """The last of `replicas` answered; those before it failed."""
    lost = [AttemptResult(replica, error=UpstreamError("broke off")) for replica in replicas[:-1]]
    return Outcome(name, FinishReason.LENGTH, attempts=(*lost, AttemptResult(replicas[-1], FinishReason.LENGTH)))


class Bench:
    """A fleet with a meter, on its own clock."""

    def __init__(self, *replicas: ReplicaSpec, **options: object) -> None:
        self.env = simpy.Environment()
        self.meter = Meter()
        self.fleet = SimFleet(self.env, meter=self.meter, **options)  # type: ignore[arg-type]
        for spec in replicas:
            self.fleet.add(spec, ready=True)

    def ledger(self, until_s: float) -> Ledger:
        if until_s > self.env.now:
            self.env.run(until_s)
        ledger = self.fleet.ledger()
        assert ledger is not None
        return ledger


def dollars(ledger: Ledger) -> dict[str, Any]:
    return {line.name: pytest.approx(line.usd) for line in ledger.by("account")}


def test_two_requests_by_hand() -> None:
    """A has 3 + 2 tokens, B has 5 + 3; a step takes 1 s, 0.05 s per prompt token and 0.1 s per row.

    step 1   3 tokens of A, 5 of B   1.4 s    A 0.525   B 0.875
    step 2   a token of each         1.2 s    A 0.6     B 0.6
    step 3   a token of B            1.1 s              B 1.1
    """
    bench = Bench(SPEC)
    for a in (send("a", 3, 2, tenant="acme"), send("b", 5, 3, tenant="beta")):
        bench.fleet.start_attempt(a)
    for name in "ab":
        bench.meter.settle(ok(name, "r0"))
    ledger = bench.ledger(10.0)
    assert dollars(ledger) == {"prompt": 1.4, "output": 2.3, "idle": 6.3}
    costs = {line.name: line for line in ledger.by("tenant")}
    assert [costs["acme"].usd, costs["beta"].usd] == [pytest.approx(1.125), pytest.approx(2.575)]
    assert (costs["acme"].answer_tokens, costs["beta"].answer_tokens, costs["(idle)"].answers) == (2, 3, 0)
    assert costs["acme"].usd_per_million_tokens == pytest.approx(1.125 / 2 * 1e6)
    assert ledger.total.usd_per_answer == pytest.approx(5.0)
    assert ledger.total.usd_per_million_tokens == pytest.approx(2e6), "idle time included"
    assert [line.name for line in ledger.by("model")] == ["chat"]
    assert {line.name for line in ledger.by("request type")} == {"batch", "(idle)"}
    driver = ledger.biggest_driver()
    assert driver is not None
    assert driver.account == "idle"
    assert driver.fraction == pytest.approx(0.63)


def test_the_driver_says_who() -> None:
    bench = Bench(SPEC)
    for a in (send("a", 3, 2, tenant="acme"), send("b", 5, 3, tenant="beta")):
        bench.fleet.start_attempt(a)
    for name in "ab":
        bench.meter.settle(ok(name, "r0"))
    driver = bench.ledger(3.7).biggest_driver()
    assert str(driver) == ("biggest driver: output, 2.3000 USD = 62.2% of the bill, most of it by tenant beta (74%)")


def test_a_cold_start_is_paid_and_nobodys() -> None:
    bench = Bench()
    bench.fleet.add(SPEC)
    bench.env.run(3.0)
    bench.fleet.start_attempt(send("a", 3, 1))
    bench.meter.settle(ok("a", "r0"))
    assert dollars(bench.ledger(5.0)) == {"starting": 3.0, "prompt": 1.15, "output": 0.0, "idle": 0.85}


def test_a_lost_step_counts_up_to_the_crash_and_as_failed() -> None:
    bench = Bench(SPEC, SPEC)
    bench.fleet.start_attempt(send("a", 3, 5))
    bench.env.run(1.5)  # 0.35 s into its second step
    bench.fleet.crash("r0")
    bench.fleet.start_attempt(send("a", 3, 1, "r1", attempt=1))
    bench.meter.settle(ok("a", "r0", "r1"))
    ledger = bench.ledger(4.0)
    assert dollars(ledger) == {"failed": 1.5, "prompt": 1.15, "output": 0.0, "idle": 5.35}
    assert ledger.total.answers == 1


def test_the_loser_of_a_hedge_has_its_own_account() -> None:
    bench = Bench(SPEC, replace(SPEC, speed=0.5))
    slow = bench.fleet.start_attempt(send("a", 3, 1, "r1"))
    bench.fleet.start_attempt(send("a", 3, 1, "r0", attempt=1))
    bench.env.run(1.15 + 1e-9)
    slow.abort()  # what its step has begun is computed to the end
    winner = AttemptResult("r0", FinishReason.LENGTH, losers=(AttemptResult("r1"),))
    bench.meter.settle(Outcome("a", FinishReason.LENGTH, attempts=(winner,)))
    assert dollars(bench.ledger(3.0)) == {"hedge": 2.3, "prompt": 1.15, "output": 0.0, "idle": 2.55}


def test_cached_tokens_cost_nothing_and_are_counted_apart() -> None:
    bench = Bench(replace(SPEC, cache=CacheConfig(64, 4)))
    for number in (0, 1):
        bench.fleet.start_attempt(
            replace(send("a", 9, 1), request=replace(send("a", 9, 1).request, request_id=f"a{number}"))
        )
        bench.env.run(5.0 * (number + 1))
        bench.meter.settle(ok(f"a{number}", "r0"))
    ledger = bench.ledger(10.0)
    assert ledger.cached_tokens == 8
    assert dollars(ledger) == {"prompt": 1.45 + 1.1, "output": 0.0, "cached": 0.0, "idle": 7.45}
    assert ledger.cached_worth_usd == pytest.approx(8 * 2.55 / 10)


def test_what_preemption_threw_away_is_computed_again_on_its_own_account() -> None:
    bench = Bench(replace(SPEC, cache=CacheConfig(8, 4, False), scheduler=SchedulerConfig(watermark_fraction=0)))
    for name in "ab":
        bench.fleet.start_attempt(send(name, 12, 12))
    bench.env.run(100.0)
    for name in "ab":
        bench.meter.settle(ok(name, "r0"))
    ledger = bench.ledger(100.0)
    counters = bench.fleet.members()[0].replica.counters
    again = [entry for entry in ledger.entries if entry.account == "again"]
    assert counters.preemptions > 0
    assert sum(entry.tokens for entry in again) == counters.recomputed_tokens
    assert sum(entry.usd for entry in again) > 0
    assert ledger.total.answer_tokens == 24


def test_a_hang_is_idle_time() -> None:
    bench = Bench(SPEC)
    bench.fleet.start_attempt(send("a", 3, 2))
    bench.env.run(0.5)
    bench.fleet.begin_fault(ReplicaEvent(0.5, "r0", ReplicaFault.HANG, 10.0, 1.0))
    bench.env.run(20.0)
    bench.meter.settle(ok("a", "r0"))
    assert dollars(bench.ledger(20.0)) == {"prompt": 1.15, "output": 1.1, "idle": 20 - 2.25}


# --- every scenario ------------------------------------------------------------------------------------------------


def check(result: SimResult) -> Ledger:
    """What must hold for any run at all."""
    ledger = result.ledger
    assert ledger is not None
    assert round(ledger.usd, 2) == round(ledger.billed_usd, 2)
    assert ledger.usd == pytest.approx(ledger.billed_usd, rel=1e-9, abs=1e-9)
    assert ledger.seconds == pytest.approx(ledger.billed_s, rel=1e-9)
    assert all(entry.seconds >= 0 or entry.seconds > -1e-6 for entry in ledger.entries)
    assert {entry.account for entry in ledger.entries} <= set(ACCOUNTS)
    for dimension in DIMENSIONS:
        assert sum(line.usd for line in ledger.by(dimension)) == pytest.approx(ledger.usd)
    return ledger


def shortened(path: Path, requests: int, *more: str) -> Scenario:
    return load(path, settings=[Setting.parse(text) for text in (f"run.requests={requests}", *more)])


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_ledger_sums_to_the_bill_in_every_scenario(path: Path) -> None:
    scenario = shortened(path, 250)
    result = simulate(scenario, meter=Meter())
    ledger = check(result)
    assert scenario.fleet is not None
    is_priced = any(group.hardware is not None for group in scenario.fleet.replicas)  # some are of this machine
    assert ledger.billed_s > 0
    assert (ledger.billed_usd > 0) == is_priced
    if scenario.clients is None:
        assert ledger.total.answers == int(result.outcomes.served.sum())
        sent = int(result.outcomes.output_tokens[result.outcomes.served].sum())
        broken = scenario.faults.cut_fraction > 0  # what such an attempt had brought is in the account of failures
        assert ledger.total.answer_tokens < sent if broken else ledger.total.answer_tokens == sent


def test_a_meter_changes_nothing() -> None:
    scenario = shortened(SCENARIOS[0], 200)
    plain, metered = simulate(scenario), simulate(scenario, meter=Meter())
    assert plain.ledger is None
    assert plain.outcomes.ended_s.tolist() == metered.outcomes.ended_s.tolist()


WILD = """
[run]
requests = 120
[workload]
prompt = { kind = "geometric", mean_tokens = 200 }
output = { kind = "geometric", mean_tokens = 40 }
arrivals = { kind = "poisson", rate_per_s = 3 }
conversations = {}
tenants = { acme = 3, beta = 1 }
features = { search = 1, chat = 1 }
regions = { us = 1, eu = 1 }
[fleet]
model = "smollm2-135m"
latency_s = { us = { eu = 0.05 } }
[[fleet.replicas]]
name = "gpu"
count = 2
hardware = "t4"
region = "us"
spot = true
[[fleet.replicas]]
name = "cpu"
count = 3
hardware = "cpu-2core"
region = "eu"
[engine.cache]
num_blocks = 90
[policies]
balancer = "random"
"""
STRANGE = (
    "policies.hedge_after_s=0.3",
    "policies.first_token_s=0.5",
    "workload.deadline_after_s=4",
    "faults.error_fraction=0.2",
    "faults.cut_fraction=0.3",
    "policies.resume=true",
    "engine.scheduler.turn_tokens=8",
    "clients={timeout_s=2, retry={kind='naive', max_attempts=3}}",
    "fleet.prefix_tier={capacity_bytes=1e9, bandwidth_bytes_per_s=1e9}",
    "faults.events=[{at_s=5, kind='crash', duration_s=4}, {at_s=12, kind='hang', duration_s=6, replicas=['cpu-*']}]",
    "faults.events=[{at_s=5, kind='slow', factor=5, duration_s=9}, {at_s=9, kind='partition', duration_s=6}]",
    "autoscaler={group='cpu', policy={kind='target-tracking', target=4}, period_s=3, down_after_s=6}",
)


def sums_whatever_happens(chosen: set[str], seed: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums hold, and jumping over steps gives the same entries as single steps."""
    path.write_text(WILD)
    scenario = shortened(path, 120, *sorted(chosen))
    ledger = check(simulate(scenario, seed, meter=Meter()))
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "SimFleet", lambda env, **options: SimFleet(env, single_step=True, **options))
        single = check(simulate(scenario, seed, meter=Meter()))
    for one, other in zip(ledger.entries, single.entries, strict=True):
        assert (one.account, one.labels, one.tokens, one.answers) == (
            other.account,
            other.labels,
            other.tokens,
            other.answers,
        )
        assert one.seconds == pytest.approx(other.seconds, abs=1e-6)


CHOSEN = st.sets(st.sampled_from(STRANGE), max_size=7)
TWO_FIXTURES = [HealthCheck.function_scoped_fixture]


@settings(max_examples=6, deadline=None, suppress_health_check=TWO_FIXTURES)
@given(chosen=CHOSEN, seed=st.integers(0, 1000))
def test_the_ledger_sums_to_the_bill_whatever_happens(
    chosen: set[str], seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums_whatever_happens(chosen, seed, tmp_path / "wild.toml", monkeypatch)


@pytest.mark.full
def test_two_hundred_ledgers_sum_to_their_bills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    runs = 0

    @settings(max_examples=200, deadline=None, database=None)
    @given(chosen=CHOSEN, seed=st.integers(0, 1_000_000))
    def check_all(chosen: set[str], seed: int) -> None:
        nonlocal runs
        sums_whatever_happens(chosen, seed, tmp_path / "wild.toml", monkeypatch)
        runs += 1

    check_all()
    record_property("scenarios", runs)


def test_work_is_steps_times_their_length(tmp_path: Path) -> None:
    """Told by the engine's own counter, which the meter does not read."""
    path = tmp_path / "wild.toml"
    path.write_text(WILD)
    constant = "fleet.replicas=[{name='r', count=2, step_time={base_s=0.25}, region='us'}]"
    fleets: list[SimFleet] = []

    def remember(env: simpy.Environment, **options: object) -> SimFleet:
        fleets.append(SimFleet(env, **options))  # type: ignore[arg-type]
        return fleets[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "SimFleet", remember)
        ledger = check(simulate(shortened(path, 60, constant), meter=Meter()))
    steps = sum(member.replica.counters.steps for member in fleets[0].members())
    work_s = sum(entry.seconds for entry in ledger.entries if entry.account not in ("idle", "starting"))
    assert work_s == pytest.approx(0.25 * steps)
    assert ledger.usd == 0
    assert ledger.biggest_driver() is None
