"""What every retry policy and every retry budget promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import InternalError, InvalidRequest, Overloaded, RateLimited, UpstreamError
from miniserve.policies.recovery.retry import RETRIES, Backoff, RetryPolicy
from miniserve.policies.recovery.retry_budget import BUDGETS
from miniserve.policies.recovery.waits import JITTERS

MAKE = {
    **RETRIES,
    **{f"backoff {name}": lambda jitter=jitter: Backoff(jitter=jitter) for name, jitter in JITTERS.items()},
}
every_policy = pytest.mark.parametrize("name", sorted(MAKE))
every_budget = pytest.mark.parametrize("name", sorted(BUDGETS))

errors = st.sampled_from([UpstreamError("x"), InvalidRequest("x"), InternalError("x"), RuntimeError("x")]) | st.builds(
    lambda kind, after_s: kind("x", None, None, after_s),
    st.sampled_from([Overloaded, RateLimited]),
    st.none() | st.floats(-10, 1000),
)
questions = st.lists(st.tuples(st.integers(1, 50), errors, st.floats(0, 1e6), st.none() | st.floats(0, 1e6)))


def make(name: str) -> RetryPolicy:
    return MAKE[name]()


@every_policy
@given(asked=questions)
def test_a_wait_is_a_time_and_the_same_history_gives_the_same(
    name: str, asked: list[tuple[int, Exception, float, float | None]]
) -> None:
    one, other = make(name), make(name)
    for question in asked:
        wait_s = one.delay_s(*question)
        assert wait_s is None or 0 <= wait_s < float("inf")
        assert other.delay_s(*question) == wait_s


@every_policy
def test_it_gives_up_some_time(name: str) -> None:
    policy = make(name)
    assert all(policy.delay_s(attempt, UpstreamError("x"), 0.0, None) is None for attempt in range(10, 20))


@pytest.mark.parametrize("name", sorted(MAKE.keys() - {"naive"}))  # which is not careful; that is its point
@given(asked=questions)
def test_the_careful_ones_never_wait_past_the_deadline(
    name: str, asked: list[tuple[int, Exception, float, float | None]]
) -> None:
    policy = make(name)
    for attempt, error, now_s, deadline_s in asked:
        wait_s = policy.delay_s(attempt, error, now_s, deadline_s)
        if wait_s is not None:
            assert deadline_s is None or now_s + wait_s < deadline_s
            assert isinstance(error, UpstreamError | Overloaded | RateLimited)
            assert error.retry_after_s in (None, wait_s), "a push-back is obeyed to the second"


@every_budget
@given(history=st.lists(st.tuples(st.sampled_from(["deposit", "withdraw", "good", "bad"]), st.floats(0, 5))))
def test_budgets_take_any_history_and_repeat_themselves(name: str, history: list[tuple[str, float]]) -> None:
    one, other, now_s = BUDGETS[name](), BUDGETS[name](), 0.0
    for what, gap_s in history:
        now_s += gap_s
        match what:
            case "deposit":
                one.deposit(now_s), other.deposit(now_s)
            case "withdraw":
                assert one.withdraw(now_s) is other.withdraw(now_s)
            case _:
                one.record(what == "good", now_s), other.record(what == "good", now_s)


@every_budget
def test_now_and_then_a_retry_is_always_possible(name: str) -> None:
    """One request in fifty fails once: no budget stands in the way."""
    budget = BUDGETS[name]()
    for n in range(1000):
        budget.deposit(n / 10)
        if n % 50 == 0:
            budget.record(False, n / 10)
            assert budget.withdraw(n / 10)
        budget.record(True, n / 10)


@pytest.mark.parametrize("name", sorted(BUDGETS.keys() - {"unlimited"}))  # which multiplies; that is its point
def test_an_outage_is_not_multiplied(name: str) -> None:
    """Everything fails for a minute at 100/s: at most a fifth and ten per second more attempts, in the long run."""
    budget, retries = BUDGETS[name](), 0
    for n in range(6000):
        budget.deposit(n / 100)
        budget.record(False, n / 100)
        if budget.withdraw(n / 100):
            retries += 1
            budget.record(False, n / 100)
    assert retries <= 60 * (20 + 10) + 100
