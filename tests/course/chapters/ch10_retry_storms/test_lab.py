"""What chapter 10 says in words about its experiments holds for them."""

import pytest

from miniserve.course.chapters.ch10_retry_storms import lab
from miniserve.policies.recovery.retry import Backoff, NaiveRetry, NeverRetry
from miniserve.policies.recovery.retry_budget import RetryBudget
from miniserve.policies.recovery.waits import full_jitter, no_jitter


def patient():
    return Backoff(max_attempts=4, base_s=0.5, cap_s=10)


def test_jitter_serves_all_where_bare_backoff_serves_a_quarter_with_more_tries():
    def run(jitter):
        policy = Backoff(max_attempts=30, base_s=4, cap_s=32, jitter=jitter)
        rows = lab.wave(lab.by_policy(policy), clients=200, served_per_s=10, seconds=120)
        return sum(row[1] for row in rows), sum(row[2] for row in rows)

    bare_tries, bare_served = run(no_jitter)
    tries, served = run(full_jitter)
    assert served == 200
    assert bare_served <= 50
    assert tries < bare_tries


@pytest.mark.parametrize("policy", [NaiveRetry(max_attempts=4), patient()])
def test_retries_keep_the_recovered_server_down_patient_ones_too(policy):
    assert lab.storm(NeverRetry()).late_share == 1.0
    assert lab.storm(policy).late_share == 0.0


def test_a_budget_brings_it_back_later_than_no_retries():
    careful = lab.storm(patient(), budget=RetryBudget(ratio=0.1, floor_per_s=0))
    assert careful.late_share == 1.0
    assert careful.between(80, 90)[0] < lab.storm(NeverRetry()).between(80, 90)[0]
    assert careful.between(30, 40)[1] < 1.2, "during the fault hardly anybody tries twice"


def test_failing_tries_that_the_server_can_bear_are_no_storm():
    assert lab.storm(NaiveRetry(max_attempts=3), arrivals_per_s=3).late_share == 1.0


def test_larkspur_stays_down_with_four_tries_and_recovers_with_a_budget():
    assert lab.larkspur_storm("naive").between(*lab.LATE_S) == (0.0, 4.0)
    assert lab.larkspur_storm("budgeted").between(45, 90)[0] > 0.99
