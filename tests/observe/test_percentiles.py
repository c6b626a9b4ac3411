"""Nearest-rank percentiles: exactly the definition, also where binary fractions would mislead."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.observe.percentiles import Window, percentile, percentiles, percentiles_of_sorted

numbers = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=60)


@given(numbers, st.integers(1, 1000))
def test_it_is_the_smallest_value_with_enough_values_up_to_it(values: list[float], tenths: int) -> None:
    share = Fraction(tenths, 1000)
    enough = [v for v in values if sum(w <= v for w in values) >= share * len(values)]
    assert percentile(values, tenths / 10) == min(enough)


@pytest.mark.parametrize("values", [[3, math.nan, 1], [math.nan], [1, 3, math.nan], [math.nan, 1, 3]])
@pytest.mark.parametrize("p", [0, 50, 100])
def test_values_with_nan_have_no_percentile_in_any_order(values: list[float], p: float) -> None:
    with pytest.raises(ValueError, match="nan"):
        percentile(values, p)
    with pytest.raises(ValueError, match="nan"):
        percentiles_of_sorted(np.sort(values), (p,))
    window = Window(5)
    with pytest.raises(ValueError, match="nan"):
        window.add(math.nan)


@pytest.mark.parametrize(
    ("n", "p", "rank"),
    [
        (100, 7, 7),
        (100, 29, 29),
        (1000, 99.9, 999),
        (1000, 99.95, 1000),
        (10, 10, 1),
        (3, 50, 2),
        (4, 50, 2),
        (1, 1, 1),
    ],
)
def test_ranks_are_exact(n: int, p: float, rank: int) -> None:
    assert percentile(range(1, n + 1), p) == rank


def test_the_ends() -> None:
    assert percentiles([3, 1, 2], (0, 100)) == (1, 3)


@pytest.mark.parametrize(("values", "p"), [([], 50), ([1.0], -0.1), ([1.0], 100.1), ([1.0], float("nan"))])
def test_what_has_no_percentile(values: list[float], p: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, p)


@given(st.lists(st.integers(0, 9).map(float), max_size=40), st.integers(1, 10))
def test_a_window_knows_only_the_last_values(values: list[float], size: int) -> None:
    window = Window(size)
    for value in values:
        window.add(value)
    assert len(window) == min(size, len(values))
    assert window.percentiles(50, 99) == (percentiles(values[-size:], (50, 99)) if values else None)


def test_a_window_has_a_size() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Window(0)
