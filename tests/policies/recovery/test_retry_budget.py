"""Retry budgets: the goldens of Finagle, gRPC and the SRE book, and what no history may exceed."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import SetupError
from miniserve.policies.recovery.retry_budget import ClientThrottle, RetryBudget, SlidingSum, TokenThrottle, Unlimited


def sustained(rps: int, seconds: int = 60) -> float:
    """Return retries/s when everything fails and everybody always wants to retry."""
    budget, granted = RetryBudget(), 0
    for tick in range(rps * seconds):
        now_s = tick / rps
        budget.deposit(now_s)
        while budget.withdraw(now_s):
            granted += now_s >= 20
    return granted / (seconds - 20)


@pytest.mark.parametrize("rps", [10, 100, 400])
def test_sustained_retries_are_a_fifth_and_ten_per_second(rps: int) -> None:
    bound = 0.2 * rps + 10
    assert 0.9 * bound <= sustained(rps) <= bound * 1.001


def test_without_traffic_there_is_the_floor() -> None:
    budget = RetryBudget()
    assert sum(budget.withdraw(0.0) for _ in range(200)) == 100
    assert not budget.withdraw(9.9)
    assert sum(budget.withdraw(11.0) for _ in range(200)) == 100, "what was taken is forgotten after the ttl"


def test_deposits_expire() -> None:
    budget = RetryBudget(floor_per_s=0)
    for _ in range(10):
        budget.deposit(0.0)
    assert budget.withdraw(9.0)
    assert not budget.withdraw(12.0)


def test_no_ratio_and_no_floor_is_no_retry() -> None:
    budget = RetryBudget(ratio=0, floor_per_s=0)
    budget.deposit(0.0)
    assert not budget.withdraw(0.0)


gaps = st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=300)


@given(gaps, st.floats(0, 2), st.floats(0, 3), st.floats(0.5, 5))
def test_withdrawals_never_exceed_what_requests_paid_for(
    history: list[tuple[float, bool]], ratio: float, floor: float, ttl_s: float
) -> None:
    budget = RetryBudget(ratio=ratio, floor_per_s=floor, ttl_s=ttl_s)
    now_s, deposits, withdrawals = 0.0, [], []
    for gap_s, wants_retry in history:
        now_s += gap_s
        if not wants_retry:
            budget.deposit(now_s)
            deposits.append(now_s)
        elif budget.withdraw(now_s):
            withdrawals.append(now_s)
            taken = sum(at > now_s - ttl_s for at in withdrawals)
            paid = sum(at >= now_s - 1.1 * ttl_s - 1e-9 for at in deposits)
            assert taken <= (ratio + 0.0005) * paid + floor * ttl_s + 0.0005


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(-5, 5)), max_size=100))
def test_a_sliding_sum_counts_the_window_and_at_most_a_tenth_more(history: list[tuple[float, int]]) -> None:
    window, now_s, added = SlidingSum(5.0), 0.0, []
    for gap_s, amount in history:
        now_s += gap_s
        window.add(amount, now_s)
        added.append((now_s, amount))
        possible = {
            sum(amount for at, amount in added if at >= since)
            for since in [now_s - 5.0, now_s - 5.5, *(at for at, _ in added if now_s - 5.5 - 1e-9 <= at <= now_s - 5.0)]
        }
        assert window.total(now_s) in possible


# --- gRPC ----------------------------------------------------------------------------------------------------------


def test_five_failures_in_a_row_stop_retries() -> None:
    throttle, allowed = TokenThrottle(), []
    for _ in range(6):
        allowed.append(throttle.withdraw(0.0))
        throttle.record(False, 0.0)
    assert allowed == [True] * 5 + [False]


def test_from_zero_it_takes_51_successes() -> None:
    throttle = TokenThrottle()
    for _ in range(50):
        throttle.record(False, 0.0)
    successes = 0
    while not throttle.withdraw(0.0):
        throttle.record(True, 0.0)
        successes += 1
    assert successes == 51


@pytest.mark.parametrize(("failure_share", "keeps_retrying"), [(0.08, True), (0.10, False)])
def test_retries_stop_above_a_failure_share_of_one_in_eleven(failure_share: float, keeps_retrying: bool) -> None:
    """Tokens drift down when failures / successes > 0.1, a share of 9.09 %."""
    throttle, rng = TokenThrottle(), Random(3)
    for _ in range(50_000):
        throttle.record(rng.random() >= failure_share, 0.0)
    allowed = 0
    for _ in range(5_000):
        throttle.record(rng.random() >= failure_share, 0.0)
        allowed += throttle.withdraw(0.0)
    assert (allowed > 2_500) == keeps_retrying


# --- SRE -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "golden"), [(1.1, 330), (1.5, 450), (2.0, 600), (3.0, 900)])
def test_a_saturated_backend_is_sent_k_times_what_it_takes(k: float, golden: float) -> None:
    """1,000 requests/s wanted, 300 accepted: what still reaches the backend, within 5 %."""
    throttle, reached = ClientThrottle(k=k, window_s=10.0, seed=1), 0
    for second in range(40):
        accepted_this_second = 0
        for tick in range(1000):
            now_s = second + tick / 1000
            if not throttle.admits(now_s):
                continue
            reached += second >= 20
            if accepted_this_second < 300:
                accepted_this_second += 1
                throttle.accepted(now_s)
    assert reached / 20 == pytest.approx(golden, rel=0.05)


def test_a_healthy_backend_is_never_refused_locally() -> None:
    throttle = ClientThrottle()
    for tick in range(1000):
        assert throttle.admits(tick / 10)
        throttle.accepted(tick / 10)
    assert throttle.refuse_probability(100.0) == 0.0


def test_unlimited_is() -> None:
    assert all(Unlimited().withdraw(0.0) for _ in range(1000))


def test_impossible_settings_are_refused() -> None:
    for make in (lambda: RetryBudget(ratio=-1), lambda: TokenThrottle(max_tokens=0), lambda: ClientThrottle(k=0.5)):
        with pytest.raises(SetupError):
            make()
