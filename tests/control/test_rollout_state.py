"""A rollout that was put down in JSON and taken up again decides as if nothing had happened; and a person may hurry."""

from __future__ import annotations

import json

import numpy as np
import pytest

from miniserve.control.guardrails import GUARDRAILS, Guardrail, OutcomeBatch
from miniserve.control.rollout import (
    Phase,
    Retire,
    Rollout,
    RolloutView,
    SetMirror,
    SetShares,
    Stage,
    blue_green,
    canary,
    shadow,
)

STAGES = [*shadow(0.1, min_answers=60), *canary((0.1, 0.5, 1.0), min_answers=200)]
READY = {"v1": 2, "v2": 2}


def made() -> Rollout:
    return Rollout("v1", "v2", STAGES, min_answers=30, keep_warm_s=20.0)


def views(seed: int, bad: float, ticks: int = 60) -> list[RolloutView]:
    """Return what is told tick by tick; the new version gives 20 answers each, a share `bad` of them wrong."""
    rng = np.random.default_rng(seed)

    def batch(answers: int, bad: float) -> OutcomeBatch:
        latencies_s = rng.lognormal(0.0, 0.5, answers)
        return OutcomeBatch(answers, int(rng.binomial(answers, 0.01)), latencies_s, answers, rng.binomial(answers, bad))  # type: ignore[arg-type]

    return [RolloutView({"v1": batch(60, 0.05), "v2": batch(20, bad)}, READY) for _ in range(ticks)]


@pytest.mark.parametrize("bad", [0.05, 0.2])
@pytest.mark.parametrize("stop", [0, 1, 5, 9, 17, 40])
def test_a_rollout_decides_alike_after_a_restart_at_any_moment(bad: float, stop: int) -> None:
    whole, told = made(), views(7, bad)
    for tick in range(stop):
        whole.tick(2.0 * tick, told[tick])
    later = made()
    later.restore(json.loads(json.dumps(whole.state(2.0 * stop), allow_nan=False)), 2.0 * stop)

    assert later.state(2.0 * stop) == whole.state(2.0 * stop)
    for tick in range(stop, len(told)):
        assert later.tick(2.0 * tick, told[tick]) == whole.tick(2.0 * tick, told[tick])
    assert (later.phase, later.p_values()) == (whole.phase, whole.p_values())
    assert whole.phase is (Phase.ROLLED_BACK if bad > 0.1 else Phase.DONE)


def test_times_are_kept_as_ages_since_the_next_clock_starts_elsewhere() -> None:
    first, later = (Rollout("v1", "v2", [Stage(0.1, min_s=25), Stage(0.5)]) for _ in range(2))
    first.tick(1000.0, RolloutView({}, READY))
    later.restore(first.state(1010.0), 3.0)

    assert later.tick(17.0, RolloutView({}, READY)) == []
    assert later.tick(18.0, RolloutView({}, READY)) == [SetShares((("v2", 0.5), ("v1", 0.5)))]


def test_the_record_of_a_rollback_is_kept() -> None:
    first, later = made(), made()
    for tick, view in enumerate(views(7, 0.5)):
        first.tick(2.0 * tick, view)
    later.restore(json.loads(json.dumps(first.state(200.0))), 200.0)

    assert first.record is not None
    assert later.record == first.record


@pytest.mark.parametrize(
    "damage", [{"phase": "asleep"}, {"_index": 9}, {"guards": {}}, {"ages": None}, {"record": {"at_s": 1.0}}]
)
def test_what_is_no_state_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, LookupError)):
        made().restore({**made().state(0.0), **damage}, 0.0)


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_a_person_promotes_and_then_retires() -> None:
    rollout = Rollout("v1", "v2", [*shadow(0.3), *canary()], keep_warm_s=600)
    assert rollout.promote(0.0) == [], "nothing is ready"
    rollout.tick(0.0, RolloutView({}, READY))

    assert rollout.promote(5.0) == [SetShares((("v2", 1.0), ("v1", 0.0))), SetMirror("v2", 0.0)]
    assert rollout.phase is Phase.WARM
    assert rollout.mirror == 0.0
    assert rollout.tick(100.0, RolloutView({}, READY)) == [], "the old version stays warm"
    assert rollout.promote(101.0) == [Retire("v1")]
    assert rollout.promote(102.0) == []


def test_a_shadow_cannot_be_promoted() -> None:
    rollout = Rollout("v1", "v2", shadow(0.3))
    rollout.tick(0.0, RolloutView({}, READY))

    assert rollout.promote(5.0) == []
    assert rollout.mirror == 0.3
    rollout.roll_back(6.0, "enough")
    assert rollout.mirror == 0.0


def test_what_was_counted_can_be_read() -> None:
    limited = [Guardrail("errors", 0.02, 0.01, limit=0.05), *GUARDRAILS[1:]]
    rollout = Rollout("v1", "v2", [Stage(0.5), *blue_green(1)], guardrails=limited)
    rollout.tick(0.0, RolloutView({}, READY))
    rollout.tick(1.0, RolloutView({"v1": OutcomeBatch(10, 1), "v2": OutcomeBatch(5, 2, judged=4, bad=1)}, READY))

    errors, bad = (rollout.counts()[metric] for metric in ("errors", "bad"))
    assert [(one.bad, one.n) for one in (*errors, *bad)] == [(2, 5), (1, 10), (1, 4), (0, 0)]
    assert rollout.answers_in_stage == 0, "a new stage has begun"
