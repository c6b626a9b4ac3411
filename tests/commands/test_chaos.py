"""`miniserve chaos`: what is refused before anything starts, what the verdict says, and one run on real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from miniserve.__main__ import main
from miniserve.drills.chaos import ChaosPlan
from miniserve.drills.verdict import DrillVerdict, Seen, Tally
from miniserve.scenario import load

SHIPPED = Path(__file__).parents[2] / "data" / "scenarios" / "chaos.toml"
ONLY_DEMAND = """
[run]
requests = 4
[workload]
prompt = { kind = "constant", tokens = 8 }
output = { kind = "constant", tokens = 40 }
arrivals = { kind = "poisson", rate_per_s = 4.0 }
"""
FLEET = """
[[fleet.replicas]]
name = "r"
count = 2
step_time = { base_s = 0.025 }
"""
KILL = """
[[faults.events]]
at_s = 1.0
kind = "crash"
replicas = ["r-0"]
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ONLY_DEMAND, "has no [fleet], so it names no replica"),
        (ONLY_DEMAND + FLEET, "has no [faults]: there is nothing to carry out"),
        (ONLY_DEMAND + FLEET.replace("count = 2", "count = 5") + KILL, "has 5 replicas, and at most 4 are run"),
        (ONLY_DEMAND + FLEET + KILL.replace("r-0", "gpu-0"), '"gpu-0" is no replica; they are r-0, r-1'),
        (ONLY_DEMAND + "[fault]\n", "fault: unknown key; did you mean `faults`?"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_before_anything_starts(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("miniserve.processes.stack.running_stack", None)
    file = tmp_path / "mine.toml"
    file.write_text(text)
    assert main(["chaos", str(file)]) == 2
    told = capsys.readouterr().err
    assert "mine.toml" in told
    assert said in told


def test_the_shipped_scenario_can_be_carried_out() -> None:
    plan = ChaosPlan.of(load(SHIPPED), seed=1)
    assert {event.kind.value for event in plan.faults.replica_events()} == {"crash", "hang", "slow", "partition"}
    assert len(plan.requests) == 60
    assert len({plan.prompt(index) for index in range(60)}) == 8
    kills = ChaosPlan.of(load(SHIPPED, variant="kills"), seed=1)
    assert [event.kind.value for event in kills.faults.replica_events()] == ["crash"] * 3


def seen(tokens: str, *, error: str | None = None, ends: int = 1) -> Seen:
    return Seen(list(tokens), error, ends)


@pytest.mark.parametrize(
    ("answer", "counted", "passes"),
    [
        (seen("abc"), {"answered": 1}, True),
        (seen("abbc"), {"altered": 1}, False),
        (seen("ab"), {"altered": 1}, False),
        (seen("abc", ends=2), {"altered": 1}, False),
        (seen("ab", ends=0), {"lost": 1}, False),
        (seen("ab", error="broke", ends=0), {"errors": ("broke",)}, False),
    ],
)
def test_the_verdict_counts_what_a_client_would_notice(answer: Seen, counted: dict[str, object], passes: bool) -> None:
    tally = Tally({"prompt": tuple("abcdef")})
    tally.add("prompt", 3, answer, any_ready=True)
    verdict = tally.verdict(resumed=4, faults=2)
    assert {name: getattr(verdict, name) for name in counted} == counted
    assert verdict.passes is passes
    assert json.loads(json.dumps(verdict.as_json()))["passes"] is passes
    assert verdict.lines()[-1] == ("passed" if passes else "FAILED")


def test_an_error_while_no_replica_is_ready_could_not_be_helped() -> None:
    tally = Tally({"prompt": tuple("abcdef")})
    tally.add("prompt", 3, seen("", error="no replica is ready", ends=0), any_ready=False)
    verdict = tally.verdict(resumed=0, faults=1)
    assert verdict.passes
    assert "1 more were refused while no replica was ready" in verdict.lines()
    assert not DrillVerdict().passes, "nothing asked is nothing proven"


def test_a_killed_replica_is_noticed_by_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "kill.toml"
    file.write_text(ONLY_DEMAND + FLEET + KILL)
    code = main(["chaos", str(file), "--json", "--offline"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    verdict = json.loads(printed.out)
    assert verdict["passes"], printed.err
    assert (verdict["requests"], verdict["answered"], verdict["faults"]) == (4, 4, 1)
    assert re.search(r"t=\d+\.\d s: r-0 killed \(pid \d+\); \d+ requests were there", printed.err)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    file = tmp_path / "kill.toml"
    file.write_text(ONLY_DEMAND + FLEET + KILL)
    command = [sys.executable, "-m", "miniserve", "chaos", str(file), "--offline"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("starting 2 replicas")
        children: list[psutil.Process] = []
        while len(children) < 2:
            children = psutil.Process(process.pid).children()
        os.kill(process.pid, signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert psutil.wait_procs(children, timeout=20)[1] == []
