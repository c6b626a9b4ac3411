"""Cases side by side: the same seeds for all, paired differences, phases around a fault, and partial results."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from rich.console import Console

from miniserve.scenario import Scenario, load
from miniserve.sim import comparison as experiment
from miniserve.sim.comparison import PolicyComparison, phases
from miniserve.sim.result import SimResult
from miniserve.toml.source import Setting

TEXT = """
[run]
requests = 200
[workload]
prompt = { kind = "constant", tokens = 20 }
output = { kind = "geometric", mean_tokens = 20 }
arrivals = { kind = "poisson", rate_per_s = 5 }
[[fleet.replicas]]
name = "fast"
count = 2
step_time = { base_s = 0.02 }
[[fleet.replicas]]
name = "slow"
step_time = { base_s = 0.2 }
[slo]
e2e_s = 2
"""
FAULT = "faults.events=[{at_s=10, kind='slow', factor=9, duration_s=5}]"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "s.toml"
    path.write_text(TEXT)
    return path


def case(file: Path, *settings: str) -> Scenario:
    return load(file, settings=[Setting.parse(text) for text in settings])


def shown(thing: object) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(thing)
    console.file.close()
    return console.export_text()


@pytest.fixture
def compared(file: Path) -> PolicyComparison:
    names = ("round-robin", "least-outstanding")
    return PolicyComparison({name: case(file, f"policies.balancer={name}") for name in names}, range(4)).run()


def test_counting_requests_beats_taking_turns_where_replicas_differ(compared: PolicyComparison) -> None:
    comparison = compared.comparison()
    assert comparison is not None
    assert (comparison.base, comparison.seeds) == ("round-robin", 4)
    mean = next(row for row in comparison.differences if row.metric == "e2e_mean_s")
    assert mean.verdict == "better"
    assert all(row.base_mean or row.policy_mean for row in comparison.differences), "a row of zeros says nothing"


def test_tables_name_every_case(compared: PolicyComparison, tmp_path: Path) -> None:
    text = shown(compared.table())
    assert "mean of 4 seeds and 95 % interval" in text
    assert "round-robin" in text
    assert "±" in text
    assert compared.phase_table() is None, "nothing happens to these replicas"
    assert compared.plot(tmp_path / "c.png").stat().st_size > 5000


def test_one_case_has_no_comparison_but_a_plot(file: Path, tmp_path: Path) -> None:
    one = PolicyComparison({"only": case(file)}, [1]).run()
    assert one.comparison() is None
    assert one.plot(tmp_path / "o.svg").stat().st_size > 5000
    assert "±" not in shown(one.table())


def test_phases_lie_around_the_fault(file: Path) -> None:
    assert phases(case(file)) == ()
    spans = [(phase.start_s, phase.end_s) for phase in phases(case(file, FAULT))]
    assert spans == [(0, 10), (10, 15), (15, 20), (20, math.inf)]
    endless = phases(case(file, "faults.events=[{at_s=10, kind='hang'}]"))
    assert [(phase.start_s, phase.end_s) for phase in endless] == [(0, 10), (10, math.inf)]


def test_the_phase_table_shows_the_fault(file: Path) -> None:
    run = PolicyComparison({"a": case(file, FAULT)}, [1, 2]).run()
    assert run.shares["a"][0]["before"] > run.shares["a"][0]["during the fault"] + 0.2
    assert "just after it" in shown(run.phase_table())


def test_a_run_that_breaks_off_ends_the_experiment_and_leaves_whole_seeds(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = experiment.simulate, []

    def fourth_is_interrupted(scenario: Scenario, seed: int, **more: object) -> SimResult:
        calls.append(seed)
        result = real(scenario, seed)
        stopped = "interrupted after 1 simulated seconds" if len(calls) == 4 else None
        return SimResult(result.outcomes, result.series, result.meta, result.slo, stopped)

    monkeypatch.setattr(experiment, "simulate", fourth_is_interrupted)
    cases = {name: case(file, f"policies.balancer={name}") for name in ("random", "p2c")}
    run = PolicyComparison(cases, range(5)).run()
    assert calls == [0, 0, 1, 1]
    assert run.stopped == "p2c, seed 1: interrupted after 1 simulated seconds"
    assert run.interrupted
    assert run.complete_seeds == 1
    assert run.comparison() is None
    assert "mean of 1 seeds" in shown(run.table())


def test_progress_names_case_and_seed(file: Path) -> None:
    told: set[tuple[str, int]] = set()
    PolicyComparison({"a": case(file)}, [3, 4]).run(lambda name, seed, answered, now_s: told.add((name, seed)))
    assert told == {("a", 3), ("a", 4)}
