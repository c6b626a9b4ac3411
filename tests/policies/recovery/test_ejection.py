"""Outlier ejection: Envoy's series and thresholds, and a request that is blamed before any replica."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    Overloaded,
    RateLimited,
    SetupError,
    Unreachable,
    UpstreamError,
)
from miniserve.policies.recovery.ejection import Ejector, is_success, is_suspicious
from miniserve.types import AttemptResult, FinishReason, ReplicaView

BROKEN = InternalError("it broke")
UNREACHABLE = Unreachable("no connection")


def good(replica_id: str) -> AttemptResult:
    return AttemptResult(replica_id, FinishReason.STOP, (1,))


def bad(replica_id: str, error: Exception = BROKEN) -> AttemptResult:
    return AttemptResult(replica_id, error=error)


def views(count: int) -> tuple[ReplicaView, ...]:
    return tuple(ReplicaView(f"r{n:03d}") for n in range(count))


def eject(ejector: Ejector, replica_id: str, now_s: float) -> None:
    """Refuse as many connections as it takes."""
    for _ in range(5):
        ejector.record("any", bad(replica_id, UNREACHABLE), now_s)


def failed_there_served_here(ejector: Ejector, guilty: str, witness: str, requests: int, now_s: float = 0.0) -> None:
    for n in range(requests):
        ejector.record(f"{now_s}-{n}", bad(guilty), now_s)
        ejector.record(f"{now_s}-{n}", good(witness), now_s)


# --- blame ---------------------------------------------------------------------------------------------------------


def test_a_failure_counts_once_the_request_succeeded_elsewhere() -> None:
    ejector = Ejector()
    failed_there_served_here(ejector, "a", "b", 4)
    assert not ejector.ejected(0.0)
    assert ejector.record("last", bad("a"), 0.0) == ()
    assert not ejector.ejected(0.0), "the fifth failure has no witness yet"
    assert ejector.record("last", good("b"), 0.0) == ("a",)
    assert ejector.ejected(0.0) == {"a"}


def test_a_hundred_poison_requests_eject_nobody() -> None:
    """They fail wherever they go; four hundred innocent ones succeed between them. Alone and shuffled, any order."""
    for seed in range(20):
        rng, ejector = Random(seed), Ejector()
        requests = [(f"poison-{n}", True) for n in range(100)] + [(f"good-{n}", False) for n in range(400)]
        if seed:
            rng.shuffle(requests)
        for now_s, (request_id, poison) in enumerate(requests):
            for replica_id in rng.sample(["a", "b"], 2 if poison else 1):
                result = bad(replica_id) if poison else good(replica_id)
                assert ejector.record(request_id, result, float(now_s)) == ()
            assert ejector.admitted(views(2), float(now_s)) == views(2)


def test_a_failure_after_the_witness_counts_at_once() -> None:
    ejector = Ejector()
    ejector.record("q", bad("a"), 0.0)
    ejector.record("q", good("b"), 0.0)
    assert ejector.record("q", bad("a"), 0.0) == ("a",)
    assert ejector.record("q", bad("b"), 0.0) == (), "nobody is a witness against itself"


def test_a_failure_counts_once_however_often_the_request_succeeds_later() -> None:
    ejector = Ejector()
    ejector.record("q", bad("a"), 0.0)
    assert ejector.record("q", good("b"), 0.0) == ("a",)
    assert ejector.record("q", good("c"), 0.0) == ()


def test_a_success_ends_the_row() -> None:
    ejector = Ejector()
    failed_there_served_here(ejector, "a", "b", 4)
    ejector.record("fine", good("a"), 0.0)
    failed_there_served_here(ejector, "a", "b", 4, 1.0)
    assert not ejector.ejected(1.0)


def test_a_replica_that_cannot_be_reached_needs_no_witness() -> None:
    ejector = Ejector()
    for n in range(5):
        assert not ejector.ejected(0.0)
        assert ejector.record(f"q{n}", bad("a", UNREACHABLE), 0.0) == ("a",)
    assert ejector.ejected(0.0) == {"a"}


def test_missed_probes_eject_and_one_that_passes_brings_back() -> None:
    ejector = Ejector()
    for _ in range(5):
        ejector.probe("a", False, 0.0)
    assert ejector.ejected(1.0) == {"a"}
    ejector.probe("a", True, 1.0)
    assert not ejector.ejected(1.0)


def test_probes_that_pass_now_and_then_keep_it_in() -> None:
    ejector = Ejector()
    for n in range(20):
        ejector.probe("a", n % 5 == 4, float(n))
        assert not ejector.ejected(float(n))


def test_a_passing_probe_does_not_excuse_failing_requests() -> None:
    """An engine can be stuck behind a healthy web server."""
    ejector = Ejector()
    failed_there_served_here(ejector, "a", "b", 5)
    ejector.probe("a", True, 1.0)
    assert ejector.ejected(1.0) == {"a"}


@pytest.mark.parametrize("error", [Overloaded("full"), RateLimited("later"), InvalidRequest("no")])
def test_a_refusal_is_no_failure(error: Exception) -> None:
    ejector = Ejector()
    for n in range(50):
        ejector.record(f"q{n}", bad("a", error), 0.0)
        ejector.record(f"q{n}", good("b"), 0.0)
    assert not ejector.ejected(0.0)


@pytest.mark.parametrize(
    ("result", "suspicious", "success"),
    [
        (good("a"), False, True),
        (AttemptResult("a", FinishReason.LENGTH), False, True),
        (AttemptResult("a", FinishReason.ERROR), True, False),
        (AttemptResult("a", FinishReason.ABORT), False, False),
        (AttemptResult("a"), False, False),  # the aborted loser of a hedge
        (bad("a", UpstreamError("cut")), True, False),
        (bad("a", DeadlineExceeded("late")), True, False),
        (bad("a", RuntimeError("not ours")), True, False),
        (bad("a", Overloaded("full")), False, False),
    ],
)
def test_what_an_ending_says(result: AttemptResult, suspicious: bool, success: bool) -> None:
    assert (is_suspicious(result), is_success(result)) == (suspicious, success)


def test_only_an_unreachable_host_is_blamed_alone() -> None:
    def blamed_at_once(error: Exception | None) -> bool:
        return Ejector(failures=1).record("q", AttemptResult("a", error=error), 0.0) == ("a",)

    assert blamed_at_once(UNREACHABLE)
    assert not blamed_at_once(UpstreamError("cut in the middle"))
    assert not blamed_at_once(InternalError("x", code="unreachable"))
    assert not blamed_at_once(None)


def test_the_losers_of_a_hedge_are_judged_by_its_winner() -> None:
    ejector = Ejector(failures=1)
    hedge = AttemptResult("b", FinishReason.STOP, (1,), losers=(bad("a"), AttemptResult("c")))
    assert ejector.record("q", hedge, 0.0) == ("a",), "the failed one, not the slow one"


# --- for how long --------------------------------------------------------------------------------------------------


def test_each_ejection_in_a_row_lasts_longer_up_to_300_s() -> None:
    ejector, now_s, lengths = Ejector(), 0.0, []
    for _ in range(12):
        eject(ejector, "r000", now_s)
        length_s = next(s for s in range(30, 400, 30) if not ejector.ejected(now_s + s))
        assert ejector.ejected(now_s + length_s - 0.1) == {"r000"}
        lengths.append(length_s)
        now_s += length_s
    assert lengths == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]


@pytest.mark.parametrize(("healthy_s", "next_s"), [(0, 120), (9.9, 120), (10, 90), (20, 60), (30, 30), (500, 30)])
def test_each_healthy_interval_takes_one_step_off(healthy_s: float, next_s: float) -> None:
    """Three ejections (30, 60, 90 s), then some healthy time, then one more."""
    ejector, now_s = Ejector(), 0.0
    for length_s in (30, 60, 90):
        eject(ejector, "r000", now_s)
        now_s += length_s
    now_s += healthy_s
    eject(ejector, "r000", now_s)
    assert ejector.ejected(now_s + next_s - 0.1) == {"r000"}
    assert not ejector.ejected(now_s + next_s)


def test_the_longest_ejection_is_forgotten_like_the_others() -> None:
    """Fifteen in a row count as ten (300 s); nine healthy intervals later the next one is the second."""
    ejector, now_s = Ejector(), 0.0
    for n in range(15):
        eject(ejector, "r000", now_s)
        now_s += min(300.0, 30.0 * (n + 1))
    now_s += 90.0
    eject(ejector, "r000", now_s)
    assert not ejector.ejected(now_s + 60.0)
    assert ejector.ejected(now_s + 59.9)


def test_the_row_begins_anew_after_an_ejection() -> None:
    ejector = Ejector()
    eject(ejector, "a", 0.0)
    ejector.record("q", bad("a", UNREACHABLE), 10.0)  # nobody should send there, but if: it is out already
    for _ in range(4):
        ejector.record("q", bad("a", UNREACHABLE), 31.0)
    assert not ejector.ejected(31.0)


# --- how many ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ejected", "used"), [(49, 51), (50, 50), (51, 100), (100, 100)])
def test_below_half_healthy_all_are_used(ejected: int, used: int) -> None:
    ejector = Ejector()
    for view in views(100)[:ejected]:
        eject(ejector, view.replica_id, 0.0)
    assert len(ejector.admitted(views(100), 1.0)) == used


@pytest.mark.parametrize(("fleet", "fraction", "left_out"), [(10, 0.1, 1), (100, 0.1, 10), (5, 0.1, 1), (6, 0.34, 2)])
def test_only_so_many_are_left_out_but_one_always_may(fleet: int, fraction: float, left_out: int) -> None:
    ejector = Ejector(max_ejected_fraction=fraction, panic_fraction=0.0)
    ejector.probe("r000", False, 0.0)  # known first, ejected last
    for n, view in enumerate(reversed(views(fleet)[: fleet // 2])):
        eject(ejector, view.replica_id, float(n) / 1000)
    admitted = ejector.admitted(views(fleet), 1.0)
    ejected_first = views(fleet)[fleet // 2 - left_out : fleet // 2]
    assert set(views(fleet)) - set(admitted) == set(ejected_first)


def test_a_lone_replica_is_never_left_out() -> None:
    ejector = Ejector()
    eject(ejector, "r000", 0.0)
    assert ejector.admitted(views(1), 0.0) == views(1)


def test_memory_is_bounded() -> None:
    ejector = Ejector(max_cases=10)
    for n in range(1000):
        ejector.record(f"q{n}", bad(f"r{n}"), 0.0)
        ejector.probe(f"r{n}", False, 0.0)
    assert len(ejector._cases) == len(ejector._hosts) == 10
    assert ejector.record("q999", good("b"), 0.0) == ("r999",), "the latest are kept"
    assert ejector.record("q0", good("b"), 0.0) == ()


def test_a_replica_that_left_is_forgotten() -> None:
    ejector = Ejector()
    eject(ejector, "a", 0.0)
    ejector.forget("a")
    assert not ejector.ejected(0.0)


endings = st.tuples(
    st.integers(0, 5), st.integers(0, 3), st.sampled_from(["good", "bad", "unreachable"]), st.floats(0, 40)
)


@given(st.lists(endings, max_size=150))
def test_whatever_happens_somebody_is_left_and_nobody_is_blamed_without_proof(history: list) -> None:  # type: ignore[type-arg]
    """Two replicas or more: at least half stay in, and each blame follows a witness or an unreachable host."""
    ejector, now_s, fleet = Ejector(failures=2), 0.0, views(4)
    served: dict[str, set[str]] = {}
    for request, replica, ending, gap_s in history:
        now_s += gap_s
        replica_id, request_id = f"r{replica:03d}", f"q{request}"
        result = {"good": good(replica_id), "bad": bad(replica_id), "unreachable": bad(replica_id, UNREACHABLE)}[ending]
        if ending == "good":
            served.setdefault(request_id, set()).add(replica_id)
        for blamed in ejector.record(request_id, result, now_s):
            assert ending == "unreachable" or served.get(request_id, set()) - {blamed}
        admitted = ejector.admitted(fleet, now_s)
        assert len(admitted) >= 2
        assert set(admitted) <= set(fleet)


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"base_s": 0.0}, {"base_s": 400.0}, {"interval_s": 0.0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SetupError):
        Ejector(**wrong)  # type: ignore[arg-type]
