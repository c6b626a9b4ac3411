"""What every admission promises: an answer, a client's error, and nothing kept of what has ended."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.policies.admission.admission import (
    Admission,
    Admit,
    AdmitAll,
    AllOf,
    DeadlineCheck,
    PriorityShedding,
    Reject,
)
from miniserve.policies.admission.concurrency import ConcurrencyLimit, FixedLimit, Gradient2
from miniserve.policies.admission.quota import QuotaAdmission, QuotaLimits
from miniserve.types import FleetView, Priority, ReplicaState, ReplicaView, Request, SamplingParams

ADMISSIONS: dict[str, Callable[[], Admission]] = {
    "all": AdmitAll,
    "shedding": PriorityShedding,
    "deadline": DeadlineCheck,
    "fixed": lambda: ConcurrencyLimit(limit=FixedLimit(limit=3)),
    "gradient": lambda: ConcurrencyLimit(limit=Gradient2(initial=3, lowest=2, samples=2)),
    "quota": lambda: QuotaAdmission(default=QuotaLimits(100, 1000, 3, 5000)),
    "together": lambda: AllOf(
        DeadlineCheck(), QuotaAdmission(default=QuotaLimits(concurrent=2)), ConcurrencyLimit(), PriorityShedding()
    ),
}
every_admission = pytest.mark.parametrize("name", sorted(ADMISSIONS))

replica = st.builds(
    ReplicaView,
    replica_id=st.sampled_from("abcd"),
    state=st.sampled_from(ReplicaState),
    queue_depth=st.integers(0, 50),
    running=st.integers(0, 20),
    kv_used_fraction=st.floats(0, 1),
)
views = st.lists(replica, max_size=4, unique_by=lambda view: view.replica_id).map(lambda r: FleetView(tuple(r)))
steps = st.lists(
    st.tuples(
        st.sampled_from(Priority),
        st.none() | st.floats(0, 20),  # deadline from now
        st.integers(0, 300),  # prompt
        st.integers(0, 300),  # output at most
        views,
        st.floats(0, 5),  # time until the next
        st.sampled_from(["runs", "finishes", "never starts", "oldest ends"]),
    ),
    max_size=30,
)


@every_admission
@given(history=steps)
def test_every_request_is_answered_and_what_ended_is_forgotten(name: str, history: list) -> None:  # type: ignore[type-arg]
    guard, now_s, inside = ADMISSIONS[name](), 0.0, []
    for n, (priority, within_s, prompt, output, view, gap_s, then) in enumerate(history):
        now_s += gap_s
        asked = Request(
            request_id=f"q{n}",
            model="m",
            prompt_ids=range(prompt),
            sampling=SamplingParams(max_tokens=output),
            deadline_s=None if within_s is None else now_s + within_s,
            tenant="t",
            priority=priority,
        )
        verdict = guard.decide(asked, view, now_s)
        match verdict:
            case Reject():
                error = verdict.error()
                assert error.status in (429, 503, 504)
                assert error.message
                assert error.code
                assert error.retry_after_s is None or 0 <= error.retry_after_s < math.inf
            case Admit():
                inside.append((asked, prompt + output // 2))
        if then == "finishes" and inside:
            guard.finished(*inside.pop(), now_s)
        elif then == "never starts" and inside:
            guard.finished(inside.pop()[0], None, now_s)
        elif then == "oldest ends" and inside:
            guard.finished(*inside.pop(0), now_s)
    while inside:
        guard.finished(*inside.pop(), now_s)
    for kept in ("_inside", "_reservations"):
        assert not getattr(guard, kept, 0)


@every_admission
def test_two_requests_of_one_tenant_are_two(name: str) -> None:
    guard, fleet = ADMISSIONS[name](), FleetView((ReplicaView("a"),))
    asked = [Request(request_id=f"q{n}", model="m", prompt_ids=range(20)) for n in range(2)]
    for request in asked:
        assert isinstance(guard.decide(request, fleet, 0.0), Admit)
    for request in asked:
        guard.finished(request, 30, 1.0)


@every_admission
def test_an_idle_fleet_takes_an_ordinary_request(name: str) -> None:
    asked = Request(request_id="q", model="m", prompt_ids=range(20), deadline_s=60.0)
    assert isinstance(ADMISSIONS[name]().decide(asked, FleetView((ReplicaView("a"),)), 0.0), Admit)
