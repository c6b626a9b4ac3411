"""What chapter 9 says in words about its models and its simulated customers holds."""

import numpy as np
import pytest

from miniserve.abtest.sequential import peeking_error
from miniserve.abtest.srm import ALARM_P, srm_p_value
from miniserve.course.chapters.ch09_ab_tests import lab
from miniserve.course.chapters.ch09_ab_tests import questions as asked


def test_benchmark_and_customers_disagree_and_neither_by_chance():
    assert lab.benchmark().low > 0.05
    assert lab.ab_test().estimate().high < -0.005


def test_the_customers_verdict_is_that_of_the_accuracies_in_their_mix():
    true = lab.up_rate(lab.CANDIDATE) - lab.up_rate(lab.CURRENT)
    found = lab.ab_test().estimate()
    assert found.low < true < found.high
    assert lab.score(lab.CURRENT, lab.LARKSPUR) - lab.score(lab.CANDIDATE, lab.LARKSPUR) == pytest.approx(
        0.032, abs=5e-4
    )


def test_a_score_in_the_benchmarks_own_mix_is_the_recorded_accuracy():
    for model in (lab.CURRENT, lab.CANDIDATE):
        recorded = next(s for s in lab.evaluation(model)["scores"] if s["difficulty"] == s["task"] == "all")
        assert lab.score(model, lab.benchmark_mix()) == pytest.approx(recorded["accuracy"], abs=1e-4)


def test_the_memo_counts_rightly():
    found = lab.ab_test().estimate()
    assert [round(100 * value, 1) for value in (found.difference, found.low, found.high)] == [-1.9, -2.9, -1.0]
    assert sum(lab.ab_test().users) == 24_000
    assert sum(share for kind, share in lab.LARKSPUR.items() if kind.startswith("easy")) == pytest.approx(0.9)
    assert lab.accuracy(lab.CANDIDATE)["easy fact"] < 0.5


@pytest.mark.parametrize("looks", [1, 2, 5, 10])
def test_the_simulated_false_positives_are_the_computed_ones(looks):
    assert lab.false_positive_percent(looks) == pytest.approx(100 * peeking_error(looks), abs=1.2)


def test_planned_size_has_the_planned_power():
    given = asked.PLAN.given("ada")
    users = asked.PLAN.truth(**given)
    assert lab.found_share(given["rate"], given["lift"], users) == pytest.approx(0.8, abs=0.03)
    assert lab.found_share(given["rate"], given["lift"], users / 4) < 0.4


def test_lost_customers_hide_the_loss_and_show_in_the_split():
    lost = lab.ab_test(gave_up=0.9)
    assert lost.estimate().low < 0 < lost.estimate().high
    assert srm_p_value(lost.users) < ALARM_P < srm_p_value(lab.ab_test().users)


def test_of_the_archives_splits_only_the_one_that_looks_even_is_broken():
    broken = [name for name, (a, b, share) in lab.SPLITS.items() if srm_p_value((a, b), (share, 1 - share)) < ALARM_P]
    assert broken == ["new app"]


def test_each_assignment_breaks_nothing_in_the_small_log_and_is_no_coin_in_a_large_one():
    log = {"experiments": ["tone", "length"], "users": [f"customer-{i}" for i in range(60)], "visits": 2}
    assert lab.audit(lab.fair, log) == []
    assert lab.audit(lab.per_visit, log) == ["sticky"]
    assert lab.audit(lab.unsalted, log) == ["independent"]
    assert "balanced" in lab.audit(lab.truncated, log)


def test_a_thousand_fair_logs_are_hardly_ever_blamed():
    rng = np.random.default_rng(9)
    logs = [
        {"experiments": ["a", "b"], "users": [f"u{n}" for n in rng.integers(10**9, size=50)], "visits": 1}
        for _ in range(200)
    ]
    assert sum(bool(lab.audit(lab.fair, log)) for log in logs) <= 2
