"""Rollouts: stages in order, back at once with a record, the old version kept warm, users who stick."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniserve.control.guardrails import GUARDRAILS, Guardrail, OutcomeBatch
from miniserve.control.rollout import (
    Phase,
    Retire,
    RolledBack,
    Rollout,
    RolloutAction,
    RolloutView,
    SetMirror,
    SetShares,
    Stage,
    blue_green,
    canary,
    ramp_stages,
    shadow,
)
from miniserve.errors import SetupError
from miniserve.policies.routing.router import VersionPin
from miniserve.types import Request

READY = {"v1": 4, "v2": 4}
GOOD = RolloutView({"v1": OutcomeBatch(990, 5), "v2": OutcomeBatch(100, 0)}, READY)
BROKEN = RolloutView({"v1": OutcomeBatch(990, 5), "v2": OutcomeBatch(100, 60)}, READY)
QUIET = RolloutView({}, READY)
LIMITED = (Guardrail("errors", harm=0.02, alpha=0.05, limit=0.01),)


def shares(new: float) -> SetShares:
    return SetShares((("v2", new), ("v1", 1.0 - new)))


def test_a_canary_goes_through_its_stages_and_retires_the_old_version_when_it_has_cooled() -> None:
    rollout = Rollout("v1", "v2", canary(min_answers=200), keep_warm_s=60)
    seen: list[RolloutAction] = []
    for tick in range(20):
        seen += rollout.tick(10.0 * tick, GOOD)

    assert seen == [shares(0.01), shares(0.1), shares(0.5), shares(1.0), Retire("v1")]
    assert rollout.phase is Phase.DONE
    assert rollout.record is None


def test_a_stage_lasts_until_it_has_both_its_answers_and_its_time() -> None:
    rollout = Rollout("v1", "v2", [Stage(0.1, min_answers=150, min_s=25), Stage(0.5)])
    moved = [rollout.tick(10.0 * tick, GOOD) for tick in range(5)]
    assert moved == [[shares(0.1)], [], [], [shares(0.5)], []]


def test_harm_brings_all_users_back_with_a_record_of_why() -> None:
    rollout = Rollout("v1", "v2", canary())
    rollout.tick(0.0, GOOD)
    back, record = rollout.tick(10.0, BROKEN)

    assert back == shares(0.0)
    assert isinstance(record, RolledBack)
    assert record is rollout.record
    assert (record.at_s, record.after_s, record.stage, record.share) == (10.0, 10.0, 0, 0.01)
    assert (record.shown_answers, record.all_answers) == (100, 1090)
    assert record.exposed_share == rollout.exposed_share == 100 / 1090
    assert record.breach is not None
    assert record.reason == str(record.breach)
    assert record.reason.startswith("errors: 60.00% of 100 answers against 0.51% of 1980, p = ")
    assert rollout.tick(20.0, GOOD) == []


def test_the_first_answers_alone_decide_nothing() -> None:
    rollout = Rollout("v1", "v2", canary(), min_answers=50)
    bad = RolloutView({"v1": OutcomeBatch(4000, 0), "v2": OutcomeBatch(40, 40)}, READY)
    rollout.tick(0.0, QUIET)
    assert rollout.tick(1.0, bad) == []
    assert rollout.tick(2.0, bad)[0] == shares(0.0)


def test_a_person_may_call_it_back() -> None:
    rollout = Rollout("v1", "v2", shadow(0.2) + canary())
    rollout.tick(0.0, QUIET)
    actions = rollout.roll_back(5.0, "the support line is full")
    assert actions == [shares(0.0), SetMirror("v2", 0.0), rollout.record]
    assert rollout.record is not None
    assert rollout.record.breach is None
    assert rollout.roll_back(6.0, "again") == []


def test_users_who_saw_the_canary_still_see_it_later_and_nobody_does_after_a_rollback() -> None:
    rollout = Rollout("v1", "v2", canary(min_answers=100))
    pin = VersionPin(shares={"v1": 1.0}, salt="rollout of v2")
    users = [Request(f"q{n}", "chat", (1,), session_key=f"user-{n}") for n in range(2000)]
    before: set[str] = set()
    counts = []
    for tick in range(4):
        (action,) = rollout.tick(float(tick), GOOD)
        assert isinstance(action, SetShares)
        pin.set_shares(dict(action.shares))
        now = {user.request_id for user in users if pin.version_of(user) == "v2"}
        assert before <= now
        before = now
        counts.append(len(now) / len(users))
    assert counts == pytest.approx([0.01, 0.1, 0.5, 1.0], abs=0.03)

    pin.set_shares(dict(shares(0.0).shares))
    assert {pin.version_of(user) for user in users} == {"v1"}


def test_a_shadow_shows_nobody_anything_and_still_finds_harm() -> None:
    rollout = Rollout("v1", "v2", shadow(0.1) + canary())
    assert rollout.tick(0.0, QUIET) == [shares(0.0), SetMirror("v2", 0.1)]
    rollout.tick(1.0, BROKEN)
    assert rollout.record is not None
    assert rollout.record.shown_answers == 0


def test_a_shadow_hands_over_to_a_canary() -> None:
    rollout = Rollout("v1", "v2", shadow(0.1, min_answers=100) + canary())
    rollout.tick(0.0, QUIET)
    assert rollout.tick(1.0, GOOD) == [shares(0.01), SetMirror("v2", 0.0)]


def test_a_shadow_alone_ends_with_the_old_version_still_needed() -> None:
    rollout = Rollout("v1", "v2", shadow(0.1, min_answers=100))
    rollout.tick(0.0, QUIET)
    assert rollout.tick(1.0, GOOD) == [SetMirror("v2", 0.0)]
    assert rollout.phase is Phase.DONE


def test_a_switch_waits_until_all_of_the_new_replicas_are_ready() -> None:
    rollout = Rollout("blue", "green", blue_green(4), guardrails=LIMITED, keep_warm_s=30)
    assert rollout.tick(0.0, RolloutView(ready={"blue": 4, "green": 3})) == []
    assert rollout.phase is Phase.WAITING
    assert rollout.tick(10.0, RolloutView(ready={"blue": 4, "green": 4})) == [
        SetShares((("green", 1.0), ("blue", 0.0)))
    ]
    assert rollout.tick(20.0, RolloutView({"green": OutcomeBatch(500, 4)})) == []
    assert rollout.phase is Phase.WARM
    assert rollout.tick(40.0, RolloutView({"green": OutcomeBatch(500, 4)})) == [Retire("blue")]


def test_a_switch_that_fails_while_the_old_version_is_warm_is_called_back() -> None:
    rollout = Rollout("blue", "green", blue_green(1), guardrails=LIMITED)
    rollout.tick(0.0, RolloutView(ready={"green": 1}))
    assert rollout.tick(1.0, RolloutView({"green": OutcomeBatch(500, 4)})) == []
    assert rollout.tick(2.0, RolloutView({"green": OutcomeBatch(500, 40)}))[0] == SetShares(
        (("green", 0.0), ("blue", 1.0))
    )


def test_a_stage_waits_for_replicas_while_the_guardrails_go_on() -> None:
    rollout = Rollout("v1", "v2", [Stage(0.1, 50), Stage(0.5, min_ready=3)])
    few = {"v1": 4, "v2": 1}
    rollout.tick(0.0, RolloutView(ready=few))
    assert rollout.tick(1.0, RolloutView(GOOD.batches, few)) == []
    assert rollout.phase is Phase.WAITING
    assert rollout.tick(2.0, RolloutView(BROKEN.batches, few))[0] == shares(0.0)


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=30))
def test_shares_never_fall_except_back_to_nothing(healthy: list[bool]) -> None:
    rollout = Rollout("v1", "v2", ramp_stages(5, 10.0), keep_warm_s=0)
    shown = []
    for tick, good in enumerate(healthy):
        for action in rollout.tick(5.0 * tick, GOOD if good else BROKEN):
            if isinstance(action, SetShares):
                assert sum(share for _, share in action.shares) == pytest.approx(1)
                shown.append(action.shares[0][1])
    rise = shown[:-1] if rollout.record else shown
    assert rise == sorted(rise)
    assert rollout.record is None or shown[-1] == 0


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([], "at least one stage"),
        (canary([0.5, 0.1]), r"must never fall.*\[0.5, 0.1\]"),
        (blue_green(2), "give at least one guardrail a limit"),
    ],
)
def test_impossible_plans_are_refused(stages: list[Stage], says: str) -> None:
    with pytest.raises(SetupError, match=says):
        Rollout("v1", "v2", stages)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(SetupError, match="not from 'v1' to 'v1'"):
        Rollout("v1", "v1", canary())
    with pytest.raises(SetupError, match=r"keep_warm_s \(-1\)"):
        Rollout("v1", "v2", canary(), keep_warm_s=-1)
    with pytest.raises(SetupError, match=r"share \(1.5\)"):
        Stage(1.5)
    with pytest.raises(SetupError, match="minima"):
        Stage(0.5, min_answers=-1)
    with pytest.raises(SetupError, match="at least 1 step, not 0"):
        ramp_stages(0, 10)
    with pytest.raises(SetupError, match="one guardrail per metric"):
        Rollout("v1", "v2", canary(), guardrails=[*GUARDRAILS, GUARDRAILS[0]])


def test_impossible_guardrails_are_refused() -> None:
    with pytest.raises(SetupError, match="'errors', 'slow' or 'bad', not 'mood'"):
        Guardrail("mood", 0.1, 0.05)  # type: ignore[arg-type]
    with pytest.raises(SetupError, match=r"alpha \(1.0\) of guardrail 'bad'"):
        Guardrail("bad", 0.1, 1.0)
    with pytest.raises(SetupError, match="tolerated < harm"):
        Guardrail("bad", 0.1, 0.05, tolerated=0.1)


def test_impossible_counts_and_unknown_versions_are_refused() -> None:
    with pytest.raises(SetupError, match=r"errors \(3\) must lie between 0 and answers \(2\)"):
        OutcomeBatch(2, 3)
    with pytest.raises(SetupError, match="bad <= judged <= answers, not 2, 1, 5"):
        OutcomeBatch(5, judged=1, bad=2)
    with pytest.raises(SetupError, match=r"unknown versions \['v9'\]; this rollout goes from v1 to v2"):
        Rollout("v1", "v2", canary()).tick(0.0, RolloutView({"v9": OutcomeBatch(1)}))
