"""Fault plans: the same question gets the same answer, in the promised shares, and nobody's luck depends on others."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import InternalError, Overloaded, UpstreamError
from miniserve.faults import AttemptFault, FaultPlan, KeyedFaults, NoFaults, ReplicaEvent, ReplicaFault, fault_of

N = 4000


def test_the_same_question_gets_the_same_answer_in_any_order() -> None:
    plan = KeyedFaults(seed=3, error_fraction=0.3, cut_fraction=0.3)
    questions = [(f"r{i % 3}", f"q{i}", i % 2) for i in range(200)]
    forwards = {question: plan.attempt_fault(*question) for question in questions}
    assert {question: plan.attempt_fault(*question) for question in reversed(questions)} == forwards
    assert any(forwards.values())


@pytest.mark.parametrize(("error", "cut"), [(0.1, 0.0), (0.0, 0.1), (0.2, 0.3), (1.0, 0.0), (0.0, 1.0)])
def test_shares_are_as_asked(error: float, cut: float) -> None:
    plan = KeyedFaults(seed=1, error_fraction=error, cut_fraction=cut)
    faults = [plan.attempt_fault("r0", f"q{i}", 0) for i in range(N)]
    refused = sum(fault is not None and fault.after_tokens == 0 for fault in faults) / N
    broken = sum(fault is not None and fault.after_tokens > 0 for fault in faults) / N
    assert refused == pytest.approx(error, abs=4 * math.sqrt(error * (1 - error) / N))
    assert broken == pytest.approx(cut, abs=4 * math.sqrt(cut * (1 - cut) / N))


def test_cuts_are_spread_over_their_whole_range() -> None:
    plan = KeyedFaults(cut_fraction=1.0, cut_after_tokens=(3, 6))
    cuts = [fault.after_tokens for i in range(N) if (fault := plan.attempt_fault("r0", f"q{i}", 0))]
    assert {k: pytest.approx(N / 4, rel=0.15) for k in (3, 4, 5, 6)} == {k: cuts.count(k) for k in set(cuts)}


def test_another_attempt_and_another_replica_are_another_draw() -> None:
    plan = KeyedFaults(error_fraction=0.5)
    ids = [f"q{i}" for i in range(N)]
    here, again, there = (
        [plan.attempt_fault(replica, i, attempt) is not None for i in ids]
        for replica, attempt in (("r0", 0), ("r0", 1), ("r1", 0))
    )
    for other in (again, there):
        agree = sum(a == b for a, b in zip(here, other, strict=True)) / N
        assert agree == pytest.approx(0.5, abs=0.04)


def test_only_the_named_replicas_fail() -> None:
    plan = KeyedFaults(error_fraction=1.0, only_replicas=frozenset({"bad"}))
    assert plan.attempt_fault("bad", "q", 0) == AttemptFault(0, 503)
    assert plan.attempt_fault("good", "q", 0) is None


def test_poison_fails_everywhere_and_comes_before_the_attempts_own_fault() -> None:
    plan = KeyedFaults(poison_ids=frozenset({"bad"}), error_fraction=1.0)
    for replica in ("r0", "r1"):
        for attempt in range(3):
            fault = fault_of(plan, replica, "bad", attempt)
            assert fault is not None
            assert isinstance(fault.error(), InternalError)
    innocent = fault_of(plan, "r0", "good", 0)
    assert innocent is not None
    assert isinstance(innocent.error(), Overloaded)


def test_poison_sent_again_by_its_client_is_poison_still() -> None:
    plan = KeyedFaults(seed=2, poison_fraction=0.5, poison_ids=frozenset({"named"}))
    assert plan.request_fault("named~3") is not None
    for i in range(50):
        assert plan.request_fault(f"q{i}") == plan.request_fault(f"q{i}~1")


def test_a_share_of_requests_can_be_poison() -> None:
    plan = KeyedFaults(seed=5, poison_fraction=0.2)
    share = sum(plan.request_fault(f"q{i}") is not None for i in range(N)) / N
    assert share == pytest.approx(0.2, abs=0.03)


def test_an_injected_error_says_that_it_was_injected() -> None:
    cut = AttemptFault(7).error()
    assert isinstance(cut, UpstreamError)
    assert cut.code == "injected_fault"
    assert "after 7 tokens" in cut.message


@given(st.permutations([ReplicaEvent(t, r, k) for t in (5.0, 1.0) for r in ("b", "a") for k in ReplicaFault]))
def test_events_come_in_order_however_they_were_listed(events: list[ReplicaEvent]) -> None:
    ordered = KeyedFaults(events=tuple(events)).replica_events()
    assert [event.at_s for event in ordered] == [1.0] * 8 + [5.0] * 8
    assert ordered == KeyedFaults(events=tuple(reversed(events))).replica_events()


def test_an_event_without_duration_never_ends() -> None:
    assert ReplicaEvent(3.0, "r0", ReplicaFault.HANG).until_s == math.inf
    assert ReplicaEvent(3.0, "r0", ReplicaFault.SLOW, 2.0, 4.0).until_s == 5.0


def test_no_faults_is_a_plan_too() -> None:
    plan: FaultPlan = NoFaults()
    assert fault_of(plan, "r0", "q", 0) is None
    assert plan.replica_events() == ()
