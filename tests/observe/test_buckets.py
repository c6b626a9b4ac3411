"""Buckets: every value lies within alpha of its bucket's middle, and no bucket is narrower than it may be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.observe.buckets import Buckets

ROUNDING = 1e-9
alphas = st.sampled_from([0.001, 0.01, 0.05, 0.3])


@given(st.floats(1e-12, 1e12), alphas)
def test_a_value_lies_within_alpha_of_the_middle(value: float, alpha: float) -> None:
    buckets = Buckets(alpha)

    assert abs(buckets.middle(buckets.key(value)) - value) <= alpha * value * (1 + ROUNDING)


@given(st.integers(-500, 500), alphas)
def test_the_middle_is_as_far_from_both_bounds(key: int, alpha: float) -> None:
    buckets = Buckets(alpha)
    low, high = buckets.gamma() ** (key - 1), buckets.gamma() ** key

    assert buckets.middle(key) == pytest.approx((1 + alpha) * low)
    assert buckets.middle(key) == pytest.approx((1 - alpha) * high)


def test_buckets_are_numbered_from_one_on() -> None:
    buckets = Buckets(1 / 3)  # gamma is 2, but for rounding

    assert [buckets.key(value) for value in (0.75, 1.0, 1.5, 1.99, 2.01, 3.99)] == [0, 0, 1, 1, 2, 2]


def test_from_a_nanosecond_to_a_year() -> None:
    """As the docstring of the sketch says."""
    buckets = Buckets(0.01)

    assert buckets.key(365 * 86400.0) - buckets.key(1e-9) <= 1900
    assert math.isfinite(buckets.middle(buckets.key(1e300)))
