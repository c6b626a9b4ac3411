"""What every balancer promises, whatever its idea. A class of one's own can be added to the list."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniserve.errors import UpstreamError
from miniserve.policies.routing.balancer import BALANCERS, Balancer
from miniserve.types import AttemptResult, FinishReason, ReplicaView, Request

DRAWS_POSITIONS = {"random", "p2c", "peak-ewma"}  # as the docstring of `balancer.py` says
every_balancer = pytest.mark.parametrize("name", sorted(BALANCERS))

counts = st.integers(0, 2) | st.integers(0, 1000)
replica = st.builds(
    ReplicaView,
    replica_id=st.sampled_from([f"r{n}" for n in range(12)]) | st.text(max_size=3),
    outstanding=counts,
    queue_depth=counts,
    running=counts,
    kv_used_fraction=st.sampled_from([0.0, 0.5]) | st.floats(0, 1),
    weight=st.sampled_from([0.0, 0.5, 1.0, 100.0]),
)
fleet = st.lists(replica, max_size=8, unique_by=lambda view: view.replica_id)
prompt = st.builds(range, st.integers(0, 3).map(lambda n: n * 2**20), st.just(2**22)).map(lambda r: r[:300]) | st.lists(
    st.integers(0, 200_000), max_size=200
)
request = st.builds(
    Request,
    request_id=st.text(max_size=5),
    model=st.just("m"),
    prompt_ids=prompt,
    arrived_s=st.floats(0, 1e6),
    tenant=st.sampled_from(["", "a", "b"]),
    session_key=st.none() | st.text(max_size=3),
)
days = st.lists(st.tuples(request, fleet, st.integers(0, 5)), max_size=15)


def learn(balancer: Balancer, replica_id: str, kind: int, at_s: float) -> None:
    """Tell those who listen how an attempt ended, in one of five ways."""
    observe: Callable[[AttemptResult, float], None] | None = getattr(balancer, "observe", None)
    if observe is None or kind == 0:
        return
    results = {
        1: AttemptResult(replica_id, FinishReason.STOP, (1,), None, at_s, at_s + 0.5, at_s + 3),
        2: AttemptResult(replica_id, error=UpstreamError("x"), started_s=at_s, ended_s=at_s),
        3: AttemptResult(replica_id, error=RuntimeError("x"), started_s=at_s, first_token_s=at_s, ended_s=at_s + 1),
        4: AttemptResult(replica_id, started_s=at_s, ended_s=at_s + 2),
        5: AttemptResult("gone", FinishReason.LENGTH, (), None, at_s, at_s, at_s),
    }
    observe(results[kind], at_s + 3)


@every_balancer
@settings(max_examples=40)
@given(day=days)
def test_it_chooses_one_of_those_it_was_shown(name: str, day: list[tuple[Request, list[ReplicaView], int]]) -> None:
    """Fleets change between calls in every way; nobody else is chosen, and nobody only where there is nobody."""
    balancer = BALANCERS[name]()
    for asked, replicas, kind in day:
        shown = list(replicas)
        chosen = balancer.choose(asked, replicas)
        assert replicas == shown, "the list is not its own"
        if not replicas:
            assert chosen is None
        else:
            assert chosen in {view.replica_id for view in replicas}
            learn(balancer, str(chosen), kind, asked.arrived_s)


@pytest.mark.parametrize("name", sorted(BALANCERS.keys() - DRAWS_POSITIONS))
@settings(max_examples=40)
@given(day=days, shuffle=st.integers())
def test_the_order_of_the_list_means_nothing(
    name: str, day: list[tuple[Request, list[ReplicaView], int]], shuffle: int
) -> None:
    one, other, rng = BALANCERS[name](), BALANCERS[name](), Random(shuffle)
    for asked, replicas, _ in day:
        assert one.choose(asked, replicas) == other.choose(asked, rng.sample(replicas, len(replicas)))


@every_balancer
@settings(max_examples=40)
@given(day=days)
def test_the_same_history_leads_to_the_same_choices(
    name: str, day: list[tuple[Request, list[ReplicaView], int]]
) -> None:
    one, other = BALANCERS[name](), BALANCERS[name]()
    for asked, replicas, kind in day:
        chosen = one.choose(asked, replicas)
        assert chosen == other.choose(asked, tuple(replicas)), "a tuple serves as well as a list"
        for balancer in (one, other):
            learn(balancer, str(chosen), kind, asked.arrived_s)


@every_balancer
def test_nobody_starves_in_a_fleet_of_equals(name: str) -> None:
    """Loads are those that the choices cause, the oldest of 30 requests ending each time; all requests differ."""
    balancer, load, running = BALANCERS[name](), {f"r{n}": 0 for n in range(5)}, []
    got = dict.fromkeys(load, 0)
    for n in range(1000):
        if len(running) == 30:
            load[running.pop(0)] -= 1
        views = [
            ReplicaView(id_, outstanding=count, queue_depth=count, kv_used_fraction=count / 100)
            for id_, count in load.items()
        ]
        asked = Request(request_id=f"q{n}", model="m", prompt_ids=range(n * 2**20, n * 2**20 + 300))
        chosen = balancer.choose(asked, views)
        assert chosen is not None
        load[chosen] += 1
        got[chosen] += 1
        running.append(chosen)
    assert min(got.values()) > 100, got
    assert math.fsum(got.values()) == 1000


HASHED = """
from miniserve.policies.routing.balancer import BALANCERS
from miniserve.types import ReplicaView, Request
fleet = [ReplicaView(f"r{n}", outstanding=n % 2, queue_depth=n % 2) for n in range(7)]
for name, make in sorted(BALANCERS.items()):
    balancer = make()
    asked = [Request(f"q{n}", "m", (n % 5,) * 200, tenant=f"t{n % 3}") for n in range(60)]
    print(name, *(balancer.choose(request, fleet) for request in asked))
"""


def test_choices_do_not_depend_on_the_process() -> None:
    """Python's own hash of a string differs from process to process; nothing here may rest on it."""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", HASHED],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().splitlines()) == len(BALANCERS)
