"""Drills with the default policies, in both worlds: what a gateway must survive without anybody's help."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

import pytest
from parity.worlds import SPEC, Record, Setup, live, simulated

from miniserve.config import CacheConfig
from miniserve.faults import KeyedFaults, ReplicaEvent, ReplicaFault
from miniserve.policies.bundle import Policies, breakers
from miniserve.policies.routing.balancer import LeastOutstanding, PowerOfTwo
from miniserve.types import FinishReason, Request, SamplingParams

World = Callable[[Setup], Record]

both_worlds = pytest.mark.parametrize("world", [simulated, live])


@dataclass(frozen=True)
class Drill(Setup):
    """A setup with the very requests that are named, and room for them."""

    arrivals: tuple[Request, ...] = ()

    def demand(self) -> Iterator[tuple[Request, float | None]]:
        for request in self.arrivals:
            yield request, None


def drill(arrivals: Sequence[Request], **changes: object) -> Drill:
    defaults = Drill(
        lambda seed: Policies(LeastOutstanding()),
        spec=replace(SPEC, cache=CacheConfig(num_blocks=256)),
        speeds=(1.0, 1.0),
        arrivals=tuple(arrivals),
    )
    return replace(defaults, **changes)  # type: ignore[arg-type]


def a_request(request_id: str, at_s: float, deadline_s: float | None = None) -> Request:
    base = int(Random(request_id).random() * 1e6) << 20
    sampling = SamplingParams(max_tokens=16, ignore_eos=True)
    due_s = None if deadline_s is None else at_s + deadline_s
    return Request(request_id, "m", range(base, base + 32), sampling, arrived_s=at_s, deadline_s=due_s)


def failed(record: Record) -> set[str]:
    return {d.request_id for d in record.decisions if d.what[0] == "end" and d.what[1] is not FinishReason.LENGTH}


def attempts_per_request(record: Record) -> float:
    return record.count("result") / record.count("end")


# --- poison --------------------------------------------------------------------------------------------------------

POISON = [f"poison{i}" for i in range(100)]
INNOCENT = [f"innocent{i}" for i in range(400)]
POISONED = KeyedFaults(poison_ids=frozenset(POISON))
POLICIES: dict[str, Callable[[int], Policies]] = {
    "defaults": lambda seed: Policies(LeastOutstanding()),
    "breakers": lambda seed: Policies(PowerOfTwo(seed=seed), breakers=breakers()),
    "hedges": lambda seed: Policies(LeastOutstanding(), hedge_after_s=0.5),
}


def spread(names: Sequence[str], from_s: float, every_s: float) -> list[Request]:
    return [a_request(name, from_s + i * every_s) for i, name in enumerate(names)]


def mixed(seed: int) -> list[str]:
    names = [*POISON, *INNOCENT]
    Random(seed).shuffle(names)
    return names


@both_worlds
@pytest.mark.parametrize("policies", POLICIES)
def test_poison_alone_ejects_nobody_and_refuses_nobody_in_the_minute_after(world: World, policies: str) -> None:
    poison = spread(POISON, 0.0, 0.05)
    after = spread(INNOCENT[:120], 5.0, 0.5)
    record = world(drill([*poison, *after], faults=POISONED, policies=POLICIES[policies]))
    assert failed(record) == set(POISON)


@both_worlds
@pytest.mark.parametrize("policies", POLICIES)
@pytest.mark.parametrize("seed", range(3))
def test_poison_among_innocents_harms_none_of_them_and_multiplies_nothing(
    world: World, policies: str, seed: int
) -> None:
    during = spread(mixed(seed), 0.0, 0.06)
    record = world(drill(during, faults=POISONED, policies=POLICIES[policies]))
    assert failed(record) == set(POISON)
    assert attempts_per_request(record) <= 1.2
    after = spread([f"late{i}" for i in range(120)], 30.0, 0.5)
    record = world(drill([*during, *after], faults=POISONED, policies=POLICIES[policies]))
    assert failed(record) == set(POISON)


@both_worlds
def test_poison_that_all_comes_at_once_does_no_more(world: World) -> None:
    record = world(drill([a_request(name, 0.0) for name in mixed(7)], faults=POISONED))
    assert failed(record) == set(POISON)
    assert attempts_per_request(record) <= 1.2


@both_worlds
def test_without_the_throttle_on_second_opinions_the_limit_would_just_be_reached(world: World) -> None:
    """The drill can fail: every poison request asked about once makes 1.2 exactly, and hedging adds to that."""
    careless = lambda seed: Policies(LeastOutstanding(), second_opinions=AlwaysAsk(), hedge_after_s=0.5)  # noqa: E731
    record = world(drill(spread(mixed(0), 0.0, 0.06), faults=POISONED, policies=careless))
    assert attempts_per_request(record) >= 1.2


class AlwaysAsk:
    def deposit(self, now_s: float) -> None: ...

    def withdraw(self, now_s: float) -> bool:
        return True

    def record(self, ok: bool, now_s: float) -> None: ...


# --- a replica that hangs ------------------------------------------------------------------------------------------

HANGS = KeyedFaults(events=(ReplicaEvent(0.0, "r1", ReplicaFault.HANG),))


@both_worlds
@pytest.mark.parametrize("every_s", [0.0, 0.05, 0.25, 1.0, 3.0])
@pytest.mark.parametrize("replicas", [2, 3])
def test_a_hung_replica_that_answers_its_probes_costs_at_most_two_of_twenty(
    world: World, every_s: float, replicas: int
) -> None:
    requests = [a_request(f"q{i}", 1.0 + i * every_s, deadline_s=3.0) for i in range(20)]
    record = world(drill(requests, faults=HANGS, speeds=(1.0,) * replicas))
    assert 20 - len(failed(record)) >= 18


@both_worlds
def test_without_a_limit_on_the_first_token_a_hung_replica_costs_more(world: World) -> None:
    """The drill can fail."""
    patient = lambda seed: Policies(LeastOutstanding(), first_token_share=None, progress=None)  # noqa: E731
    requests = [a_request(f"q{i}", 1.0 + i * 0.25, deadline_s=3.0) for i in range(20)]
    record = world(drill(requests, faults=HANGS, policies=patient))
    assert 20 - len(failed(record)) < 18


@both_worlds
def test_a_replica_that_hangs_no_more_is_used_again(world: World) -> None:
    hangs = KeyedFaults(events=(ReplicaEvent(0.0, "r1", ReplicaFault.HANG, 10.0),))
    requests = [a_request(f"q{i}", 1.0 + i * 0.25, deadline_s=3.0) for i in range(120)]
    record = world(drill(requests, faults=hangs))
    assert len(failed(record)) <= 2
    late = [d for d in record.decisions if d.at_s > 20.0 and d.what[:2] == ("send", "r1")]
    assert len(late) > 10
