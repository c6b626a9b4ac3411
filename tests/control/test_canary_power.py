"""A canary that does harm is rolled back at 1 %; one that does none is left alone, as often as is promised.

Outcomes are sampled: every answer of either version is judged, `large`'s share of wrong answers (5.6 %) is the old
version's, latencies are lognormal. A tick is 1,400 requests, so the first stage has 140,000 and 1,400 of the canary's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from miniserve.control.guardrails import OutcomeBatch
from miniserve.control.rollout import Phase, Rollout, RolloutView, SetShares, canary
from miniserve.control.rollout_plan import RolloutPlan
from miniserve.operations.rollout_body import MIN_ANSWERS

Record = Callable[[str, object], None]
TICK = 1400  # requests


@dataclass(frozen=True)
class Version:
    errors: float = 0.005
    bad: float = 0.056
    slower: float = 1.0
    spread: float = 0.5  # sigma of ln(latency)

    def batch(self, rng: np.random.Generator, n: int) -> OutcomeBatch:
        latencies_s = self.slower * rng.lognormal(0.0, self.spread, n)
        return OutcomeBatch(n, int(rng.binomial(n, self.errors)), latencies_s, n, int(rng.binomial(n, self.bad)))  # type: ignore[arg-type]


def roll_out(rng: np.random.Generator, old: Version, new: Version, min_answers: int = 1400) -> Rollout:
    rollout = Rollout("old", "new", canary(min_answers=min_answers), keep_warm_s=0)
    share, now_s, ready = 0.0, 0.0, {"old": 1, "new": 1}
    while rollout.phase not in (Phase.DONE, Phase.ROLLED_BACK):
        shown = int(rng.binomial(TICK, share))
        view = RolloutView({"old": old.batch(rng, TICK - shown), "new": new.batch(rng, shown)}, ready)
        for action in rollout.tick(now_s, view):
            if isinstance(action, SetShares):
                share = action.shares[0][1]
        now_s += 60.0
    return rollout


@pytest.mark.parametrize("runs", [20, pytest.param(200, marks=pytest.mark.full)])
@pytest.mark.parametrize(
    ("old", "new", "min_answers", "metric"),
    [
        pytest.param(Version(), Version(bad=0.086), 1400, "bad", id="quality-3-points"),
        pytest.param(Version(), Version(slower=1.2), 1400, "slow", id="p95+20%"),
        pytest.param(Version(), Version(errors=0.025), 1400, "errors", id="errors+2-points"),
        # Twice the spread hides a slower version: it takes 2,500 answers instead of 1,400.
        pytest.param(Version(spread=1.0), Version(spread=1.0, slower=1.2), 2500, "slow", id="p95+20%-spread-1"),
    ],
)
def test_a_harmful_canary_is_rolled_back_at_the_first_stage(
    old: Version, new: Version, min_answers: int, metric: str, runs: int, record_property: Record
) -> None:
    rng = np.random.default_rng(20)
    records = [roll_out(rng, old, new, min_answers).record for _ in range(runs)]
    first = [record for record in records if record is not None and record.stage == 0]
    shown = [record.shown_answers for record in records if record is not None]
    exposed = [record.exposed_share for record in records if record is not None]
    record_property("rolled_back_at_the_first_stage_of_runs", [len(first), runs])
    record_property("median_answers_shown", float(np.median(shown)))
    record_property("mean_exposed_share_percent", round(100 * float(np.mean(exposed)), 2))

    assert len(first) >= (0.9 if runs == 200 else 0.75) * runs
    assert sum(record.breach.metric == metric for record in first if record.breach) > 0.9 * len(first)


@pytest.mark.parametrize("runs", [20, pytest.param(200, marks=pytest.mark.full)])
def test_a_canary_without_harm_is_left_alone(runs: int, record_property: Record) -> None:
    """alpha 0.05 over all guardrails, stages and looks together."""
    rng = np.random.default_rng(21)
    rolled_back = sum(roll_out(rng, Version(), Version()).phase is Phase.ROLLED_BACK for _ in range(runs))
    record_property("rolled_back_of_runs", [rolled_back, runs])

    assert rolled_back <= (16 if runs == 200 else 4)


# --- as the live stack does it: 20 requests a second, a look every 2 s, 200 answers in each stage ---------------------

LOOK_S, RATE_PER_S = 2.0, 20.0
PROMISED_S = 180.0


def roll_out_live(rng: np.random.Generator, new: Version, graded: float) -> tuple[Rollout, float]:
    """Return the rollout at its end, and how long it took; a share `graded` of the answers is judged."""
    rollout = RolloutPlan("m@2", shares=(0.1, 0.5, 1.0), min_answers=MIN_ANSWERS, keep_warm_s=0).build("m@1", "m@2")
    old, share, now_s, ready = Version(), 0.0, 0.0, {"m@1": 2, "m@2": 2}

    def batch(version: Version, n: int) -> OutcomeBatch:
        whole, judged = version.batch(rng, n), int(rng.binomial(n, graded))
        return OutcomeBatch(n, whole.errors, whole.latencies_s, judged, int(rng.binomial(judged, version.bad)))

    while rollout.phase not in (Phase.DONE, Phase.ROLLED_BACK):
        answers = int(rng.poisson(LOOK_S * RATE_PER_S))
        shown = int(rng.binomial(answers, share))
        view = RolloutView({"m@1": batch(old, answers - shown), "m@2": batch(new, shown)}, ready)
        for action in rollout.tick(now_s, view):
            if isinstance(action, SetShares):
                share = action.shares[0][1]
        now_s += LOOK_S
    return rollout, now_s


@pytest.mark.parametrize("runs", [10, pytest.param(400, marks=pytest.mark.full)])
@pytest.mark.parametrize("graded", [1.0, 0.7])
def test_large_bad_is_rolled_back_within_three_minutes(runs: int, graded: float, record_property: Record) -> None:
    """26.65 % of its answers are wrong, and 5.6 % of `large`'s: both by their recorded evals."""
    rng = np.random.default_rng(22)
    ends = [roll_out_live(rng, Version(bad=0.2665), graded) for _ in range(runs)]
    first = [took_s for rollout, took_s in ends if rollout.record is not None and rollout.record.stage == 0]
    record_property("rolled_back_at_the_first_stage_of_runs", [len(first), runs])
    record_property("median_and_longest_s", [float(np.median(first)), max(first)])

    assert len(first) >= (0.99 * runs if graded == 1 else 0.97 * runs)
    assert max(first) < PROMISED_S


@pytest.mark.parametrize("runs", [10, pytest.param(400, marks=pytest.mark.full)])
@pytest.mark.parametrize("bad", [0.0032, 0.056], ids=["large@2", "no-better"])
def test_a_live_canary_without_harm_is_promoted(runs: int, bad: float, record_property: Record) -> None:
    """alpha 0.05 is the promise: in fewer than 5 of 100 rollouts of a version that is no worse."""
    rng = np.random.default_rng(23)
    rolled_back = sum(roll_out_live(rng, Version(bad=bad), 1.0)[0].record is not None for _ in range(runs))
    record_property("rolled_back_of_runs", [rolled_back, runs])

    assert rolled_back <= (0.05 * runs if runs > 10 else 2)
