"""What chapter 5 says in words about its experiments holds for them."""

import numpy as np
import pytest

from miniserve.course.chapters.ch05_cold_starts import lab
from miniserve.scenario import load, variants


def test_a_queue_after_a_jump_is_arrivals_minus_service_until_the_first_new_replica():
    run = lab.play(lab.JUMP, lab.reactive())
    seconds = lab.PERIOD_S + lab.cold_start().nominal_s
    assert run.waiting.max() == pytest.approx((4 - 3 * lab.EACH_PER_S) * seconds, rel=0.02)


def test_everybody_is_served_or_waits_and_those_who_wait_are_served_in_order():
    run = lab.play(lab.JUMP, lab.reactive())
    served = np.diff(np.cumsum(run.demand_per_s) - run.waiting)
    assert (served >= -1e-9).all()
    assert (served <= run.ready[1:] * lab.EACH_PER_S + 1e-9).all()
    leaves_s = np.arange(len(run.wait_s)) + run.wait_s
    assert (np.diff(leaves_s) >= -1e-6).all()


def test_without_a_queue_nobody_is_late_and_the_bill_is_replicas_times_hours():
    run = lab.play([(0, 2), (60, 2)], lab.reactive())
    assert run.late == 0
    assert run.usd == pytest.approx(5 * lab.machine().usd_per_hour)


def test_demand_that_grows_faster_and_faster_breaks_reaction_and_a_forecast_beyond_the_cold_start_keeps_the_promise():
    assert lab.play(lab.WORD_SPREADS, lab.reactive()).kept_share < lab.BROKEN_SHARE
    assert lab.play(lab.WORD_SPREADS, lab.predictive(60)).kept_share < lab.BROKEN_SHARE
    bills = [lab.play(lab.WORD_SPREADS, lab.predictive(horizon_s)) for horizon_s in (120, 180, 300, 600)]
    assert all(run.kept_share > lab.PROMISED_SHARE for run in bills)
    assert [run.usd for run in bills] == sorted(run.usd for run in bills)
    assert lab.clairvoyant_usd(lab.WORD_SPREADS) < bills[0].usd


def test_growth_within_a_cold_start_is_a_share_of_the_demand_before_and_word_outgrows_the_room():
    assert lab.growth_in_cold_start([(0, 2), (60, 2)]) == 0
    assert lab.growth_in_cold_start([(0, 5), (60, 1)]) < 0
    assert lab.growth_in_cold_start(lab.JUMP) == pytest.approx(3)
    assert lab.growth_in_cold_start(lab.WORD_SPREADS) > lab.ROOM_FRACTION == pytest.approx(0.25)


def test_a_jump_is_missed_by_both_and_a_gentle_rise_only_costs_more():
    for curve in (lab.JUMP, [(0, 1), (20, 1), (40, 4), (90, 4)]):
        now, ahead = lab.play(curve, lab.reactive()), lab.play(curve, lab.predictive())
        assert ahead.late == pytest.approx(now.late, rel=0.02)
        assert ahead.usd > now.usd


def test_the_scenario_has_the_autoscalers_of_the_model():
    assert variants(lab.SCENARIO) == ("reactive", "predictive")
    for how in variants(lab.SCENARIO):
        scaling = load(lab.SCENARIO, variant=how).autoscaler
        assert scaling is not None
        assert scaling.period_s == lab.PERIOD_S
        assert scaling.max_replicas == lab.MOST_REPLICAS


def test_on_the_real_scheduler_prediction_is_dearer_and_fewer_are_late():
    now, ahead = lab.sale("reactive").totals, lab.sale("predictive").totals
    assert ahead["late_requests"] < now["late_requests"]
    assert ahead["cost_usd"] > now["cost_usd"]
