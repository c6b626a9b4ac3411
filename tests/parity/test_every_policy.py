"""Every policy that can be named decides the same in both worlds, and each of these runs shows that it decided at all.

Balancers, routers, admission and quotas, each for itself and under faults; then an autoscaler that really grows and
shrinks the fleet, on the live scaling loop and the simulated one.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from parity.test_parity import assert_equal, trouble
from parity.worlds import COLD_START, SPEC, Record, Setup, live, simulated

from miniserve.control.autoscaler import Autoscaler, Combined, QueueBased, Reactive, TargetTracking
from miniserve.control.checked import Checked
from miniserve.control.steady import Steady
from miniserve.policies.admission.admission import Admission, AllOf, DeadlineCheck, PriorityShedding
from miniserve.policies.admission.concurrency import ConcurrencyLimit, FixedLimit, Gradient2
from miniserve.policies.admission.quota import QuotaAdmission, QuotaLimits
from miniserve.policies.bundle import Policies
from miniserve.policies.recovery.retry import Backoff
from miniserve.policies.routing.balancer import BALANCERS, LeastOutstanding
from miniserve.policies.routing.router import FeatureRouter, PriorityTier, RegionRouter, Router, Routers, VersionPin
from miniserve.types import Priority

REQUESTS = 250


def seeded(make: Callable[..., Any], seed: int) -> Any:
    return make(seed=seed) if "seed" in inspect.signature(make).parameters else make()


# --- balancers -----------------------------------------------------------------------------------------------------


def balanced(name: str, seed: int, requests: int = REQUESTS) -> Setup:
    def policies(seed: int) -> Policies:
        return Policies(seeded(BALANCERS[name], seed), retry=Backoff(seed=seed))

    return Setup(policies, seed=seed, requests=requests, rate_per_s=16.0, faults=trouble(seed))


def replicas_used(record: Record) -> Counter[str]:
    return Counter(what[1] for what in record.of("send"))


@pytest.mark.parametrize("name", BALANCERS)
def test_every_balancer(name: str) -> None:
    one = simulated(balanced(name, 1))
    assert_equal(one, live(balanced(name, 1)))
    assert len(replicas_used(one)) == 3


@pytest.mark.full
@pytest.mark.parametrize("name", BALANCERS)
@pytest.mark.parametrize("seed", range(2, 7))
def test_every_balancer_whatever_the_seed(name: str, seed: int) -> None:
    assert_equal(simulated(balanced(name, seed, 1000)), live(balanced(name, seed, 1000)))


# --- routers -------------------------------------------------------------------------------------------------------

SHARES = {"1": 0.7, "2": 0.3}
NEAR = {("eu", "eu"): 0.0, ("eu", "us"): 0.1, ("us", "eu"): 0.1, ("us", "us"): 0.0}
ROUTES: dict[str, Callable[[], Router]] = {
    "version": lambda: VersionPin(shares=SHARES),
    "feature": lambda: FeatureRouter(shares={"easy": {"1": 1.0}, "hard": {"1": 0.2, "2": 0.8}}),
    "region": lambda: RegionRouter(latency_s=NEAR, spill_outstanding=4.0),
    "priority": lambda: PriorityTier(limits=(8, 6, 4), pools={Priority.BATCH: ["r0", "r2"]}),
    "a chain of them": lambda: Routers(RegionRouter(latency_s=NEAR, spill_outstanding=6.0), VersionPin(shares=SHARES)),
}


def routed(router: Callable[[], Router] | None, seed: int, requests: int = REQUESTS) -> Setup:
    def policies(seed: int) -> Policies:
        return Policies(LeastOutstanding(), router=None if router is None else router(), retry=Backoff(seed=seed))

    setup = Setup(policies, seed=seed, requests=requests, rate_per_s=16.0, faults=trouble(seed), pinned="2")
    return replace(setup, speeds=(1.0, 1.0, 0.8, 0.8), versions=("1", "2"), regions=("eu", "eu", "us", "us"))


@pytest.mark.parametrize("name", ROUTES)
def test_every_router(name: str) -> None:
    setup = routed(ROUTES[name], 1)
    one = simulated(setup)
    assert_equal(one, live(setup))
    assert one.of("send") != simulated(routed(None, 1)).of("send"), "it changed where requests went"


@pytest.mark.full
@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("seed", range(2, 7))
def test_every_router_whatever_the_seed(name: str, seed: int) -> None:
    setup = routed(ROUTES[name], seed, 1000)
    assert_equal(simulated(setup), live(setup))


# --- admission and quotas ------------------------------------------------------------------------------------------

QUOTAS = {
    "a": QuotaLimits(requests_per_min=90),
    "b": QuotaLimits(tokens_per_min=6000),
    "c": QuotaLimits(concurrent=3, budget_tokens=5000),
}
DOORS: dict[str, Callable[[], Admission]] = {
    "shed": lambda: PriorityShedding(at=(3.0, 1.0, 0.5)),
    "deadline": DeadlineCheck,
    "concurrency": lambda: ConcurrencyLimit(limit=FixedLimit(limit=20)),
    "learned concurrency": lambda: ConcurrencyLimit(limit=Gradient2(initial=12, lowest=4, highest=40)),
    "quota": lambda: QuotaAdmission(limits=QUOTAS),
    "all of them": lambda: AllOf(PriorityShedding(), DeadlineCheck(), QuotaAdmission(limits=QUOTAS)),
}


def admitted(door: Callable[[], Admission], seed: int, requests: int = REQUESTS) -> Setup:
    def policies(seed: int) -> Policies:
        return Policies(LeastOutstanding(), admission=door(), retry=Backoff(seed=seed), hedge_after_s=0.4)

    return Setup(
        policies,
        seed=seed,
        requests=requests,
        rate_per_s=30.0,
        deadline_s=(0.5, 6.0),
        abandon_fraction=0.05,
        faults=trouble(seed),
    )


@pytest.mark.parametrize("name", DOORS)
def test_every_door(name: str) -> None:
    setup = admitted(DOORS[name], 1)
    one = simulated(setup)
    assert_equal(one, live(setup))
    ends = one.of("end")
    assert any(error is not None and attempts == 0 for _, _, error, attempts in ends), "somebody was refused"
    assert sum(error is None for _, _, error, _ in ends) > REQUESTS // 10, "and many were not"


@pytest.mark.full
@pytest.mark.parametrize("name", DOORS)
@pytest.mark.parametrize("seed", range(2, 7))
def test_every_door_whatever_the_seed(name: str, seed: int) -> None:
    setup = admitted(DOORS[name], seed, 1000)
    assert_equal(simulated(setup), live(setup))


# --- a fleet that grows and shrinks --------------------------------------------------------------------------------

SCALERS: dict[str, Callable[[], Autoscaler]] = {
    "reactive": lambda: Reactive(target=4.0),
    "target tracking": lambda: TargetTracking(target=4.0, look_back_s=3.0),
    "queue": lambda: QueueBased(waiting_per_replica=4.0, most_running=5.0),
    "combined": lambda: Combined(parts=[TargetTracking(target=6.0), QueueBased(waiting_per_replica=6, most_running=6)]),
}


def scaled(name: str, seed: int, requests: int = 400) -> Setup:
    def autoscaler() -> Autoscaler:
        return Steady(Checked(SCALERS[name]()), min_replicas=2, max_replicas=7, down_after_s=4.0)

    def policies(seed: int) -> Policies:
        return Policies(LeastOutstanding(), retry=Backoff(seed=seed))

    return Setup(
        policies,
        seed=seed,
        requests=requests,
        rate_per_s=8.0,
        spec=replace(SPEC, cold_start=COLD_START),
        speeds=(1.0, 1.0),
        rush_s=(4.0, 14.0),
        autoscaler=autoscaler,
    )


@pytest.mark.parametrize("name", SCALERS)
def test_every_autoscaler(name: str) -> None:
    one = simulated(scaled(name, 1))
    assert_equal(one, live(scaled(name, 1)))
    sizes = [what[1] for what in one.of("scale")]
    assert max(sizes) > 3, "it grew"
    assert sizes[-1] < max(sizes), "and shrank"
    assert len(replicas_used(one)) > 3, "the new ones were used"
    assert all(error is None for _, _, error, _ in one.of("end")), "and nothing was lost"


@pytest.mark.full
@pytest.mark.parametrize("name", SCALERS)
@pytest.mark.parametrize("seed", range(2, 12))
def test_every_autoscaler_whatever_the_seed(name: str, seed: int) -> None:
    assert_equal(simulated(scaled(name, seed)), live(scaled(name, seed)))
