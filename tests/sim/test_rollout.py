"""A rollout in virtual time: it advances, goes back, copies, and leaves everything else of a run as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from miniserve.errors import SetupError
from miniserve.policies.decision_log import Decision, decision_line
from miniserve.scenario import load
from miniserve.sim.result import SimResult
from miniserve.sim.run import simulate
from miniserve.toml.source import Setting

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "data" / "scenarios" / "rollout.toml"
SHORT = ("run.duration_s=200", "rollout.at_s=10", "rollout.min_answers=150", "rollout.keep_warm_s=20")
BAD = 'rollout.bad_fraction={"large@1" = 0.06, "large@2" = 0.3}'


def run(*settings: str, seed: int = 1) -> tuple[SimResult, list[Decision]]:
    said = [Setting.parse(text, "--set") for text in (*SHORT, *settings)]
    decisions: list[Decision] = []
    result = simulate(load(FILE, settings=said), seed, on_decision=decisions.append)
    assert result.stopped is None
    return result, [one for one in decisions if not one.request_id]


def actions(decisions: list[Decision]) -> list[tuple[object, ...]]:
    return [one.what for one in decisions]


def test_a_good_version_goes_through_all_stages_and_the_old_one_leaves() -> None:
    result, decisions = run()
    assert actions(decisions) == [
        ("shares", 0.1),
        ("shares", 0.5),
        ("shares", 1.0),
        ("retire", "large@1"),
    ]
    assert result.totals["final_share"] == 1.0
    assert result.totals["rolled_back"] == 0.0
    assert (result.outcomes.status == 200).all()
    assert [event.at_s for event in result.rollout] == sorted(event.at_s for event in result.rollout)


def test_a_bad_version_goes_back_from_its_first_stage_and_says_why() -> None:
    result, decisions = run(BAD)
    assert actions(decisions) == [("shares", 0.1), ("shares", 0.0), ("rolled_back", "large@2")]
    assert "bad:" in result.rollout[-1].text
    assert 0 < result.totals["exposed_fraction"] < 0.1
    assert (result.outcomes.status == 200).all()


def test_the_same_answers_are_bad_whatever_the_strategy() -> None:
    """Only what users are shown differs, so strategies are compared on the same luck."""
    canary, _ = run(BAD)
    shadow, _ = run(BAD, 'rollout.strategy="shadow"', "rollout.mirror=0.5")
    assert shadow.totals["exposed_fraction"] == 0.0
    assert shadow.totals["rolled_back"] == 1.0
    assert shadow.totals["bad_answers"] < canary.totals["bad_answers"]


def test_a_shadow_changes_no_answer() -> None:
    """The copies run on the new version's replicas, which serve nobody else."""
    plain, _ = run('rollout.strategy="shadow"', "rollout.at_s=190")
    shadow, _ = run('rollout.strategy="shadow"', "rollout.mirror=1.0")
    for column in ("first_token_s", "ended_s", "status"):
        assert getattr(plain.outcomes, column).tolist() == getattr(shadow.outcomes, column).tolist()


def test_failures_that_failover_hides_roll_a_version_back() -> None:
    result, decisions = run("faults.error_fraction=0.5", 'faults.only_replicas=["new-*"]')
    assert ("rolled_back", "large@2") in actions(decisions)
    assert "errors:" in result.rollout[-1].text


def test_a_slow_version_is_rolled_back() -> None:
    slow = "fleet.replicas.1.step_time={base_s = 0.05, per_decode_row_s = 0.002}"
    result, decisions = run(slow)
    assert ("rolled_back", "large@2") in actions(decisions)
    assert "slow:" in result.rollout[-1].text


def test_two_runs_are_equal_and_decisions_are_lines_of_json() -> None:
    (one, decisions), (other, _) = run(BAD), run(BAD)
    assert one.rollout == other.rollout
    lines: list[Any] = [json.loads(decision_line(decision)) for decision in decisions]
    assert lines[-1] == {"at_s": decisions[-1].at_s, "what": "rolled_back", "version": "large@2"}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('rollout.new="large@3"', "large@3"),
        ('rollout.old="large@2"', "from one version to another"),
        ("rollout.shares=[0.5, 0.1]", "must never fall"),
        ('rollout.bad_fraction={"large@7" = 0.1}', "large@7"),
        ('rollout.strategy="big-bang"', "strategy"),
        ("rollout.shares=[1.5]", "shares"),
    ],
)
def test_an_impossible_rollout_is_refused_with_file_and_line(setting: str, said: str) -> None:
    with pytest.raises(SetupError, match="rollout") as error:
        load(FILE, settings=[Setting.parse(setting, "--set")])
    assert said in str(error.value)
