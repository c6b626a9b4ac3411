"""What every rate limit promises."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.policies.admission.quota import GCRA, RateLimit, TokenBucket

KINDS = [GCRA, TokenBucket]
every_kind = pytest.mark.parametrize("kind", KINDS)
settings = {"rate_per_s": st.floats(0.01, 1000), "burst": st.integers(1, 20)}
arrivals = st.lists(st.tuples(st.floats(0, 20), st.integers(0, 25)), max_size=50)


@every_kind
@given(**settings, history=arrivals)
def test_it_takes_exactly_when_there_is_nothing_to_wait_for(
    kind: type[RateLimit], rate_per_s: float, burst: int, history: list[tuple[float, int]]
) -> None:
    limit, now_s = kind(rate_per_s=rate_per_s, burst=burst), 0.0
    for gap_s, cost in history:
        now_s += gap_s
        wait_s = limit.wait_s(now_s, cost)
        assert wait_s >= 0
        assert (wait_s == math.inf) == (cost > burst)
        assert limit.wait_s(now_s, cost) == wait_s, "asking changes nothing"
        assert limit.take(now_s, cost) == (wait_s == 0)


@every_kind
@given(**settings, cost=st.integers(1, 40))
def test_a_refusal_takes_nothing(kind: type[RateLimit], rate_per_s: float, burst: int, cost: int) -> None:
    limit = kind(rate_per_s=rate_per_s, burst=burst)
    for _ in range(5):
        assert limit.take(0.0, burst + cost) is False
    assert limit.take(0.0, burst)


@every_kind
@given(**settings, cost=st.integers(1, 20))
def test_what_is_given_back_can_be_taken_again_but_never_more_than_the_burst(
    kind: type[RateLimit], rate_per_s: float, burst: int, cost: int
) -> None:
    limit = kind(rate_per_s=rate_per_s, burst=burst)
    assert limit.take(0.0, burst)
    limit.give_back(0.0, cost)
    assert limit.take(0.0, min(cost, burst))
    assert not limit.take(0.0)
    limit.give_back(0.0, -burst)
    assert limit.wait_s(0.0) == pytest.approx((burst + 1) / rate_per_s, rel=1e-3), "debts are paid off in time"


@every_kind
def test_it_begins_full(kind: type[RateLimit]) -> None:
    assert kind(rate_per_s=1, burst=7).take(0.0, 7)
    assert kind(rate_per_s=1, burst=7).take(1e9, 7)
