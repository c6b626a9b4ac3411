"""Forward progress: who is suspect, and how one comes back."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from miniserve.errors import DeadlineExceeded, NoFirstToken, RequestError, SetupError, UpstreamError
from miniserve.policies.bundle import Policies
from miniserve.policies.health import StallTick
from miniserve.policies.recovery.progress import ProgressWatch
from miniserve.policies.routing.balancer import LeastOutstanding
from miniserve.types import AttemptResult, FinishReason, FleetView, ReplicaView

FLEET = (ReplicaView("a"), ReplicaView("b"))
SILENT = NoFirstToken("no token in time")


def ended(replica_id: str, started_s: float, ended_s: float, error: Exception | None = None) -> AttemptResult:
    if error is not None:
        return AttemptResult(replica_id, error=error, started_s=started_s, ended_s=ended_s)
    return AttemptResult(
        replica_id, FinishReason.STOP, (1,), started_s=started_s, first_token_s=started_s, ended_s=ended_s
    )


def miss(watch: ProgressWatch, replica_id: str, now_s: float, error: Exception = SILENT) -> None:
    watch.sent(replica_id, now_s)
    watch.ended(ended(replica_id, now_s, now_s + 1, error), now_s + 1)


def test_work_without_tokens_is_suspect_after_a_while() -> None:
    watch = ProgressWatch(stall_s=5.0)
    watch.sent("a", 10.0)
    assert not watch.suspects(14.9)
    assert watch.suspects(15.0) == {"a"}
    assert watch.admitted(FLEET, 15.0) == FLEET[1:]


def test_any_token_of_any_request_is_progress() -> None:
    watch = ProgressWatch(stall_s=5.0)
    watch.sent("a", 0.0)
    watch.sent("a", 1.0)
    watch.progressed("a", 4.0)
    assert not watch.suspects(8.9)
    assert watch.suspects(9.0) == {"a"}
    watch.progressed("a", 9.5)
    assert not watch.suspects(9.5)


def test_sending_more_is_not_progress() -> None:
    """A hung replica that keeps getting work must be noticed all the same."""
    watch = ProgressWatch(stall_s=5.0)
    for now_s in range(6):
        watch.sent("a", float(now_s))
    assert watch.suspects(5.0) == {"a"}


def test_an_idle_replica_is_not_suspect() -> None:
    watch = ProgressWatch(stall_s=5.0)
    watch.sent("a", 0.0)
    watch.ended(ended("a", 0.0, 1.0), 1.0)
    assert not watch.suspects(100.0)
    watch.sent("a", 100.0)
    assert not watch.suspects(104.9), "the silence counts from when there was work again"


def test_misses_in_a_row_are_suspect_and_a_token_clears_them() -> None:
    watch = ProgressWatch(misses=2)
    miss(watch, "a", 0.0)
    assert not watch.suspects(1.0)
    miss(watch, "a", 1.0, DeadlineExceeded("late"))
    assert watch.suspects(2.0) == {"a"}
    watch.sent("a", 2.0)
    watch.ended(ended("a", 2.0, 3.0), 3.0)
    assert not watch.suspects(3.0)


def test_a_success_between_misses_begins_the_row_anew() -> None:
    watch = ProgressWatch(misses=2)
    for now_s in (0.0, 10.0, 20.0):
        miss(watch, "a", now_s)
        watch.sent("a", now_s + 5)
        watch.ended(ended("a", now_s + 5, now_s + 6), now_s + 6)
    assert not watch.suspects(30.0)


@pytest.mark.parametrize("error", [UpstreamError("refused"), RuntimeError("broke")])
def test_failing_is_not_hanging(error: Exception) -> None:
    watch = ProgressWatch(misses=1)
    miss(watch, "a", 0.0, error)
    assert not watch.suspects(1.0)


def test_probes_that_saw_steps_count_as_of_their_time() -> None:
    """A long prompt is computed step by step before its first token: that is progress too."""
    watch = ProgressWatch(stall_s=5.0)
    watch.sent("a", 0.0)
    watch.observe([ReplicaView("a", steps=20, as_of_s=4.0), ReplicaView("b")])
    assert not watch.suspects(8.0)
    watch.observe([ReplicaView("a", steps=20, as_of_s=9.0)])
    assert watch.suspects(9.0) == {"a"}
    watch.observe([ReplicaView("a", steps=3, as_of_s=9.5)])
    assert not watch.suspects(9.5), "it began anew"


def test_a_wait_goes_on_for_as_long_as_steps_do() -> None:
    """A queue that moves for minutes: the place in it is worth more than a new one elsewhere."""
    watch = ProgressWatch()
    watch.sent("a", 0.0)
    for minute in range(1, 11):
        now_s = 60.0 * minute
        watch.observe([ReplicaView("a", steps=minute, as_of_s=now_s - 0.5)])
        assert watch.wait_on_s("a", 0.0, 30.0, now_s) == 29.5
    assert watch.wait_on_s("a", 0.0, 30.0, 629.5) is None, "its steps have stood still for 30 s"


def test_a_wait_ends_when_those_who_came_much_later_are_served_before() -> None:
    watch = ProgressWatch()
    watch.sent("a", 0.0)
    for started_s in (10.0, 31.0):
        watch.sent("a", started_s)
        watch.observe([ReplicaView("a", steps=int(started_s), as_of_s=started_s)])
        watch.ended(ended("a", started_s, started_s + 1.0), started_s + 1.0)
        late = started_s > 30.0
        assert (watch.wait_on_s("a", 0.0, 30.0, started_s + 1.0) is None) == late, "its place does not move"


def test_a_wait_that_is_asked_about_at_its_end_moves_the_clock_on() -> None:
    """Rounding may leave next to nothing: a driver that waits for that would never get on."""
    watch = ProgressWatch()
    watch.sent("a", 0.1)
    until_s = 0.1 + 0.2
    assert watch.wait_on_s("a", 0.1, 0.2, until_s - 1e-16) in (None, 0.1)
    assert watch.wait_on_s("a", 0.1, 0.2, until_s) is None
    assert watch.wait_on_s("unknown", 0.1, 0.2, 0.2) is None


def test_deadlines_that_pass_in_a_moving_queue_make_no_suspect() -> None:
    watch = ProgressWatch(misses=2)
    for _ in range(10):
        watch.sent("a", 0.0)
    watch.observe([ReplicaView("a", steps=9, as_of_s=2.5)])
    for _ in range(10):
        watch.ended(ended("a", 0.0, 3.0, DeadlineExceeded("late")), 3.0)
    assert not watch.suspects(3.0)


def test_who_has_left_the_fleet_is_forgotten_once_nothing_is_out_there() -> None:
    watch = ProgressWatch(stall_s=5.0, misses=1)
    miss(watch, "gone", 0.0)
    watch.sent("leaving", 0.0)
    watch.observe(FLEET)
    assert watch.suspects(9.0) == {"leaving"}


def test_news_that_come_late_take_nothing_back() -> None:
    watch = ProgressWatch(stall_s=5.0, misses=1)
    watch.sent("a", 10.0)
    watch.progressed("a", 12.0)
    watch.progressed("a", 3.0)
    assert not watch.suspects(16.0)


def test_if_all_are_suspect_all_are_used() -> None:
    watch = ProgressWatch(stall_s=1.0)
    watch.sent("a", 0.0)
    watch.sent("b", 0.0)
    assert watch.admitted(FLEET, 5.0) == FLEET


def test_a_suspect_gets_one_trial_at_a_time() -> None:
    watch = ProgressWatch(misses=1, trial_interval_s=5.0)
    miss(watch, "a", 0.0)
    assert watch.trial(FLEET, 1.0) == "a"
    watch.sent("a", 1.0)
    assert watch.trial(FLEET, 2.0) is None
    assert watch.trial(FLEET, 60.0) is None, "the first one is still out"
    watch.ended(ended("a", 1.0, 61.0, SILENT), 61.0)
    assert watch.trial(FLEET, 61.0) == "a"
    watch.sent("a", 61.0)
    watch.ended(ended("a", 61.0, 62.0, SILENT), 62.0)
    assert watch.trial(FLEET, 62.0) is None, "not so soon"
    assert watch.trial(FLEET, 66.0) == "a"


def test_the_end_of_an_older_attempt_does_not_end_the_trial() -> None:
    watch = ProgressWatch(stall_s=1.0, trial_interval_s=0.0)
    watch.sent("a", 0.0)
    assert watch.trial(FLEET, 5.0) == "a"
    watch.sent("a", 5.0)
    watch.ended(ended("a", 0.0, 6.0, SILENT), 6.0)
    assert watch.trial(FLEET, 7.0) is None


def test_a_trial_that_brings_a_token_brings_it_back() -> None:
    watch = ProgressWatch(misses=1)
    miss(watch, "a", 0.0)
    assert watch.trial(FLEET, 1.0) == "a"
    watch.sent("a", 1.0)
    watch.progressed("a", 1.5)
    assert watch.admitted(FLEET, 1.5) == FLEET


def test_only_replicas_that_may_be_used_get_trials() -> None:
    watch = ProgressWatch(misses=1)
    miss(watch, "a", 0.0)
    assert watch.trial(FLEET[1:], 1.0) is None
    watch.forget("a")
    assert not watch.suspects(1.0)


@pytest.mark.parametrize("wrong", [{"stall_s": 0.0}, {"misses": 0}, {"trial_interval_s": -1.0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SetupError):
        ProgressWatch(**wrong)  # type: ignore[arg-type]


# --- moving away ---------------------------------------------------------------------------------------------------


def test_a_replica_with_work_is_silent_once_nothing_has_come_for_four_fifths_of_the_stall() -> None:
    watch = ProgressWatch(stall_s=5.0)
    watch.sent("a", 0.0)
    both = (ReplicaView("a"), ReplicaView("b"))
    assert watch.silent_s(both, 3.9) == {}
    assert watch.silent_s(both, 4.0) == {"a": 4.0}
    watch.observe([ReplicaView("a", steps=1, as_of_s=3.5), ReplicaView("b")])
    assert watch.silent_s(both, 7.4) == {}


def test_who_has_no_work_is_not_silent_and_where_all_are_silent_nobody_moves() -> None:
    watch = ProgressWatch(move_s=2.0)
    watch.sent("a", 0.0)
    assert watch.silent_s((ReplicaView("a"),), 9.0) == {}, "there is nowhere to go"
    watch.sent("b", 0.0)
    assert watch.silent_s((ReplicaView("a"), ReplicaView("b")), 9.0) == {}, "the trouble is probably ours"
    assert watch.silent_s((ReplicaView("a"), ReplicaView("b"), ReplicaView("c")), 9.0) == {"a": 9.0, "b": 9.0}


@dataclass(eq=False)
class Waiting:
    replica_id: str
    started_s: float
    error: RequestError | None = None

    def cut_off(self, error: RequestError) -> None:
        self.error = error


def test_the_stall_tick_cuts_off_who_has_waited_long_enough_on_a_replica_that_hangs() -> None:
    policies = Policies(LeastOutstanding())
    assert policies.progress is not None
    policies.progress.sent("a", 0.0)
    old, young, elsewhere = running = [Waiting("a", 0.0), Waiting("a", 2.0), Waiting("b", 0.0)]
    tick, view = StallTick(policies, running), FleetView((ReplicaView("a"), ReplicaView("b")))
    for now_s in (3.0, 3.5, 4.0):
        assert old.error is None
        tick(now_s, view)
    assert isinstance(old.error, UpstreamError)
    assert (young.error, elsewhere.error) == (None, None)


def test_after_an_absence_of_its_own_the_stall_tick_waits_for_news() -> None:
    policies = Policies(LeastOutstanding())
    assert policies.progress is not None
    policies.progress.sent("a", 0.0)
    waiting = Waiting("a", 0.0)
    tick, view = StallTick(policies, [waiting]), FleetView((ReplicaView("a"), ReplicaView("b")))
    tick(0.5, view)
    tick(60.0, view)
    assert waiting.error is None, "what came meanwhile has still to be read"
    tick(60.5, view)
    assert waiting.error is not None


def test_without_resuming_nobody_is_moved() -> None:
    policies = Policies(LeastOutstanding(), resume=False)
    assert policies.progress is not None
    policies.progress.sent("a", 0.0)
    waiting = Waiting("a", 0.0)
    StallTick(policies, [waiting])(9.0, FleetView((ReplicaView("a"), ReplicaView("b"))))
    assert waiting.error is None
