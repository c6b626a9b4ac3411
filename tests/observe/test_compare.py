"""Comparing policies on the same seeds: real differences are found, luck is not taken for one."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from miniserve.observe.compare import Comparison, Difference, compare


def runs(shift: float, seeds: int = 6, noise: float = 0.01, name: str = "ttft_p99_s") -> list[dict[str, float]]:
    """Return figures with much luck per seed, shared by all, and a little of their own."""
    luck = np.random.default_rng(1).normal(10, 3, seeds)
    own = np.random.default_rng([2, int(1000 * abs(shift))]).normal(0, noise, seeds)
    return [{name: float(value)} for value in luck + own + shift]


def only(comparison: Comparison) -> Difference:
    (difference,) = comparison.differences
    return difference


@pytest.mark.parametrize(
    ("name", "shift", "verdict"),
    [
        ("ttft_p99_s", 0.1, "worse"),
        ("ttft_p99_s", -0.1, "better"),
        ("goodput_per_s", 0.1, "better"),
        ("goodput_per_s", -0.1, "worse"),
        ("goodput_per_s", 0.0, "same"),
    ],
)
def test_a_small_difference_shows_under_common_luck(name: str, shift: float, verdict: str) -> None:
    difference = only(compare({"base": runs(0, name=name), "new": runs(shift, name=name)}, [name]))

    assert difference.verdict == verdict
    assert difference.interval.estimate == pytest.approx(shift, abs=0.03)


def test_independent_luck_shows_nothing() -> None:
    other = [{"ttft_p99_s": run["ttft_p99_s"]} for run in runs(0.1)[::-1]]

    assert only(compare({"base": runs(0), "new": other}, ["ttft_p99_s"])).verdict == "unclear"


def test_rounding_is_no_difference() -> None:
    rounded = [{"ttft_p99_s": run["ttft_p99_s"] * (1 + 1e-14)} for run in runs(0)]

    assert only(compare({"base": runs(0), "new": rounded}, ["ttft_p99_s"])).verdict == "same"


def test_a_table_as_a_whole_rarely_claims_what_is_not_so() -> None:
    """Four policies that are alike, 200 tables at 90 %: 20 may err. Rows that each keep 90 % would spoil 48."""
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(200):
        figures = {p: [{"e2e_mean_s": float(v)} for v in rng.normal(5, 1, 8)] for p in "abcd"}
        wrong += any(d.significant for d in compare(figures, ["e2e_mean_s"], confidence=0.9).differences)

    assert wrong <= 20


def test_more_rows_make_each_interval_wider() -> None:
    one = compare({"a": runs(0), "b": runs(0.1)}, ["ttft_p99_s"])
    two = compare({"a": runs(0), "b": runs(0.1), "c": runs(0.2)}, ["ttft_p99_s"])

    assert two.differences[0].interval.half_width > one.differences[0].interval.half_width


def test_a_metric_that_a_run_lacks_is_left_out() -> None:
    nothing_served = [{**run, "failed_fraction": 1.0} for run in runs(0)]
    del nothing_served[3]["ttft_p99_s"]
    served = [{**run, "failed_fraction": 0.0} for run in runs(0)]

    assert [d.metric for d in compare({"a": served, "b": nothing_served}).differences] == ["failed_fraction"]


def test_the_table_says_it_in_words() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(compare({"random": runs(0), "p2c": runs(-0.1)}, ["ttft_p99_s"]).table())
    text = console.export_text()

    assert "difference from random, paired over 6 seeds" in text
    assert "TTFT p99 (ms)" in text
    assert "better" in text
    assert "95% confidence" in text


@pytest.mark.parametrize(
    ("figures", "named"),
    [
        ({"a": runs(0)}, "{'a': 6}"),
        ({"a": runs(0), "b": runs(0)[:5]}, "{'a': 6, 'b': 5}"),
        ({"a": runs(0)[:1], "b": runs(0)[:1]}, "2 or more seeds, not {'a': 1, 'b': 1}"),
    ],
)
def test_what_cannot_be_compared(figures: dict[str, list[dict[str, float]]], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        compare(figures)


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown metrics \['speed'\]"):
        compare({"a": runs(0), "b": runs(0)}, ["speed"])
