"""`miniserve simulate`: what a person types, and what they see."""

from __future__ import annotations

import csv
import json
import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from miniserve.__main__ import main

SCENARIO = """
description = "three small replicas"
[run]
requests = 200
seed = 3
[workload]
prompt = { kind = "constant", tokens = 20 }
output = { kind = "geometric", mean_tokens = 20 }
arrivals = { kind = "poisson", rate_per_s = 5 }
[[fleet.replicas]]
name = "r"
count = 3
step_time = { base_s = 0.02 }
[slo]
e2e_s = 2
"""
VARIANTS = """
[variants.one.policies]
balancer = "random"
[variants.two.policies]
balancer = "p2c"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "s.toml"
    path.write_text(SCENARIO)
    return path


def test_one_run_is_a_table(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "s.toml"]) == 0
    seen = capsys.readouterr()
    assert "three small replicas" in seen.out
    assert "latency (ms)" in seen.out
    assert "200 requests in" in seen.out
    assert "E2E <= 2 s" in seen.out
    assert seen.err == ""


def test_figures_and_numbers_go_to_files(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "s.toml", "--seeds", "2", "--plot", "p.png", "--out", "o.json", "--requests", "50"]) == 0
    assert "mean of 2 seeds" in capsys.readouterr().out
    assert Path("p.png").stat().st_size > 5000
    record = json.loads(Path("o.json").read_text())
    assert record["seeds"] == [3, 4]
    assert [run["requests"] for run in record["figures"]["s"]] == [50, 50]


def test_every_request_is_a_row_of_a_table_and_caches_are_in_the_numbers(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["simulate", "s.toml", "--compare", "p2c", "random", "--requests", "50", "--seeds", "2"]
    assert main([*command, "--out", "o.json", "--requests-out", "r.csv", "--set", "run.warmup_s=2"]) == 0
    assert "requests in r.csv" in capsys.readouterr().out
    with Path("r.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    figures = json.loads(Path("o.json").read_text())["figures"]
    for case in ("p2c", "random"):
        mine = [row for row in rows if row["case"] == case]
        assert len(mine) == figures[case][0]["requests"] < 50, "without the warm-up"
        assert {row["seed"] for row in mine} == {"3"}
        assert all(float(row["arrived_s"]) >= 2 and 0 < float(row["ttft_s"]) <= float(row["e2e_s"]) for row in mine)
        assert {row["status"] for row in mine} == {"200"}
        assert {row["replica"] for row in mine} == {"r-0", "r-1", "r-2"}
        assert sum(int(row["output_tokens"]) for row in mine) / figures[case][0]["duration_s"] == pytest.approx(
            figures[case][0]["output_tokens_per_s"]
        )
        assert figures[case][0]["block_evictions"] == 0 <= figures[case][0]["block_hits"]


def test_what_never_happened_to_a_request_is_an_empty_cell(file: Path) -> None:
    refuse = 'policies.admission=[{kind="concurrency", limit={kind="fixed", limit=1}}]'
    assert main(["simulate", "s.toml", "--requests-out", "r.csv", "--set", refuse]) == 0
    with Path("r.csv").open(newline="", encoding="utf-8") as lines:
        refused = [row for row in csv.DictReader(lines) if row["status"] == "503"]
    assert refused
    assert {(row["ttft_s"], row["replica"], row["output_tokens"]) for row in refused} == {("", "", "0")}


def test_balancers_are_compared_on_the_same_seeds(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["simulate", "s.toml", "--compare", "round-robin", "p2c", "--seeds", "3", "--out", "o.json"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "difference from round-robin, paired over 3 seeds" in out
    figures = json.loads(Path("o.json").read_text())["figures"]
    for theirs, ours in zip(figures["round-robin"], figures["p2c"], strict=True):
        assert theirs["requests"] == ours["requests"]
        assert theirs["e2e_mean_s"] != ours["e2e_mean_s"]


def test_a_policy_compared_with_itself_as_a_table_is_the_same(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = ["p2c", 'policies.balancer="p2c"', 'policies.balancer={kind="p2c"}']
    assert main(["simulate", "s.toml", "--requests", "50", "--seeds", "2", "--compare", *cases]) == 0
    out = capsys.readouterr().out
    assert "same" in out
    assert not {"better", "worse", "nan"} & set(out.split())
    assert main(["simulate", "s.toml", "--requests", "1", "--seeds", "2", "--compare", "p2c", "random"]) == 0


def test_settings_are_compared_too(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = ["fleet.replicas.0.count=2", "fleet.replicas.0.count=4"]
    assert main(["simulate", "s.toml", "--compare", *cases, "--seeds", "2"]) == 0
    assert "difference from fleet.replicas.0.count=2" in capsys.readouterr().out


def test_variants_of_the_file_run_side_by_side_or_one_alone(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(SCENARIO + VARIANTS)
    assert main(["simulate", "s.toml", "--seeds", "2"]) == 0
    assert "difference from one, paired over 2 seeds" in capsys.readouterr().out
    assert main(["simulate", "s.toml", "--variant", "two"]) == 0
    assert "balancer p2c" in capsys.readouterr().out


def test_a_users_own_balancer(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("class Mine:\n    def choose(self, request, replicas):\n        return 'r-2'\n")
    assert main(["simulate", "s.toml", "--balancer", "mine.py:Mine", "--out", "o.json"]) == 0
    assert main(["simulate", "s.toml", "--compare", "p2c", "mine.py:Mine", "--seeds", "2"]) == 0
    assert "mine.py:Mine" in capsys.readouterr().out


def test_a_policy_that_misbehaves_stops_the_run_with_what_is_there(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "class Mine:\n    n = 0\n    def choose(self, request, replicas):\n        self.n += 1\n"
    Path("mine.py").write_text(text + "        return replicas[0].replica_id if self.n < 90 else 'nobody'\n")
    assert main(["simulate", "s.toml", "--balancer", "mine.py:Mine", "--plot", "p.png"]) == 1
    out = capsys.readouterr().out
    assert "stopped: " in out
    assert "Mine" in out
    assert "'nobody'" in out
    assert "q89" in out
    assert "latency (ms)" in out
    assert Path("p.png").exists()


def test_a_comparison_that_stops_in_its_first_seed_shows_what_each_case_did(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "class Boom:\n    n = 0\n    def choose(self, request, replicas):\n        self.n += 1\n"
    Path("more.py").write_text(text + "        return replicas[0].replica_id if self.n < 90 else 'nobody'\n")
    assert main(["simulate", "s.toml", "--compare", "random", "more.py:Boom", "p2c", "--seeds", "2"]) == 1
    out = capsys.readouterr().out
    assert "\nrandom:\n" in out
    assert "\nmore.py:Boom:\n" in out
    assert out.count("latency (ms)") == 2
    assert "stopped early" in out


def test_ctrl_c_shows_what_ran_so_far(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The signal comes in the middle of a policy's work; the request it is working on is finished first."""
    text = "import os, signal\nclass Mine:\n    n = 0\n    def choose(self, request, replicas):\n        self.n += 1\n"
    signalling = "        if self.n == 90:\n            os.kill(os.getpid(), signal.SIGINT)\n"
    Path("mine.py").write_text(text + signalling + "        return replicas[0].replica_id\n")
    before = signal.getsignal(signal.SIGINT)
    assert main(["simulate", "s.toml", "--balancer", "mine.py:Mine"]) == 130
    out = capsys.readouterr().out
    assert "stopped: interrupted after" in out
    assert "latency (ms)" in out
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["none.toml"], "none.toml does not exist"),
        (
            ["s.toml", "--set", "run.request=5"],
            "--set run.request=5: run.request: unknown key; did you mean `requests`?",
        ),
        (["s.toml", "--balancer", "p3c"], '--balancer p3c: policies.balancer: there is no "p3c"; did you mean `p2c`?'),
        (["s.toml", "--compare", "p2c", "p2c"], "--compare p2c p2c: there is nothing to compare; name two or more"),
        (["s.toml", "--compare", "p2c"], "--compare p2c: there is nothing to compare"),
        (
            ["s.toml", "--compare", "p2c", 'policies.balancer={kind="p2c",seed=1}'],
            "policies.balancer.seed: unknown key; the run gives it to every policy",
        ),
        (["s.toml", "--compare", "p2c", "p3c"], '--compare p3c: policies.balancer: there is no "p3c"'),
        (["s.toml", "--balancer", "no.py:Mine"], "policies.balancer: no.py does not exist"),
        (["s.toml", "--variant", "x"], "s.toml has no variant 'x'; nothing is allowed here"),
        (["s.toml", "--plot", "p.txt"], "--plot p.txt: the name must end in .png, .svg or .pdf"),
        (["s.toml", "--out", "no/o.json"], "does not exist"),
        (["s.toml", "--out", "."], ". is a folder: name a file in it"),
        (["s.toml", "--set", "fleet.model=gpt"], 'fleet.model: there is no "gpt"'),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    assert main(["simulate", *arguments]) == 2
    seen = capsys.readouterr()
    assert problem in seen.err
    assert seen.err.count("\n") == 1
    assert seen.out == ""


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["simulate", "--help"])
    assert leaving.value.code == 0
    out = capsys.readouterr().out
    assert "--compare CASE" in out
    assert "miniserve simulate data/scenarios/retry_storm.toml" in out


def test_what_the_money_went_into(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(SCENARIO.replace("step_time = { base_s = 0.02 }", 'hardware = "cpu-2core"'))
    tenants = ["--set", "workload.tenants={acme=3, beta=1}", "--requests", "50"]
    assert main(["simulate", "s.toml", "--cost", "--plot", "p.png", *tenants]) == 0
    seen = capsys.readouterr().out
    assert "biggest driver: " in seen
    assert "by tenant" in seen
    assert "by feature" not in seen, "all have the same"
    assert Path("p-cost.png").stat().st_size > 5000
    assert main(["simulate", "s.toml", "--requests", "50", "--cost", "model"]) == 0
    seen = capsys.readouterr().out
    assert "by model" in seen
    assert "by account" not in seen
    with pytest.raises(SystemExit):
        main(["simulate", "s.toml", "--cost", "colour"])
    assert "invalid choice: 'colour'" in capsys.readouterr().err


def test_a_users_own_autoscaler_and_what_it_cost(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(SCENARIO + '[autoscaler]\npolicy = { kind = "reactive", target = 2 }\nmax_replicas = 6\n')
    body = "class Mine:\n    def tick(self, now_s, view):\n        return [ScaleTo(5)]\n"
    Path("own.py").write_text("from miniserve.types import ScaleTo\n" + body)
    assert main(["simulate", "s.toml", "--autoscaler", "own.py:Mine", "--plot", "a.png"]) == 0
    assert "replica hours" in capsys.readouterr().out
    cases = ["autoscaler.policy=own.py:Mine", "autoscaler.policy={kind='reactive', target=2}"]
    assert main(["simulate", "s.toml", "--seeds", "2", "--compare", *cases, "--plot", "b.png"]) == 0
    assert "replicas paid (hours)" in capsys.readouterr().out
    assert Path("b.png").stat().st_size > 5000


def test_every_decision_is_a_line(file: Path, tmp_path: Path) -> None:
    lines = tmp_path / "decisions.jsonl"
    assert main(["simulate", "s.toml", "--requests", "20", "--decisions", str(lines)]) == 0
    decisions = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [one["at_s"] for one in decisions] == sorted(one["at_s"] for one in decisions)
    by_verb = Counter(one["what"] for one in decisions)
    assert by_verb["send"] == by_verb["result"] == by_verb["end"] == 20
    assert {one["request"] for one in decisions} == {f"q{i}" for i in range(20)}
    sent = next(one for one in decisions if one["what"] == "send")
    assert set(sent) == {"at_s", "request", "what", "replica", "attempt"}


def test_decisions_of_several_runs_are_not_mixed(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = str(tmp_path / "decisions.jsonl")
    assert main(["simulate", "s.toml", "--seeds", "2", "--decisions", lines]) == 2
    assert "one run at a time" in capsys.readouterr().err


def test_advice_is_a_table(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(SCENARIO.replace("step_time = { base_s = 0.02 }", 'hardware = "cpu-2core"'))
    assert main(["simulate", "s.toml", "--requests", "20", "--advise"]) == 0
    told = capsys.readouterr().out
    assert "smollm2-135m at 5 requests/s of 20 + " in told
    assert re.search(r"│ cpu-2core \*? +│ +\d+ │", told)
    assert "h100-80gb" in told


def test_without_priced_hardware_there_is_no_advice(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "s.toml", "--requests", "20", "--advise"]) == 2
    assert "no advice: " in capsys.readouterr().err


def test_a_policies_file_replaces_the_scenarios_own(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.toml").write_text('[policies]\nbalancer = "p2c"\n[engine.scheduler]\nmax_running = 3\n')
    assert main(["simulate", "s.toml", "--requests", "20", "--policies", "p.toml"]) == 0
    assert "balancer p2c" in capsys.readouterr().out
    Path("p.toml").write_text('[policies]\nbalancr = "p2c"\n')
    assert main(["simulate", "s.toml", "--requests", "20", "--policies", "p.toml"]) == 2
    assert "p.toml:2: policies.balancr: unknown key; did you mean `balancer`?" in capsys.readouterr().err


def test_what_only_a_live_gateway_does_is_not_passed_over_in_silence(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(SCENARIO + '[models]\nbig = "large"\n[degradation]\ncapacity = 8\n')
    assert main(["simulate", "s.toml", "--requests", "5"]) == 0
    assert "not simulated, of a live gateway only: models, degradation" in capsys.readouterr().out
