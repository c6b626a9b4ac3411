"""The circuit breaker: its three states, its generations, and a state machine that tries everything."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from miniserve.errors import SetupError
from miniserve.policies.recovery.breaker import Breaker, BreakerState, Permit

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def call(breaker: Breaker, ok: bool | None, now_s: float = 0.0) -> None:
    permit = breaker.enter(now_s)
    assert permit is not None
    breaker.record(permit, ok, now_s)


def opened(at_s: float = 0.0, **settings: float) -> Breaker:
    breaker = Breaker(window=4, minimum_calls=2, open_s=5.0, **settings)  # type: ignore[arg-type]
    call(breaker, False, at_s)
    call(breaker, False, at_s)
    assert breaker.state(at_s) is OPEN
    return breaker


def test_it_opens_at_the_ratio_once_there_are_enough_calls() -> None:
    breaker = Breaker(failure_ratio=0.5, window=10, minimum_calls=4)
    for ok in (False, False, True):
        call(breaker, ok)
        assert breaker.state(0.0) is CLOSED, "two of three, but three are not enough"
    call(breaker, True)
    assert breaker.state(0.0) is OPEN, "two of four"
    assert breaker.enter(0.0) is None


def test_only_the_last_calls_count() -> None:
    breaker = Breaker(failure_ratio=0.5, window=4, minimum_calls=4)
    for ok in (False, True, True, True, False, True):
        call(breaker, ok)
    assert breaker.state(0.0) is CLOSED
    call(breaker, False)
    assert breaker.state(0.0) is OPEN, "F T F of the last four and one more"


def test_after_a_while_a_few_may_try() -> None:
    breaker = opened(trials=2)
    assert not breaker.allows(4.99)
    assert breaker.state(5.0) is HALF_OPEN
    assert [breaker.enter(5.0) is not None for _ in range(3)] == [True, True, False]


def test_trials_that_succeed_close_it() -> None:
    breaker = opened(trials=2)
    call(breaker, True, 5.0)
    assert breaker.state(5.0) is HALF_OPEN
    call(breaker, True, 5.0)
    assert breaker.state(5.0) is CLOSED


def test_one_failed_trial_opens_it_for_twice_as_long_and_success_forgets_that() -> None:
    breaker = opened(trials=1, growth=2.0)
    call(breaker, False, 5.0)
    assert not breaker.allows(5.0 + 9.99)
    call(breaker, True, 15.0)
    call(breaker, False, 15.0)
    call(breaker, False, 15.0)
    assert not breaker.allows(19.99)
    assert breaker.allows(20.0)


def test_the_wait_has_a_bound() -> None:
    breaker, now_s = opened(trials=1, growth=10.0, max_open_s=60.0), 0.0
    for _ in range(5):
        now_s += 60.0
        call(breaker, False, now_s)
    assert not breaker.allows(now_s + 59.0)
    assert breaker.allows(now_s + 60.0)


def test_a_late_result_of_an_older_generation_says_nothing() -> None:
    """Sent while closed, it comes back when the circuit is half-open: neither opens nor closes it."""
    breaker = Breaker(window=4, minimum_calls=2, open_s=5.0, trials=1)
    late = [breaker.enter(0.0) for _ in range(2)]
    call(breaker, False)
    call(breaker, False)
    trial = breaker.enter(5.0)
    assert trial is not None
    for permit, ok in zip(late, (False, True), strict=True):
        assert permit is not None
        breaker.record(permit, ok, 5.0)
        assert breaker.state(5.0) is HALF_OPEN
    assert breaker.enter(5.0) is None, "the late ones did not free the trial's place"
    breaker.record(trial, True, 5.0)
    assert breaker.state(5.0) is CLOSED


def test_cancelled_calls_count_neither_way() -> None:
    breaker = Breaker(window=4, minimum_calls=2, trials=1, open_s=5.0)
    for _ in range(10):
        call(breaker, None)
    call(breaker, False)
    assert breaker.state(0.0) is CLOSED
    call(breaker, False)
    call(breaker, None, 5.0)
    assert breaker.state(5.0) is HALF_OPEN
    assert breaker.allows(5.0), "a cancelled trial gives its place back"


@pytest.mark.parametrize(
    "wrong",
    [
        {"failure_ratio": 0.0},
        {"failure_ratio": 1.1},
        {"minimum_calls": 0},
        {"minimum_calls": 30, "window": 20},
        {"trials": 0},
        {"open_s": 0.0},
        {"open_s": 9.0, "max_open_s": 8.0},
        {"growth": 0.5},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SetupError):
        Breaker(**wrong)  # type: ignore[arg-type]


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin, end, and time passes in any order. The model keeps the calls; the breaker must fit them."""

    running = Bundle("running")

    @initialize(
        ratio=st.sampled_from([0.3, 0.5, 1.0]),
        minimum=st.integers(1, 4),
        extra=st.integers(0, 3),
        trials=st.integers(1, 3),
    )
    def begin(self, ratio: float, minimum: int, extra: int, trials: int) -> None:
        self.ratio, self.minimum, self.window, self.trials = ratio, minimum, minimum + extra, trials
        self.breaker = Breaker(
            failure_ratio=ratio, window=self.window, minimum_calls=minimum, open_s=5.0, trials=trials, max_open_s=20.0
        )
        self.now_s = 0.0
        self.results: list[bool] = []  # of this generation
        self.trials_running = 0
        self.trials_succeeded = 0
        self.reopens_s = 0.0  # when the opening ends
        self.wait_s = 5.0  # of the next opening
        self.seen = CLOSED
        self.generation = 0

    def look(self) -> BreakerState:
        """Read the state; on a change begin a new generation in the model too."""
        state = self.breaker.state(self.now_s)
        if state is not self.seen:
            self.seen = state
            self.generation += 1
            self.results, self.trials_running, self.trials_succeeded = [], 0, 0
        return state

    @rule(seconds=st.floats(0.01, 8.0))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        before = self.seen
        if before is OPEN and self.now_s < self.reopens_s:
            assert self.look() is OPEN, "nothing ends an opening early"
        elif before is not OPEN:
            assert self.look() is before, "time alone only ends an opening"
        self.look()

    @rule(target=running)
    def enter(self) -> tuple[Permit, int] | None:
        state = self.look()
        allowed, permit = self.breaker.allows(self.now_s), self.breaker.enter(self.now_s)
        assert allowed == (permit is not None)
        assert permit is None or state is not OPEN
        assert permit is not None or state is not CLOSED
        if permit is None:
            return None
        self.trials_running += state is HALF_OPEN
        assert self.trials_running <= self.trials
        return permit, self.generation

    @rule(held=consumes(running), ok=st.sampled_from([True, False, None]))
    def end(self, held: tuple[Permit, int] | None, ok: bool | None) -> None:
        if held is None:
            return
        before = self.look()
        permit, generation = held
        self.breaker.record(permit, ok, self.now_s)
        after = self.breaker.state(self.now_s)
        if generation != self.generation or (ok is None and before is CLOSED):
            assert after is before, "late and cancelled calls change nothing"
        elif before is CLOSED:
            assert ok is not None
            self.results.append(ok)
            last = self.results[-self.window :]
            full = len(last) >= self.minimum and last.count(False) >= self.ratio * len(last)
            assert after is (OPEN if full else CLOSED)
        else:
            self.trials_running -= 1
            self.trials_succeeded += ok is True
            expected = OPEN if ok is False else CLOSED if self.trials_succeeded == self.trials else HALF_OPEN
            assert after is expected
        if after is OPEN and before is not OPEN:
            self.reopens_s = self.now_s + self.wait_s
            self.wait_s = min(20.0, 2 * self.wait_s)
        elif after is CLOSED:
            self.wait_s = 5.0
        self.look()

    @invariant()
    def an_opening_ends_in_its_time(self) -> None:
        if getattr(self, "seen", None) is OPEN:
            assert (self.breaker.state(self.now_s) is OPEN) == (self.now_s < self.reopens_s)


TestBreakerMachine = BreakerMachine.TestCase
