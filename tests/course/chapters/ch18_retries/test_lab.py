"""What chapter 18 says in words about its experiments holds for them; and its server is chapter 10's."""

import numpy as np
import pytest

from miniserve.clients.retry_loop import persist
from miniserve.course.chapters.ch10_retry_storms import lab as ch10
from miniserve.course.chapters.ch18_retries import lab
from miniserve.policies.recovery.retry import Backoff, NaiveRetry, NeverRetry
from miniserve.policies.recovery.retry_budget import RetryBudget, Unlimited


def patient(most=4, base_s=0.5, cap_s=10):
    return Backoff(max_attempts=most, base_s=base_s, cap_s=cap_s)


def budget():
    return RetryBudget(ratio=0.1, floor_per_s=0)


@pytest.mark.parametrize("make", [NeverRetry, lambda: NaiveRetry(max_attempts=4), patient])
def test_clients_with_a_loop_meet_what_chapter_10s_clients_meet(make):
    ours, theirs = lab.storm(persist, make(), Unlimited()), ch10.storm(make())
    assert np.array_equal(ours.storm.good, theirs.good)
    assert np.array_equal(ours.storm.tries, theirs.tries)
    assert len(ours.tried_s) == ours.storm.tries.sum()


def test_near_the_limit_only_a_budget_brings_it_back():
    assert lab.storm(persist, NeverRetry(), Unlimited()).late_share == 1
    assert lab.storm(persist, NaiveRetry(max_attempts=4), Unlimited()).late_share == 0
    assert lab.storm(persist, patient(), Unlimited()).late_share == 0
    assert lab.storm(persist, patient(), budget()).late_share == 1


def test_with_light_traffic_backoff_lets_it_recover_and_naive_retries_do_not():
    def run(policy, arrivals_per_s):
        return lab.storm(persist, policy, Unlimited(), arrivals_per_s=arrivals_per_s).late_share

    assert run(NaiveRetry(max_attempts=10), 2) == 0
    assert run(patient(10, 4, 60), 2) == 1
    assert run(patient(10, 4, 60), 4) < 0.1


def test_the_waits_hold_light_traffic_below_what_the_server_can_do_and_heavier_traffic_not():
    def per_s(arrivals_per_s):
        run = lab.storm(persist, patient(10, 4, 60), Unlimited(), arrivals_per_s=arrivals_per_s)
        return np.histogram(run.tried_s, np.arange(0, 241, 5))[0] / 5

    assert per_s(2).max() < 0.7 * ch10.CAPACITY_PER_S
    assert per_s(4)[-1] > 3 * ch10.CAPACITY_PER_S


def test_a_budget_is_not_felt_while_few_tries_fail_and_bounds_the_load_when_all_do():
    calm, all_fail = (lab.shaky(persist, patient(), budget(), chance) for chance in (0.01, 1.0))
    assert calm.between(0, 240)[0] > 0.999
    assert all_fail.between(0, 240)[1] < 1.11
    assert lab.shaky(persist, NaiveRetry(max_attempts=4), Unlimited(), 1.0).between(0, 240)[1] == 4


def test_any_jitter_serves_all_with_fewer_tries_than_bare_waits():
    from miniserve.policies.recovery.waits import Waits
    from miniserve.seeds import generator

    def run(way):
        rows = ch10.wave(lab.by_waits(Waits(generator(18, way), 4, 32), way), 200, 10, 120)
        return sum(row[1] for row in rows), sum(row[2] for row in rows)

    bare_tries, bare_served = run("bare")
    assert bare_served <= 60
    for way in ("full", "equal", "decorrelated"):
        tries, served = run(way)
        assert served == 200
        assert tries < bare_tries


def test_larkspur_recovers_with_backoff_and_budget():
    assert lab.larkspur(Backoff).between(*ch10.LATE_S)[0] > 0.99
