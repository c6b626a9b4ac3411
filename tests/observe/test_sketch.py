"""The percentile sketch: right to within alpha at every rank, and a merge is the sketch of everything."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.observe.percentiles import percentiles
from miniserve.observe.sketch import Sketch, sketch_of

latencies = st.lists(st.floats(1e-9, 1e9) | st.just(0.0), max_size=60)
alphas = st.sampled_from([0.001, 0.01, 0.05, 0.3])
RANKS = (0, 0.1, 1, 10, 25, 50, 75, 90, 95, 99, 99.9, 100)
ROUNDING = 1e-9  # a value on the very bound of a bucket may be rounded across it


@given(latencies.filter(bool), alphas, st.floats(0, 100))
def test_every_percentile_is_within_alpha_of_the_exact_one(values: list[float], alpha: float, p: float) -> None:
    (exact,) = percentiles(values, (p,))

    assert abs(sketch_of(values, alpha).percentile(p) - exact) <= alpha * exact * (1 + ROUNDING)


@pytest.mark.parametrize("alpha", [0.001, 0.01])
def test_the_tail_of_a_heavy_tail_is_within_alpha(alpha: float) -> None:
    rng = Random(1)
    values = [rng.lognormvariate(0, 1) if rng.random() < 0.97 else rng.paretovariate(1.5) for _ in range(50_000)]
    sketch = sketch_of(values, alpha)

    for p, exact in zip(RANKS, percentiles(values, RANKS), strict=True):
        assert sketch.percentile(p) == pytest.approx(exact, rel=alpha * (1 + ROUNDING))
    if alpha == 0.01:
        assert sketch.num_buckets < 1000


def test_no_smaller_error_would_do() -> None:
    """Two values a factor of gamma apart in one bucket: alpha is reached, so the bound is the real one."""
    gamma = 1.01 / 0.99
    nearly = gamma**7 * (1 + 1e-9)

    assert sketch_of([nearly, gamma**8, gamma**8]).percentile(1) == pytest.approx(nearly * 1.01, rel=1e-6)


def test_how_large_a_bucket_is() -> None:
    """A hundred equal values need one counter, and the answer is clamped to what was really seen."""
    sketch = sketch_of([0.123] * 100)

    assert (sketch.num_buckets, len(sketch), sketch.percentile(50)) == (1, 100, 0.123)


@given(st.lists(latencies, max_size=6), st.randoms(use_true_random=False), st.sampled_from([1, 3, 40, None]))
def test_merging_parts_in_any_order_is_the_sketch_of_all(
    parts: list[list[float]], rng: Random, max_buckets: int | None
) -> None:
    def sketched(values: list[float]) -> Sketch:
        sketch = Sketch(max_buckets=max_buckets)
        for value in values:
            sketch.add(value)
        return sketch

    everything = [value for part in parts for value in part]
    rng.shuffle(everything)
    sketches = [sketched(part) for part in parts]
    rng.shuffle(sketches)
    merged = Sketch(max_buckets=max_buckets)
    for sketch in sketches:
        merged.merge(sketch)

    assert merged == sketched(everything)
    assert len(merged) == len(everything)
    assert max_buckets is None or merged.num_buckets <= max_buckets


def test_merging_pairs_first_changes_nothing() -> None:
    rng = Random(2)
    a, b, c = ([rng.expovariate(1.0) for _ in range(100)] for _ in range(3))
    left, right, bc = sketch_of(a), sketch_of(a), sketch_of(b)
    left.merge(sketch_of(b))
    left.merge(sketch_of(c))
    bc.merge(sketch_of(c))
    right.merge(bc)

    assert left == right == sketch_of(a + b + c)
    assert left != sketch_of(a + b)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=200), st.integers(1, 60))
def test_a_bounded_sketch_keeps_its_word_at_the_top(values: list[float], max_buckets: int) -> None:
    """All that lies less than `max_buckets` buckets under the largest value is as exact as without the bound."""
    bounded, free = Sketch(max_buckets=max_buckets), Sketch()
    for value in values:
        bounded.add(value)
        free.add(value)
    gamma = 1.01 / 0.99
    for p in RANKS:
        if free.percentile(p) > max(values) / gamma ** (max_buckets - 2):
            assert bounded.percentile(p) == free.percentile(p)


@pytest.mark.parametrize("value", [-1e-9, math.inf, math.nan])
def test_only_finite_values_from_zero_on(value: float) -> None:
    with pytest.raises(ValueError, match=f"not {value}"):
        Sketch().add(value)


def test_what_cannot_be_asked() -> None:
    with pytest.raises(ValueError, match="no values"):
        Sketch().percentile(50)
    with pytest.raises(ValueError, match="between 0 and 100, not at 101"):
        sketch_of([1.0]).percentile(101)
    with pytest.raises(ValueError, match=r"alpha 0.01 .* alpha 0.02"):
        Sketch().merge(Sketch(0.02))
    with pytest.raises(ValueError, match=r"alpha \(1\)"):
        Sketch(1)
    with pytest.raises(ValueError, match=r"max_buckets \(0\)"):
        Sketch(max_buckets=0)
