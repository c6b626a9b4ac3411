"""Each balancer's own idea: who is least loaded, whose turn it is, and what two random choices are worth."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import UpstreamError
from miniserve.policies.routing.balancer import (
    Balancer,
    LeastKv,
    LeastOutstanding,
    LeastQueue,
    PeakEwma,
    PowerOfTwo,
    Random,
    RoundRobin,
    Weighted,
)
from miniserve.types import AttemptResult, FinishReason, ReplicaView, Request

loads = st.dictionaries(st.sampled_from([f"r{i}" for i in range(8)]), st.integers(0, 5), min_size=1)


def a_request(request_id: str = "q", arrived_s: float = 0.0) -> Request:
    return Request(request_id=request_id, model="m", prompt_ids=(1,), arrived_s=arrived_s)


def views(outstanding: dict[str, int]) -> list[ReplicaView]:
    return [ReplicaView(replica_id, outstanding=count) for replica_id, count in outstanding.items()]


def choices(balancer: Balancer, replicas: Sequence[ReplicaView], count: int) -> list[str | None]:
    return [balancer.choose(a_request(f"q{n}"), replicas) for n in range(count)]


# --- the least of something ----------------------------------------------------------------------------------------


@given(loads, st.text(max_size=8))
def test_a_least_loaded_replica_is_chosen(outstanding: dict[str, int], request_id: str) -> None:
    chosen = LeastOutstanding().choose(a_request(request_id), views(outstanding))
    assert chosen is not None
    assert outstanding[chosen] == min(outstanding.values())


@pytest.mark.parametrize("balancer", [LeastOutstanding(), Random()])
def test_equals_share_the_requests(balancer: Balancer) -> None:
    """Of 3,000 requests to three idle replicas each gets a third, within five standard deviations (129)."""
    chosen = Counter(choices(balancer, views({"a": 0, "b": 0, "c": 0}), 3000))
    assert set(chosen) == {"a", "b", "c"}
    assert all(abs(count - 1000) < 129 for count in chosen.values())


def test_each_looks_at_its_own_number() -> None:
    replicas = [
        ReplicaView("outstanding", outstanding=0, queue_depth=5, kv_used_fraction=0.5),
        ReplicaView("queue", outstanding=5, queue_depth=0, kv_used_fraction=0.5),
    ]
    chosen = [balancer.choose(a_request(), replicas) for balancer in (LeastOutstanding(), LeastQueue())]
    assert chosen == ["outstanding", "queue"]


def test_room_is_where_nobody_waits_and_the_pool_is_empty() -> None:
    full, emptier, crowded = (
        ReplicaView("full", kv_used_fraction=0.9),
        ReplicaView("emptier", kv_used_fraction=0.8),
        ReplicaView("crowded", queue_depth=1, kv_used_fraction=0.1),
    )
    assert LeastKv().choose(a_request(), [full, emptier, crowded]) == "emptier"
    assert LeastKv().choose(a_request(), [full, crowded]) == "full", "who waits holds no blocks yet"


# --- turns ---------------------------------------------------------------------------------------------------------


def test_round_robin_takes_turns_and_is_not_thrown_off_by_those_who_come_and_go() -> None:
    balancer, abc = RoundRobin(), views({"a": 0, "b": 0, "c": 0})
    assert choices(balancer, abc, 4) == ["a", "b", "c", "a"]
    assert balancer.choose(a_request(), [abc[0], abc[2]]) == "c", "b is away"
    assert choices(balancer, abc, 2) == ["a", "b"]


def weighted(weights: dict[str, float]) -> list[ReplicaView]:
    return [ReplicaView(replica_id, weight=weight) for replica_id, weight in weights.items()]


def test_weights_are_spread_smoothly() -> None:
    """nginx's own example: 5, 1, 1 gives a a b a c a a, again and again."""
    fleet = weighted({"a": 5, "b": 1, "c": 1})
    assert "".join(str(id_) for id_ in choices(Weighted(), fleet, 14)) == "aabacaa" * 2


@given(st.dictionaries(st.sampled_from("abcde"), st.integers(0, 9), min_size=1).filter(lambda w: any(w.values())))
def test_a_round_gives_each_exactly_its_weight(weights: dict[str, int]) -> None:
    fleet = weighted({id_: float(weight) for id_, weight in weights.items()})
    chosen = Counter(choices(Weighted(), fleet, sum(weights.values())))
    assert chosen == {id_: weight for id_, weight in weights.items() if weight}


def test_no_weight_at_all_is_equal_weight() -> None:
    assert Counter(choices(Weighted(), weighted({"a": 0, "b": 0}), 10)) == {"a": 5, "b": 5}


def test_weights_may_change_at_any_time() -> None:
    balancer = Weighted()
    choices(balancer, weighted({"old": 99, "new": 1}), 100)
    chosen = Counter(choices(balancer, weighted({"old": 50, "new": 50}), 100))
    assert abs(chosen["new"] - 50) <= 1


float_weights = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(1e-9, 1e9), min_size=1)


@given(st.lists(float_weights, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_the_list_says_nothing_however_weights_change(
    changes: list[dict[str, float]], luck: random.Random
) -> None:
    one, other = Weighted(), Weighted()
    for weights in changes:
        listed = weighted(weights)
        assert one.choose(a_request(), listed) == other.choose(a_request(), luck.sample(listed, len(listed)))


def test_credits_do_not_drift() -> None:
    """In floats 0.1 + 0.2 + 0.3 is 0.6 or 0.6000000000000001, and a remainder is left over at each turn."""
    balancer, luck = Weighted(), random.Random(4)
    for _ in range(3000):
        balancer.choose(a_request(), weighted({id_: luck.random() for id_ in luck.sample("abcde", 3)}))
        assert sum(balancer._credit.values()) == 0


def test_weighted_forgets_those_who_left() -> None:
    balancer = Weighted()
    for n in range(1000):
        balancer.choose(a_request(), weighted({f"r{n}": 1, f"r{n + 1}": 1}))
    assert len(balancer._credit) < 30


# --- two choices ---------------------------------------------------------------------------------------------------


def test_of_two_drawn_the_less_loaded_is_taken() -> None:
    """The busiest is never chosen, the idlest whenever it is drawn: 1 - C(3,2)/C(4,2) = 1/2 of the time."""
    chosen = Counter(choices(PowerOfTwo(), views({"a": 0, "b": 1, "c": 2, "d": 3}), 6000))
    expected = {"a": 3000, "b": 2000, "c": 1000}
    assert set(chosen) == set(expected)
    assert all(abs(chosen[id_] - count) < 5 * math.sqrt(1500) for id_, count in expected.items())


def fill(balancer: Balancer, replicas: int) -> int:
    """Throw as many balls as there are bins; return the fullest bin."""
    load = {f"r{n}": 0 for n in range(replicas)}
    for n in range(replicas):
        chosen = balancer.choose(a_request(f"q{n}"), views(load))
        assert chosen is not None
        load[chosen] += 1
    return max(load.values())


def test_two_choices_fill_bins_far_more_evenly_than_one() -> None:
    """n balls in n bins: about ln n / ln ln n in the fullest with one choice, ln ln n / ln 2 with two."""
    assert fill(LeastOutstanding(), 500) == 1
    assert fill(PowerOfTwo(), 500) <= 4 < fill(Random(), 500)


def test_the_same_request_draws_the_same_two() -> None:
    fleet = views(dict.fromkeys("abcdefgh", 0))
    assert choices(PowerOfTwo(seed=1), fleet, 50) == choices(PowerOfTwo(seed=1), fleet, 50)
    assert choices(PowerOfTwo(seed=1), fleet, 50) != choices(PowerOfTwo(seed=2), fleet, 50)


# --- peak EWMA -----------------------------------------------------------------------------------------------------


def answered(replica_id: str, seconds: float, at_s: float) -> AttemptResult:
    return AttemptResult(
        replica_id, FinishReason.STOP, (1,), started_s=at_s - seconds, first_token_s=at_s, ended_s=at_s + 9
    )


def failed(replica_id: str, seconds: float, at_s: float) -> AttemptResult:
    return AttemptResult(replica_id, error=UpstreamError("x"), started_s=at_s - seconds, ended_s=at_s)


def cost_of(balancer: PeakEwma, replica_id: str) -> float:
    return balancer._load(ReplicaView(replica_id))


def test_a_slower_answer_counts_at_once_a_faster_one_bit_by_bit() -> None:
    balancer = PeakEwma(tau_s=10.0)
    balancer.observe(answered("a", 1.0, 0.0), 0.0)
    balancer.observe(answered("a", 3.0, 5.0), 5.0)
    assert cost_of(balancer, "a") == 3.0
    balancer.observe(answered("a", 1.0, 10.0), 10.0)
    kept = math.exp(-0.5)
    assert cost_of(balancer, "a") == pytest.approx(3.0 * kept + 1.0 * (1 - kept))


def test_load_is_cost_times_outstanding_and_silence_forgets() -> None:
    balancer = PeakEwma(tau_s=10.0)
    balancer.observe(answered("a", 2.0, 0.0), 0.0)
    assert balancer._load(ReplicaView("a", outstanding=4)) == pytest.approx(10.0)
    balancer.choose(a_request(arrived_s=10.0), [ReplicaView("a")])
    assert cost_of(balancer, "a") == pytest.approx(2.0 / math.e)


def test_the_unknown_is_tried_once_and_then_waited_for() -> None:
    balancer = PeakEwma()
    balancer.observe(answered("known", 1.0, 0.0), 0.0)
    known = ReplicaView("known", outstanding=100)
    assert set(choices(balancer, [known, ReplicaView("new")], 20)) == {"new"}
    assert set(choices(balancer, [known, ReplicaView("new", outstanding=1)], 20)) == {"known"}


def test_failing_quickly_is_not_being_fast() -> None:
    balancer = PeakEwma()
    for at_s in range(10):
        balancer.observe(answered("good", 1.0, at_s), at_s)
        balancer.observe(failed("bad", 0.001, at_s), at_s)
    assert cost_of(balancer, "bad") >= cost_of(balancer, "good")


def test_an_attempt_aborted_early_says_little() -> None:
    balancer = PeakEwma()
    balancer.observe(answered("a", 1.0, 0.0), 0.0)
    balancer.observe(AttemptResult("a", started_s=0.0, ended_s=0.1), 0.1)
    assert cost_of(balancer, "a") == pytest.approx(math.exp(-0.01))
    balancer.observe(AttemptResult("a", started_s=0.0, ended_s=4.0), 4.0)
    assert cost_of(balancer, "a") == 4.0


def test_a_replica_that_slows_down_loses_traffic_at_once() -> None:
    balancer, fleet = PeakEwma(), [ReplicaView("a", outstanding=1), ReplicaView("b", outstanding=1)]
    for at_s in range(5):
        for replica_id in ("a", "b"):
            balancer.observe(answered(replica_id, 1.0, at_s), at_s)
    balancer.observe(answered("a", 5.0, 5.0), 5.0)
    assert set(choices(balancer, fleet, 30)) == {"b"}


def test_two_values_that_tie_keep_the_draw() -> None:
    fleet = views({"a": 1, "b": 1})
    assert len(set(choices(PowerOfTwo(), fleet, 40))) == 2
    assert all(a is not None for a, _ in pairwise(choices(PeakEwma(), fleet, 3)))
