"""What chapter 4 says of its experiments holds for them, and its paper fleet is the real one with one slot."""

from random import Random

import numpy as np
import pytest

from miniserve.course.chapters.ch04_round_robin import lab
from miniserve.observe.outcomes import OutcomeLog
from miniserve.observe.percentiles import percentile
from miniserve.planning.queueing import mg1_waiting_s, power_of_d_sojourn_s
from miniserve.policies.routing import balancer as library

KILLER = [(0.5 * i, 2000 if i % 50 == 0 else 10) for i in range(600)]
WINNER = [(9.9 * i, 2000) for i in range(100)]


def test_the_paper_fleet_waits_as_the_real_scheduler_with_one_slot_does():
    rng = Random(1)
    trace = sorted((round(rng.uniform(0, 300), 3), rng.randrange(10, 400)) for _ in range(200))
    outcomes = lab.replay(trace, library.RoundRobin)
    real_s = np.empty(len(trace))
    real_s[outcomes.index] = outcomes.ttft_s - 1 / lab.TOKENS_PER_S
    assert real_s == pytest.approx(lab.serve(trace, lab.by_turns).wait_s, abs=1e-6)


def test_a_request_is_sent_past_a_place_if_its_replica_is_full_and_another_is_not():
    log = OutcomeLog()
    for index, (came_s, ended_s, replica) in enumerate(
        [(0, 9, "a"), (1, 9, "a"), (2, 9, "b"), (3, 9, "a"), (9, 10, "a")]
    ):
        log.record(index, came_s, ended_s, first_token_s=ended_s, output_tokens=1, replica_id=replica)
    # with one place each: the second finds "a" taken and "b" free; at the fourth both are taken; at the fifth none is
    assert lab.past_a_place(log.outcomes(), places=1) == pytest.approx(1 / 5)
    assert lab.past_a_place(log.outcomes(), places=2) == pytest.approx(1 / 5)  # the fourth: two in "a", one in "b"


def test_one_trace_is_three_times_worse_by_turns_and_one_twice_better_also_on_the_real_scheduler():
    for trace, worse, better, times in (
        (KILLER, library.RoundRobin, library.LeastOutstanding, 3),
        (WINNER, library.LeastOutstanding, library.RoundRobin, 2),
    ):
        p99s = [percentile(lab.replay(trace, make).ttft_s, 99) for make in (worse, better)]
        assert p99s[0] >= times * p99s[1]


def test_larkspurs_p99_by_turns_is_three_times_that_of_counting_on_its_ordinary_afternoon():
    turns, counts = (lab.afternoon(make) for make in (library.RoundRobin, library.LeastOutstanding))
    assert percentile(turns.ttft_s, 99) >= 3 * percentile(counts.ttft_s, 99)
    assert percentile(turns.ttft_s, 50) < 1.3 * percentile(counts.ttft_s, 50)


def test_drawing_lots_waits_as_theory_says_and_counting_waits_far_less():
    trace = lab.random_trace(40_000, 0.6, 0.05, 2, 40)
    waits = [lab.serve(trace, choose).wait_s.mean() for choose in (lab.by_lot, lab.by_turns, lab.fewest_requests)]
    mean_s, square = 0.05 * 40 + 0.95 * 2, 0.05 * 40**2 + 0.95 * 2**2
    assert waits[0] == pytest.approx(mg1_waiting_s(0.15, mean_s, square / mean_s**2 - 1), rel=0.1)
    assert 0.6 * waits[0] < waits[1] < waits[0]
    assert 3 * waits[2] < waits[1]


def test_old_numbers_make_a_herd_and_two_looks_none():
    steady = [(i / 3, 50) for i in range(180)]
    herd, two = (lab.p99_wait_s(steady, choose, 10) for choose in (lab.fewest_requests, lab.better_of_two))
    assert herd > 15
    assert herd > 2 * two


def test_chunks_shorten_the_pause_and_delay_the_prompt_and_who_stands_behind_it():
    whole, chunks = lab.behind_a_long_prompt(8192), lab.behind_a_long_prompt(256)
    assert whole.longest_pause_ms > 3 * chunks.longest_pause_ms
    assert chunks.long_first_ms > whole.long_first_ms
    assert chunks.short_first_ms > whole.short_first_ms
    fixed_ms, token_ms = lab.step_costs_ms()
    assert 1 < chunks.longest_pause_ms / (fixed_ms + token_ms * 256) < 1.2


def test_two_looks_are_near_theory():
    assert lab.mean_time_s(lab.better_of_two) == pytest.approx(power_of_d_sojourn_s(0.9, 1.0, 2), rel=0.1)
    assert lab.mean_time_s(lab.by_lot) == pytest.approx(10, rel=0.15)
