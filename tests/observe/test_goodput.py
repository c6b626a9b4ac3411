"""Goodput counts only what kept every limit, window by window."""

from __future__ import annotations

import math

import pytest

from miniserve.observe.goodput import SLO, attainment, goodput_per_s, kept, over_time
from miniserve.observe.outcomes import OutcomeLog, Outcomes


def served(arrived_s: float, ttft_s: float, tpot_s: float, tokens: int, deadline_s: float | None = None) -> Outcomes:
    log = OutcomeLog()
    first_s = arrived_s + ttft_s
    ended_s = first_s + tpot_s * (tokens - 1)
    log.record(0, arrived_s, ended_s, first_token_s=first_s, output_tokens=tokens, deadline_s=deadline_s)
    return log.outcomes()


@pytest.mark.parametrize(
    ("slo", "good"),
    [
        (SLO(), True),
        (SLO(ttft_s=0.5), True),
        (SLO(ttft_s=0.49), False),
        (SLO(tpot_s=0.25), True),
        (SLO(tpot_s=0.24), False),
        (SLO(ttft_s=0.5, tpot_s=0.25, e2e_s=2.5), True),
        (SLO(ttft_s=0.5, tpot_s=0.25, e2e_s=2.49), False),
    ],
)
def test_a_limit_may_be_reached_but_not_passed(slo: SLO, good: bool) -> None:
    assert kept(served(0.0, 0.5, 0.25, 9), slo).tolist() == [good]


def test_an_answer_of_one_token_breaks_no_limit_per_further_token() -> None:
    assert kept(served(0.0, 0.5, 0.0, 1), SLO(tpot_s=0.001)).tolist() == [True]


def test_an_answer_after_its_own_deadline_is_not_good() -> None:
    assert kept(served(0.0, 0.5, 0.25, 9, deadline_s=2.5), SLO()).tolist() == [True]
    assert kept(served(0.0, 0.5, 0.25, 9, deadline_s=2.4), SLO()).tolist() == [False]


def run() -> Outcomes:
    """Return ten seconds, two requests each; those from second 4 on fail, those from 6 on are slow, until 8."""
    log = OutcomeLog()
    for i in range(20):
        arrived_s = i / 2
        ttft_s = 0.9 if 6 <= arrived_s < 8 else 0.1
        failed = 4 <= arrived_s < 6
        first_s = None if failed else arrived_s + ttft_s
        log.record(i, arrived_s, arrived_s + ttft_s, first_token_s=first_s, status=503 if failed else 200)
    return log.outcomes()


def test_goodput_of_a_run() -> None:
    slo = SLO(ttft_s=0.5)

    assert attainment(run(), slo) == 12 / 20
    assert goodput_per_s(run(), slo) == pytest.approx(12 / 9.6)
    assert attainment(run().arrived_between(6, 8), slo) == 0


def test_goodput_over_time() -> None:
    rates = over_time(run(), SLO(ttft_s=0.5), 2.0, end_s=10.0)

    assert rates.times_s.tolist() == [1, 3, 5, 7, 9]
    assert rates.offered_per_s.tolist() == [2, 2, 2, 2, 2]
    assert rates.served_per_s.tolist() == [2, 2, 0, 1.5, 2.5], "a slow answer ends in a later window"
    assert rates.good_per_s.tolist() == [2, 2, 0, 0, 2]
    lenient = over_time(run(), SLO(ttft_s=1.0), 2.0, end_s=10.0)
    assert lenient.good_per_s.tolist() == [2, 2, 0, 1.5, 2.5], "like throughput, by the time of the end"


def test_a_last_window_that_is_not_full_is_left_out() -> None:
    assert over_time(run(), SLO(), 2.0).times_s.tolist() == [1, 3, 5, 7]
    assert over_time(run(), SLO(), 100.0).times_s.tolist() == [50], "unless it is the only one"


def test_nothing_at_all() -> None:
    empty = OutcomeLog().outcomes()

    assert math.isnan(attainment(empty, SLO()))
    assert goodput_per_s(empty, SLO()) == 0
    assert len(over_time(empty, SLO(), 1.0).times_s) == 0


def test_bad_limits_are_named() -> None:
    with pytest.raises(ValueError, match=r"ttft_s \(-1\) must be positive"):
        SLO(ttft_s=-1)
    with pytest.raises(ValueError, match=r"tpot_s \(nan\)"):
        SLO(tpot_s=math.nan)
    with pytest.raises(ValueError, match=r"window_s \(0\)"):
        over_time(run(), SLO(), 0)


def test_an_slo_says_what_it_asks() -> None:
    assert str(SLO(ttft_s=0.5, e2e_s=10)) == "TTFT <= 0.5 s, E2E <= 10 s"
    assert str(SLO()) == "served at all"
