"""The same policies decide the same in both worlds, at the same times, to the last bit.

simpy on one side; on the other asyncio on virtual time, with the live gateway's own driver, fleet, probes and control
loops, over replicas that pace the real scheduler in this process. Compared is everything that was decided: what was
sent where and when, what was waited for, how each attempt and each request ended, what each control loop saw. And the
comparison is shown to notice: one constant changed, or luck that nobody injected, and the worlds part.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from parity.worlds import SPEC, STEP_TIME, Record, Setup, live, simulated

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.faults import KeyedFaults, ReplicaEvent, ReplicaFault
from miniserve.policies.bundle import Policies, breakers
from miniserve.policies.recovery.retry import Backoff
from miniserve.policies.routing.balancer import LeastKv, LeastOutstanding, PeakEwma, PowerOfTwo
from miniserve.types import ReplicaView, Request

# Whole and half seconds: the faults begin and end at the very instants at which probes and control loops run.
TROUBLE = (
    ReplicaEvent(5.0, "r0", ReplicaFault.CRASH, 4.0),
    ReplicaEvent(15.0, "r1", ReplicaFault.HANG, 8.0),
    ReplicaEvent(28.5, "r2", ReplicaFault.SLOW, 10.0, 3.0),
    ReplicaEvent(40.0, "r1", ReplicaFault.PARTITION, 5.0),
)


def trouble(seed: int) -> KeyedFaults:
    return KeyedFaults(seed, error_fraction=0.03, cut_fraction=0.06, poison_fraction=0.01, events=TROUBLE)


def everything(seed: int, hedge_after_s: float = 0.4, base_s: float = 0.05) -> Policies:
    return Policies(
        PowerOfTwo(seed=seed),
        retry=Backoff(seed=seed, base_s=base_s),
        resume=True,
        hedge_after_s=hedge_after_s,
        breakers=breakers(),
    )


def all_at_once(seed: int, requests: int = 1000) -> Setup:
    """A crowded pool; attempts refused and cut; replicas that crash, hang, crawl; deadlines; clients that leave."""
    return Setup(
        everything,
        seed=seed,
        requests=requests,
        rate_per_s=20.0,
        deadline_s=(2.0, 8.0),
        abandon_fraction=0.05,
        spec=replace(SPEC, cache=CacheConfig(num_blocks=48)),
        faults=trouble(seed),
    )


SETUPS: dict[str, Callable[[int], Setup]] = {
    "calm": lambda seed: Setup(lambda s: Policies(LeastOutstanding()), seed=seed, rate_per_s=22.0),
    "faults": lambda seed: Setup(
        lambda s: Policies(LeastKv(), retry=Backoff(seed=s)), seed=seed, rate_per_s=18.0, faults=trouble(seed)
    ),
    "deadlines": lambda seed: Setup(
        lambda s: Policies(PeakEwma(seed=s), retry=Backoff(seed=s), resume=True),
        seed=seed,
        rate_per_s=18.0,
        deadline_s=(1.0, 8.0),
        faults=trouble(seed),
    ),
    "old views": lambda seed: replace(all_at_once(seed), probe_interval_s=1.7, tick_interval_s=0.85),
}


def assert_equal(simulated: Record, live: Record) -> None:
    for index, (ours, theirs) in enumerate(zip(simulated.decisions, live.decisions, strict=False)):
        assert ours == theirs, f"decision {index} differs"
    assert simulated == live


def ingredients(record: Record) -> dict[str, bool]:
    """Say what a run was made of: a proof about nothing proves nothing."""
    results = [decision.what for decision in record.decisions if decision.what[0] == "result"]
    return {
        "sent": record.count("send") + record.count("hedge") > 100,
        "failed, waited and tried again": record.count("sleep") > 5,
        "hedged": sum(what[1] is not None for what in record.of("second")) > 20,
        "cut in the middle": sum(what[3] == "UpstreamError" and what[4] > 0 for what in results) > 5,
        "refused": any(what[3] == "Overloaded" for what in results),
        "too late": any(what[3] == "DeadlineExceeded" for what in results),
        "500": any(what[3] == "InternalError" for what in results),
        "preempted": record.preemptions > 0,
        "prefixes found": record.prefix_hit_tokens > 0,
        "controlled": record.count("scale to") > 20,
        "nothing left behind": record.blocks_used == 0,
    }


@pytest.mark.parametrize("seed", range(10))
def test_both_worlds_decide_the_same_when_everything_happens_at_once(seed: int) -> None:
    one, other = simulated(all_at_once(seed)), live(all_at_once(seed))
    assert_equal(one, other)
    assert all(ingredients(one).values()), ingredients(one)


@pytest.mark.parametrize("name", SETUPS)
def test_both_worlds_decide_the_same_in_other_setups(name: str) -> None:
    assert_equal(simulated(SETUPS[name](11)), live(SETUPS[name](11)))


@pytest.mark.full
@pytest.mark.parametrize("name", SETUPS)
@pytest.mark.parametrize("seed", range(20, 30))
def test_both_worlds_decide_the_same_in_other_setups_whatever_the_seed(name: str, seed: int) -> None:
    assert_equal(simulated(SETUPS[name](seed)), live(SETUPS[name](seed)))


@pytest.mark.full
@pytest.mark.parametrize("seed", range(100, 140))
def test_both_worlds_decide_the_same_whatever_the_seed(seed: int) -> None:
    assert_equal(simulated(all_at_once(seed)), live(all_at_once(seed)))


def test_each_world_repeats_itself() -> None:
    setup = all_at_once(3, requests=200)
    assert simulated(setup) == simulated(setup)
    assert live(setup) == live(setup)


def test_jumping_over_steps_decides_as_single_steps_do() -> None:
    setup = all_at_once(4, requests=300)
    assert_equal(simulated(replace(setup, single_step=True)), live(setup))


# --- the comparison notices ----------------------------------------------------------------------------------------


class AnyOfThem:
    """A balancer with luck of its own: nobody injected it."""

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        return random.choice(replicas).replica_id if replicas else None


SMALL = replace(all_at_once(5), requests=300)
CHANGES = {
    "the retries' base": replace(SMALL, policies=lambda seed: everything(seed, base_s=0.051)),
    "the hedge's delay": replace(SMALL, policies=lambda seed: everything(seed, hedge_after_s=0.401)),
    "a microsecond per step": replace(
        SMALL, spec=replace(SMALL.spec, step_time=replace(STEP_TIME, base_s=STEP_TIME.base_s + 1e-6))
    ),
    "a block of the pool": replace(SMALL, spec=replace(SMALL.spec, cache=CacheConfig(num_blocks=47))),
    "a slot": replace(SMALL, spec=replace(SMALL.spec, scheduler=SchedulerConfig(max_running=7, max_batch_tokens=64))),
    "the control loops' period": replace(SMALL, tick_interval_s=0.51),
    "the probes' period": replace(SMALL, probe_interval_s=0.51),
    "the faults' seed": replace(SMALL, faults=trouble(6)),
    "one replica's speed": replace(SMALL, speeds=(1.0, 1.0, 0.71)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_changed_constant_is_noticed(change: str) -> None:
    assert simulated(SMALL).decisions == live(SMALL).decisions
    assert simulated(SMALL).decisions != live(CHANGES[change]).decisions


def test_luck_that_nobody_injected_is_noticed() -> None:
    setup = replace(SMALL, policies=lambda seed: Policies(AnyOfThem()))
    assert simulated(setup).decisions != live(setup).decisions
