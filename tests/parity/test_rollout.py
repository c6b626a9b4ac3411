"""The same rollout, told by the table `[rollout]`, decides the same in both worlds: when, how far, and why not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from parity.test_parity import assert_equal, everything
from parity.worlds import Record, Setup, live, simulated

from miniserve.faults import KeyedFaults
from miniserve.scenario.rollouts import RolloutSection

GOOD = RolloutSection("m@1", "m@2", shares=(0.2, 1.0), min_answers=60, keep_warm_s=8.0, bad_fraction={"m@1": 0.05})
BAD = replace(GOOD, bad_fraction={"m@1": 0.05, "m@2": 0.6})
PATIENT = replace(GOOD, min_answers=100, min_s=12.0, judged_fraction=0.5)
HALF_FAIL = KeyedFaults(1, error_fraction=0.5, only_replicas=frozenset({"r2", "r3"}))
OUTCOMES: dict[str, tuple[RolloutSection, dict[str, Any], list[float]]] = {  # plan, setup, the new version's shares
    "good": (GOOD, {}, [0.0, 0.2, 1.0]),
    "bad": (BAD, {}, [0.0, 0.2, 0.0]),
    "slow": (GOOD, {"speeds": (1.0, 1.0, 0.3, 0.3)}, [0.0, 0.2, 0.0]),
    "failing": (GOOD, {"faults": HALF_FAIL}, [0.0, 0.2, 0.0]),
    "patient": (PATIENT, {"faults": KeyedFaults(1, cut_fraction=0.02)}, [0.0, 0.2, 1.0]),
}


def setup_of(name: str, seed: int, requests: int) -> Setup:
    plan, more, _ = OUTCOMES[name]
    setup = Setup(everything, seed=seed, requests=requests, rate_per_s=16.0, pinned="2", abandon_fraction=0.03)
    both = {"versions": ("m@1", "m@1", "m@2", "m@2"), "speeds": (1.0,) * 4}
    return replace(setup, rollout=plan, **{**both, **more})


def new_shares(record: Record) -> list[float]:
    return [dict(what[1])["m@2"] for what in record.of("split")]


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_rollout_decides_the_same_in_both_worlds(name: str) -> None:
    setup = setup_of(name, 1, 700)
    one = simulated(setup)
    assert_equal(one, live(setup))
    assert new_shares(one) == OUTCOMES[name][2]


@pytest.mark.full
@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.parametrize("seed", range(2, 12))
def test_a_rollout_decides_the_same_whatever_the_seed(name: str, seed: int) -> None:
    setup = setup_of(name, seed, 1500)
    assert_equal(simulated(setup), live(setup))
