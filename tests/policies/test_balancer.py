"""LeastOutstanding: the least loaded wins, equals share, and the order of the list means nothing."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from miniserve.policies.balancer import LeastOutstanding
from miniserve.types import ReplicaView, Request

loads = st.dictionaries(st.sampled_from([f"r{i}" for i in range(8)]), st.integers(0, 5), min_size=1)


def a_request(request_id: str = "q") -> Request:
    return Request(request_id=request_id, model="m", prompt_ids=(1,))


def views(outstanding: dict[str, int]) -> list[ReplicaView]:
    return [ReplicaView(replica_id, outstanding=count) for replica_id, count in outstanding.items()]


def test_no_replicas_no_choice() -> None:
    assert LeastOutstanding().choose(a_request(), []) is None


@given(loads, st.text(max_size=8))
def test_a_least_loaded_replica_is_chosen(outstanding: dict[str, int], request_id: str) -> None:
    chosen = LeastOutstanding().choose(a_request(request_id), views(outstanding))
    assert chosen is not None
    assert outstanding[chosen] == min(outstanding.values())


@given(loads, st.randoms())
def test_the_order_of_the_replicas_does_not_matter(outstanding: dict[str, int], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = views(outstanding)
    random.shuffle(shuffled)
    balancer = LeastOutstanding()
    assert balancer.choose(a_request(), shuffled) == balancer.choose(a_request(), views(outstanding))


def test_equals_share_the_requests() -> None:
    """Of 3,000 requests to three idle replicas each gets a third, within five standard deviations (129)."""
    idle = views({"a": 0, "b": 0, "c": 0})
    chosen = Counter(LeastOutstanding().choose(a_request(f"q{i}"), idle) for i in range(3000))
    assert set(chosen) == {"a", "b", "c"}
    assert all(abs(count - 1000) < 129 for count in chosen.values())
