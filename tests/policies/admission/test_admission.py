"""Admission: who is shed first, what cannot be in time, and guards in a row."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import DeadlineExceeded, Overloaded, RateLimited, SetupError
from miniserve.policies.admission.admission import (
    Admit,
    AdmitAll,
    AllOf,
    DeadlineCheck,
    PriorityShedding,
    Reject,
    ServiceTime,
    saturation,
)
from miniserve.policies.admission.concurrency import ConcurrencyLimit, FixedLimit
from miniserve.policies.admission.quota import QuotaAdmission, QuotaLimits
from miniserve.types import FleetView, Priority, ReplicaState, ReplicaView, Request, SamplingParams

REQUEST = Request(request_id="q", model="m", prompt_ids=range(100), sampling=SamplingParams(max_tokens=50))
IDLE = FleetView((ReplicaView("a"),))


def fleet(*queues: int, kv: float = 0.0, running: int = 4) -> FleetView:
    return FleetView(
        tuple(
            ReplicaView(f"r{n}", queue_depth=depth, kv_used_fraction=kv, running=running)
            for n, depth in enumerate(queues)
        )
    )


# --- shedding ------------------------------------------------------------------------------------------------------


def test_saturation_is_the_mean_of_how_full_replicas_are() -> None:
    assert saturation(fleet(0, 5, 10)) == 1.0
    assert saturation(fleet(0, kv=0.4)) == 0.5
    assert saturation(fleet(5, kv=0.4)) == 1.0, "the fuller of queue and memory"
    assert saturation(FleetView((ReplicaView("a", ReplicaState.DOWN),))) == math.inf


@pytest.mark.parametrize(("depth", "admitted"), [(0, 3), (4, 3), (5, 2), (9, 2), (10, 1), (99, 1)])
def test_the_lower_classes_go_first(depth: int, admitted: int) -> None:
    guard = PriorityShedding()
    verdicts = [guard.decide(replace(REQUEST, priority=priority), fleet(depth), 0.0) for priority in Priority]
    assert [isinstance(verdict, Admit) for verdict in verdicts] == [n < admitted for n in range(3)]


@given(
    st.lists(st.tuples(st.integers(0, 20), st.floats(0, 1)), max_size=4),
    st.lists(st.floats(0, 4), min_size=3, max_size=3),
)
def test_a_higher_class_is_never_shed_before_a_lower(replicas: list[tuple[int, float]], at: list[float]) -> None:
    guard = PriorityShedding(at=tuple(sorted(at, reverse=True)))  # type: ignore[arg-type]
    view = FleetView(
        tuple(ReplicaView(f"r{n}", queue_depth=q, kv_used_fraction=kv) for n, (q, kv) in enumerate(replicas))
    )
    shed = [isinstance(guard.decide(replace(REQUEST, priority=p), view, 0.0), Reject) for p in Priority]
    assert shed == sorted(shed), "once a class is shed, so are all below"


def test_the_refusal_says_what_to_do() -> None:
    verdict = PriorityShedding().decide(replace(REQUEST, priority=Priority.BATCH), fleet(20), 0.0)
    assert verdict == Reject(503, "shed", "batch requests are refused at load 1 (it is 4.00); try again in 1 s", 1.0)


def test_thresholds_that_rise_are_refused() -> None:
    with pytest.raises(SetupError, match="never rise"):
        PriorityShedding(at=(1.0, 2.0, 3.0))


# --- deadlines -----------------------------------------------------------------------------------------------------

TIMES = ServiceTime(prefill_s_per_token=0.01, decode_s_per_token=0.02)  # REQUEST: 1 s + 1 s


@pytest.mark.parametrize(
    ("deadline_s", "queue", "verdict"),
    [
        (None, 99, None),
        (12.0, 0, None),
        (11.9, 0, 504),  # not even alone
        (13.0, 2, None),  # 2 before it, 4 running: 1 s of waiting
        (12.9, 2, 503),
        (15.0, 99, 503),
    ],
)
def test_only_what_can_be_in_time_comes_in(deadline_s: float | None, queue: int, verdict: int | None) -> None:
    request = replace(REQUEST, deadline_s=deadline_s)
    decided = DeadlineCheck(estimate=TIMES).decide(request, fleet(queue, queue + 9), 10.0)
    assert (decided.status if isinstance(decided, Reject) else None) == verdict


def test_the_shortest_queue_counts_and_the_excess_is_the_time_to_wait() -> None:
    request = replace(REQUEST, deadline_s=12.5)
    decided = DeadlineCheck(estimate=TIMES).decide(request, fleet(8, 2), 10.0)
    assert isinstance(decided, Reject)
    assert decided.retry_after_s == pytest.approx(0.5)


def test_without_a_ready_replica_the_queue_is_not_the_problem() -> None:
    assert isinstance(DeadlineCheck(estimate=TIMES).decide(replace(REQUEST, deadline_s=9.0), FleetView(), 0.0), Admit)


# --- together ------------------------------------------------------------------------------------------------------


def test_a_later_refusal_gives_back_what_earlier_guards_held() -> None:
    slots = ConcurrencyLimit(limit=FixedLimit(limit=1))
    quota = QuotaAdmission(default=QuotaLimits(requests_per_min=1, tokens_per_min=150, budget_tokens=150, concurrent=1))
    guard = AllOf(quota, slots, PriorityShedding())
    for n in range(5):
        refused = guard.decide(replace(REQUEST, request_id=f"b{n}", priority=Priority.BATCH), fleet(20), 0.0)
        assert isinstance(refused, Reject)
        assert refused.code == "shed"
    urgent = replace(REQUEST, priority=Priority.INTERACTIVE)
    assert isinstance(guard.decide(urgent, fleet(20), 0.0), Admit), "nothing was used up"
    guard.finished(urgent, 120, 1.0)
    assert quota.quota("").spent_tokens == 120
    assert isinstance(guard.decide(replace(REQUEST, request_id="q2"), fleet(0), 1.0), Reject), "now it is"


def test_a_guard_that_was_not_asked_is_not_told() -> None:
    class Refuses(AdmitAll):
        def decide(self, request: Request, view: FleetView, now_s: float) -> Reject:
            return Reject(429, "no", "no")

    class Counts(AdmitAll):
        calls = 0

        def finished(self, request: Request, tokens: int | None, now_s: float) -> None:
            self.calls += 1

    before, after = Counts(), Counts()
    AllOf(before, Refuses(), after).decide(REQUEST, IDLE, 0.0)
    assert (before.calls, after.calls) == (1, 0)


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (503, Overloaded), (504, DeadlineExceeded)])
def test_a_refusal_becomes_the_clients_error(status: int, kind: type) -> None:
    error = Reject(status, "code", "why", 2.0).error()
    assert (type(error), error.status, error.message, error.code, error.retry_after_s) == (
        kind,
        status,
        "why",
        "code",
        2.0,
    )
