"""Scenario files: the shipped ones load, and every mistake is refused before anything runs, by file, line and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from miniserve.errors import SetupError
from miniserve.faults import ReplicaFault
from miniserve.policies.recovery.retry import Backoff
from miniserve.policies.routing.balancer import PowerOfTwo
from miniserve.scenario import load, variants
from miniserve.scenario.build import replicas, resilience
from miniserve.toml.source import Setting
from miniserve.types import FleetView, Priority, ReplicaView, Request
from miniserve.workload import Bursts, Geometric, Poisson

SHIPPED = sorted((Path(__file__).parents[2] / "data" / "scenarios").glob("*.toml"))

GOOD = """\
[run]
requests = 100
seed = 3

[workload]
prompt = { kind = "geometric", mean_tokens = 60 }
deadline_after_s = 30
priorities = { interactive = 1, batch = 3 }
regions = { eu = 1, us = 1 }
[workload.arrivals]
kind = "poisson"
rate_per_s = 3.0

[fleet]
probe_interval_s = 1.0
latency_s = { eu = { us = 0.04 } }
[[fleet.replicas]]
name = "cpu"
count = 2
hardware = "cpu-2core"
region = "eu"
[[fleet.replicas]]
name = "own"
step_time = { base_s = 0.01 }
region = "us"
speed = 2

[engine.scheduler]
max_running = 8
[engine.cache]
num_blocks = 50
prefix_caching = false

[policies]
balancer = "p2c"
retry = { kind = "backoff", base_s = 0.2, jitter = "equal" }
budget = "off"
breaker = { open_s = 2 }
admission = [{ kind = "shed", at = [inf, 3.0, 1.0] }, { kind = "concurrency", limit = { kind = "fixed", limit = 9 } }]
router = "region"
first_token_s = "off"

[clients]
timeout_s = 10

[[faults.events]]
at_s = 10
kind = "slow"
replicas = ["cpu-*"]
factor = 4
duration_s = 30
[[faults.events]]
at_s = 20
kind = "hang"
replicas = ["own-0"]

[slo]
ttft_s = 1.0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "s.toml"
    path.write_text(GOOD)
    return path


def changed(file: Path, old: str, new: str) -> Path:
    assert old in GOOD
    file.write_text(GOOD.replace(old, new, 1))
    return file


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_scenarios_are_valid_in_all_their_variants(path: Path) -> None:
    for variant in (None, *variants(path)):
        scenario = load(path, variant=variant)
        assert scenario.description
        assert len(replicas(scenario)) >= 2
        resilience(scenario, seed=0)


@pytest.mark.parametrize(
    "setting",
    [
        "run.duration_s=inf",
        "run.requests=100000000000000000000",
        "run.requests=100000000000",
        "workload.prompt.mean_tokens=1e300",
        "workload.prompt.mean_tokens=inf",
        "workload.prompt.mean_tokens=1e12",
        'workload.output={kind="code-output", scale=inf}',
        'workload.output={kind="code-output", scale=1e14}',
        "workload.priorities.batch=inf",
        "workload.regions.eu=inf",
        "workload.features={chat=inf}",
        "workload.arrivals.rate_per_s=inf",
        "workload.arrivals.rate_per_s=1e-308",
        "workload.arrivals.rate_per_s=1e-9",
        'workload.arrivals={kind="bursts", rate_per_s=1, peak_per_s=2, calm_s=inf}',
        "fleet.replicas.0.count=1000000000",
        "fleet.probe_interval_s=1e-9",
        "fleet.probe_interval_s=inf",
        "engine.cache.num_blocks=1000000000000",
        'policies.budget={kind="finagle", ratio=inf}',
        'policies.budget={kind="finagle", floor_per_s=inf}',
        'autoscaler={group="cpu", policy={kind="reactive", target=2.0}, period_s=1e-308}',
        'autoscaler={group="cpu", policy={kind="reactive", target=2.0}, max_replicas=1000000000}',
        'autoscaler={group="cpu", policy={kind="predictive", replica_per_s=1, horizon_s=inf}}',
        'autoscaler={group="cpu", policy={kind="predictive", replica_per_s=1, horizon_s=1e14}}',
    ],
)
def test_values_that_no_run_could_use_are_refused_with_their_key(file: Path, setting: str) -> None:
    """Infinite, too large to hold, or so small that a loop would do nothing else."""
    key = setting.partition("=")[0].split(".")[-1]
    with pytest.raises(SetupError) as refused:
        load(file, settings=[Setting.parse(setting)])
    message = str(refused.value)
    assert key in message or "[run]" in message or "run:" in message
    assert re.search(r"too (large|close to 0)|at most|at least|requests would come|simulated time", message), message


def test_a_watch_that_would_take_the_age_of_a_report_for_silence_is_refused(file: Path) -> None:
    with pytest.raises(SetupError, match=r"probe_interval_s: 5 s is too long for a progress watch that takes 4 s"):
        load(file, settings=[Setting.parse("fleet.probe_interval_s=5")])
    for watch in ('"off"', '{kind="progress", stall_s=30}'):
        load(file, settings=[Setting.parse("fleet.probe_interval_s=5"), Setting.parse(f"policies.progress={watch}")])


def test_there_are_scenarios_to_start_with() -> None:
    assert {"quickstart", "bursty", "hetero", "retry_storm", "regions"} <= {path.stem for path in SHIPPED}


def test_everything_that_was_said_is_there(file: Path) -> None:
    scenario = load(file)
    assert (scenario.run.requests, scenario.run.seed) == (100, 3)
    assert scenario.workload.arrivals == Poisson(3.0)
    assert scenario.workload.prompt == Geometric(60.0)
    assert scenario.workload.priorities.shares == {Priority.INTERACTIVE: 1.0, Priority.BATCH: 3.0}
    assert scenario.slo.ttft_s == 1.0
    assert scenario.clients is not None
    assert isinstance(scenario.clients.retry.build(), Backoff)
    by_id = dict(replicas(scenario))
    assert list(by_id) == ["cpu-0", "cpu-1", "own-0"]
    assert (by_id["own-0"].speed, by_id["own-0"].step_time.base_s, by_id["own-0"].region) == (2.0, 0.01, "us")
    assert by_id["cpu-0"].step_time.base_s == pytest.approx(0.0133, rel=0.01)
    assert all(spec.cache.num_blocks == 50 and not spec.cache.prefix_caching for spec in by_id.values())
    assert all(spec.scheduler.max_running == 8 for spec in by_id.values())
    plan = scenario.faults.plan(0, tuple(by_id))
    events = [(event.at_s, event.replica_id, event.kind) for event in plan.replica_events()]
    assert events == [
        (10.0, "cpu-0", ReplicaFault.SLOW),
        (10.0, "cpu-1", ReplicaFault.SLOW),
        (20.0, "own-0", ReplicaFault.HANG),
    ]


def test_policies_are_made_afresh_for_each_run(file: Path) -> None:
    scenario = load(file)
    first, second = resilience(scenario, 1), resilience(scenario, 1)
    assert isinstance(first.balancer, PowerOfTwo)
    assert first.balancer is not second.balancer
    assert first.budget is None
    assert first.ejector is not second.ejector
    assert first.first_token_s is None
    assert first.breakers is not None
    assert first.admission is not None
    assert first.router is not None
    view = FleetView((ReplicaView("e", region="eu"), ReplicaView("u", region="us")))
    assert [r.replica_id for r in first.router.route(Request("q", "m", (1,), region="us"), view).replicas] == ["u"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("rate_per_s = 3.0", "rate_per_s = -3", r"s\.toml:12: workload\.arrivals\.rate_per_s: .*-3\) must be above 0"),
        ("rate_per_s = 3.0", "rate_per_min = 3", r":12: .*rate_per_min: .*the unit is wrong: write `rate_per_s"),
        ("rate_per_s = 3.0", "", r":10: workload\.arrivals: `rate_per_s` is missing; it must be a number"),
        ("requests = 100", "", r":1: run: `requests` or `duration_s` is missing"),
        ("requests = 100", "requests = 100\nwarmup_s = 40", r":3: run\.warmup_s: 40 s leaves nothing .* 33\.33 s"),
        ("requests = 100", "duration_s = 9\nwarmup_s = 9", r":3: run\.warmup_s: 9 s leaves nothing to count"),
        ("requests = 100", "requests = 1.5", r":2: run\.requests: 1\.5 is not a whole number"),
        ("[workload]", "[worload]", r":5: worload: unknown key; did you mean `workload`\?"),
        ("deadline_after_s = 30", "deadline_after_ms = 30000", r":7: .*unit is wrong: write `deadline_after_s`"),
        ("deadline_after_s = 30", 'deadline_after_s = "30s"', r':7: .*"30s" is not a number .*write the bare number'),
        ("interactive = 1", "intractive = 1", r":8: .*there is no \"intractive\"; did you mean `interactive`"),
        ("interactive = 1", "interactive = -1", r":8: workload\.priorities\.interactive: -1 is not allowed"),
        ('hardware = "cpu-2core"', 'hardware = "cpu-4core"', r":20: .*\[0\]\.hardware: there is no \"cpu-4core"),
        ('hardware = "cpu-2core"', "", r":17: fleet\.replicas\[0\]: needs either `hardware` or `step_time`"),
        ('name = "own"', 'name = "cpu"', r":23: fleet\.replicas\[1\]\.name: \"cpu\" is the name of an earlier group"),
        ("us = 0.04", "usa = 0.04", r":16: fleet\.latency_s\.eu\.usa: no client and no replica is there; did you mean"),
        ("latency_s = { eu = { us = 0.04 } }", "", r":14: fleet\.latency_s: `eu\.us` is missing: seconds one way"),
        ("us = 0.04", "us = -1", r":16: fleet\.latency_s\.eu\.us: -1 is not allowed; it must be at least 0"),
        ('hardware = "cpu-2core"', 'hardware = "t4"\nspot = 1', r":21: .*\[0\]\.spot: 1 is not true"),
        ("max_running = 8", "max_running = 0", r":29: engine\.scheduler\.max_running: .*at least 1"),
        ('balancer = "p2c"', 'balancer = "p3c"', r":35: policies\.balancer: there is no \"p3c\"; did you mean `p2c`"),
        ('balancer = "p2c"', 'balancer = "no.py:Mine"', r":35: policies\.balancer: no\.py does not exist"),
        ("base_s = 0.2", "base_ms = 200", r":36: policies\.retry\.base_ms: .*unit is wrong: write `base_s`"),
        ("base_s = 0.2", "base_s = -1", r":36: policies\.retry\.base_s: waits need 0 <= base_s"),
        ('jitter = "equal"', 'jitter = "equl"', r":36: .*jitter: there is no \"equl\"; did you mean `equal`"),
        ("open_s = 2", "open_s = 0", r":38: policies\.breaker\.open_s: a breaker needs"),
        ("at = [inf, 3.0, 1.0]", "at = [1.0, 3.0]", r":39: policies\.admission\[0\]\.at: needs 3 items, not 2"),
        ('first_token_s = "off"', 'first_token_s = "of"', r":41: policies\.first_token_s: \"of\" is not a number"),
        ("at_s = 20", "at_s = 5", r":53: faults\.events\[1\]\.at_s: 5 is before 10: events go forward in time"),
        ('replicas = ["own-0"]', 'replicas = ["own-1"]', r":55: .*\"own-1\" is no replica; they are cpu-0, cpu-1, own"),
        ('kind = "hang"', 'kind = "hung"', r":54: .*there is no \"hung\"; did you mean `hang`\? allowed: crash, hang"),
        ("factor = 4", "", r":\d+: faults\.events\[0\].*: factor \(1\) belongs to kind = \"slow\", which needs one"),
        ('kind = "hang"', 'kind = "hang"\nfactor = 3', r":55: .*\[1\]\.factor: factor \(3\) belongs to"),
        ("timeout_s = 10", "timeout_s = 10\n[faults]\ncut_after_tokens = [9, 8]", r":46: .*cut_after_tokens.*fewest"),
        ("timeout_s = 10", "timeout_s = 9\n[faults]\nerror_fraction = 0.8\ncut_fraction = 0.8", r":47: .*at most 1"),
        ("ttft_s = 1.0", "ttft_s = 0", r":58: slo\.ttft_s: ttft_s \(0\.0\) must be positive"),
        ("timeout_s = 10", "", r":43: clients: `timeout_s` is missing; it must be a number above 0"),
    ],
)  # fmt: skip
def test_every_mistake_is_refused_by_file_line_and_key(file: Path, old: str, new: str, problem: str) -> None:
    with pytest.raises(SetupError) as caught:
        load(changed(file, old, new))
    assert re.search(problem, str(caught.value)), caught.value
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_fit_is_refused_with_the_sizes(file: Path) -> None:
    with pytest.raises(
        SetupError, match=r"s\.toml:17: fleet\.replicas: llama-3\.1-8b does not fit on t4: weights 16\.1 GB"
    ):
        load(
            changed(file, 'hardware = "cpu-2core"', 'hardware = "t4"'),
            settings=[Setting.parse("fleet.model=llama-3.1-8b")],
        )
    tier = "fleet.prefix_tier={capacity_bytes=10, bandwidth_bytes_per_s=1e9}"
    with pytest.raises(SetupError, match=r"--set .*: fleet\.prefix_tier: a prefix tier needs at least 1 block"):
        load(changed(file, "seed = 3", "seed = 4"), settings=[Setting.parse(tier)])


def test_a_users_own_balancer_is_found_beside_the_scenario(file: Path) -> None:
    methods = ("def __init__(self, *, bias: float = 0): ...", "def choose(self, request, replicas): ...")
    (file.parent / "mine.py").write_text("class Mine:\n    " + "\n    ".join(methods))
    scenario = load(changed(file, 'balancer = "p2c"', 'balancer = { kind = "mine.py:Mine", bias = 3 }'))
    made = scenario.policies.balancer.build(seed=1)
    assert type(made).__name__ == "Mine"
    with pytest.raises(SetupError, match=r":35: policies\.balancer\.basi: unknown key; did you mean `bias`"):
        load(changed(file, 'balancer = "p2c"', 'balancer = { kind = "mine.py:Mine", basi = 3 }'))


def test_settings_and_variants_lie_over_the_file(file: Path) -> None:
    file.write_text(GOOD + '[variants.naive.policies]\nretry = "naive"\n[variants.wrong.policies]\nretri = 1\n')
    assert variants(file) == ("naive", "wrong")
    assert load(file, variant="naive").policies.retry.name == "naive"  # type: ignore[union-attr]
    bursts = 'workload.arrivals={kind="bursts", rate_per_s=1, peak_per_s=2}'
    scenario = load(file, settings=[Setting.parse(s) for s in ("run.requests=7", "fleet.replicas.0.count=5", bursts)])
    assert scenario.run.requests == 7
    assert len(replicas(scenario)) == 6
    assert isinstance(scenario.workload.arrivals, Bursts)
    with pytest.raises(SetupError, match=r"has no variant \"?'?naiv'?\"?; did you mean `naive`"):
        load(file, variant="naiv")
    with pytest.raises(SetupError, match=r"s\.toml:62: policies\.retri: unknown key; did you mean `retry`"):
        load(file, variant="wrong")
    with pytest.raises(SetupError, match=r"--set run\.requests=x: run\.requests: \"x\" is not a whole number"):
        load(file, settings=[Setting.parse("run.requests=x")])


def test_a_scenario_without_a_fleet_describes_demand_only(tmp_path: Path) -> None:
    path = tmp_path / "demand.toml"
    path.write_text("[run]\nduration_s = 5\n[workload]\narrivals = { kind = 'poisson', rate_per_s = 1 }\n")
    assert load(path).fleet is None
