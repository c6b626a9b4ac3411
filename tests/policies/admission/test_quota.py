"""Quotas: two rate limits that are one, and accounts that cannot be overdrawn."""

from __future__ import annotations

import asyncio
import math
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from miniserve.errors import SetupError
from miniserve.policies.admission.admission import Admit, Reject
from miniserve.policies.admission.quota import (
    GCRA,
    QuotaAdmission,
    QuotaLimits,
    RateLimit,
    Reservation,
    TenantQuota,
    TokenBucket,
)
from miniserve.types import FleetView, Request, SamplingParams

# --- rate limits ---------------------------------------------------------------------------------------------------

rates = st.one_of(
    st.floats(0.001, 10_000),
    st.integers(1, 1_000_000).map(lambda n: n / 60),
    st.fractions("1/60", 100, max_denominator=60).map(float),
)
arrivals = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 100), st.integers(0, 100), st.sampled_from([1 / 3, 0.1, 1e-9])),  # when: in any order
        st.integers(1, 12),  # cost
        st.integers(-3, 3),  # given back afterwards, or taken in addition
    ),
    max_size=60,
)


@given(rates, st.integers(1, 10), arrivals)
def test_gcra_and_token_bucket_decide_the_same(
    rate_per_s: float, burst: int, history: list[tuple[float, int, int]]
) -> None:
    gcra, bucket = GCRA(rate_per_s=rate_per_s, burst=burst), TokenBucket(rate_per_s=rate_per_s, burst=burst)
    for now_s, cost, back in history:
        assert gcra.wait_s(now_s, cost) == bucket.wait_s(now_s, cost)
        assert gcra.take(now_s, cost) == bucket.take(now_s, cost)
        if back:
            gcra.give_back(now_s, back)
            bucket.give_back(now_s, back)


@given(st.fractions("1/60", 50, max_denominator=60), st.integers(1, 10), arrivals)
def test_gcra_is_the_textbook_bucket_in_exact_arithmetic(
    rate: Fraction, burst: int, history: list[tuple[float, int, int]]
) -> None:
    """A third one, written here with fractions of seconds: level = min(burst, level + rate * passed)."""
    gcra, level, last = GCRA(rate_per_s=float(rate), burst=burst), Fraction(burst), Fraction(0)
    for now_s, cost, _ in history:
        now = max(last, Fraction(round(now_s * 10**9), 10**9))
        level, last = min(Fraction(burst), level + rate * (now - last)), now
        fits = level >= cost
        assert gcra.take(now_s, cost) == fits
        level -= cost if fits else 0


@pytest.mark.parametrize("kind", [GCRA, TokenBucket])
def test_a_burst_then_the_rate(kind: type[GCRA]) -> None:
    limit = kind(rate_per_s=10, burst=5)
    taken = [tick / 100 for tick in range(101) if limit.take(tick / 100)]
    assert len(taken) == 5 + 10, "any window of length w admits at most burst + rate * w"


@given(rates, st.integers(1, 10), arrivals)
def test_no_window_exceeds_burst_and_rate(rate_per_s: float, burst: int, history: list[tuple[float, int, int]]) -> None:
    limit = GCRA(rate_per_s=rate_per_s, burst=burst)
    taken: list[tuple[float, int]] = []
    for now_s, cost, _ in sorted(history):
        if limit.take(now_s, cost):
            taken.append((now_s, cost))
            for since, _ in taken:
                inside = sum(cost for at, cost in taken if at >= since)
                assert inside <= burst + rate_per_s * (now_s - since) * (1 + 1e-6) + 1e-6


@given(rates, st.integers(1, 10), arrivals)
def test_the_announced_wait_is_enough_and_not_too_long(
    rate_per_s: float, burst: int, history: list[tuple[float, int, int]]
) -> None:
    limit, now_s = TokenBucket(rate_per_s=rate_per_s, burst=burst), 0.0
    for gap_s, cost, _ in history:
        now_s += gap_s
        wait_s = limit.wait_s(now_s, cost)
        if cost > burst:
            assert wait_s == math.inf
        elif wait_s > 1e-3:
            assert not limit.take(now_s + 0.999 * wait_s, cost)
            now_s += wait_s + 1e-8
            assert limit.take(now_s, cost)


@pytest.mark.parametrize("kind", [GCRA, TokenBucket])
def test_a_third_of_a_second_is_not_rounded_down(kind: type[GCRA]) -> None:
    limit = kind(rate_per_s=3, burst=1)
    assert limit.take(0.0)
    assert not limit.take(0.333_333_333), "a third of a nanosecond too early"
    assert limit.take(0.333_333_334)


def test_a_clock_that_goes_back_stands_still() -> None:
    for limit in (GCRA(rate_per_s=1, burst=1), TokenBucket(rate_per_s=1, burst=1)):
        assert limit.take(10.0)
        assert not limit.take(3.0)
        assert limit.take(11.0)


@pytest.mark.parametrize("wrong", [{"rate_per_s": 0.0}, {"rate_per_s": math.inf}, {"rate_per_s": -1.0}, {"burst": 0}])
@pytest.mark.parametrize("kind", [GCRA, TokenBucket])
def test_impossible_rates_are_refused(kind: type[RateLimit], wrong: dict[str, float]) -> None:
    with pytest.raises(SetupError):
        kind(**wrong)


# --- accounts ------------------------------------------------------------------------------------------------------


def reserve(quota: TenantQuota, tokens: int, now_s: float = 0.0) -> Reservation:
    held = quota.reserve(tokens, now_s)
    assert isinstance(held, Reservation), held
    return held


def refusal(quota: TenantQuota, tokens: int, now_s: float = 0.0) -> Reject:
    refused = quota.reserve(tokens, now_s)
    assert isinstance(refused, Reject)
    return refused


def test_each_limit_refuses_in_its_own_words() -> None:
    assert refusal(TenantQuota(QuotaLimits(budget_tokens=10)), 11).code == "insufficient_quota"
    assert refusal(TenantQuota(QuotaLimits(tokens_per_min=10)), 11).code == "request_too_large"
    assert refusal(TenantQuota(QuotaLimits(tokens_per_min=10)), 11).retry_after_s is None
    for limits in (QuotaLimits(concurrent=1), QuotaLimits(requests_per_min=1), QuotaLimits(tokens_per_min=10)):
        quota = TenantQuota(limits)
        reserve(quota, 10)
        refused = refusal(quota, 10)
        assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
        assert refused.retry_after_s is not None
        assert refused.retry_after_s > 0


def test_a_refusal_takes_nothing() -> None:
    quota = TenantQuota(QuotaLimits(requests_per_min=2, tokens_per_min=100, budget_tokens=100))
    for _ in range(10):
        refusal(quota, 101)
    settled = reserve(quota, 100)
    assert refusal(quota, 1).code == "insufficient_quota"
    quota.settle(settled, 0, 0.0)
    reserve(quota, 100)


def test_what_was_not_used_comes_back() -> None:
    quota = TenantQuota(QuotaLimits(tokens_per_min=100, budget_tokens=150))
    quota.settle(reserve(quota, 100), 30, 0.0)
    assert (quota.spent_tokens, quota.reserved_tokens, quota.remaining_tokens) == (30, 0, 120)
    reserve(quota, 70)
    assert refusal(quota, 1).code == "rate_limit_exceeded"


def test_a_reservation_is_settled_once() -> None:
    quota = TenantQuota(QuotaLimits())
    held = reserve(quota, 5)
    quota.settle(held, 5, 0.0)
    with pytest.raises(KeyError):
        quota.settle(held, 5, 0.0)


def test_a_request_that_never_started_is_not_counted() -> None:
    quota = TenantQuota(QuotaLimits(requests_per_min=1))
    quota.cancel(reserve(quota, 5), 0.0)
    reserve(quota, 5)
    refusal(quota, 5)


@pytest.mark.parametrize("checked_late", [False, True])
def test_a_thousand_at_once_cannot_overshoot(checked_late: bool) -> None:
    """A thousand requests of 100 tokens on a budget of 5,000. Checking before and charging after lets all through."""
    quota = TenantQuota(QuotaLimits(budget_tokens=5_000))
    rng, spent = Random(1), 0

    async def one() -> bool:
        nonlocal spent
        if checked_late:
            may = spent + 100 <= 5_000
        else:
            held = quota.reserve(100, 0.0)
            may = isinstance(held, Reservation)
        if not may:
            return False
        for _ in range(rng.randrange(5)):
            await asyncio.sleep(0)
        used = rng.randint(50, 100)
        if not checked_late:
            assert isinstance(held, Reservation)
            quota.settle(held, used, 0.0)
        spent += used
        return True

    async def all_at_once() -> int:
        return sum(await asyncio.gather(*(one() for _ in range(1000))))

    admitted = asyncio.run(all_at_once())
    if checked_late:
        assert spent > 5_000, "so this test can fail"
    else:
        assert spent == quota.spent_tokens <= 5_000
        assert admitted >= 50


class AccountMachine(RuleBasedStateMachine):
    """Reservations made and settled in any order: nothing is lost, nothing is overdrawn."""

    held = Bundle("held")

    @initialize(budget=st.integers(0, 300), concurrent=st.integers(1, 5))
    def begin(self, budget: int, concurrent: int) -> None:
        self.limits = QuotaLimits(budget_tokens=budget, concurrent=concurrent, tokens_per_min=120, requests_per_min=30)
        self.quota, self.now_s, self.open, self.spent = TenantQuota(self.limits), 0.0, 0, 0
        self.reserved = 0

    @rule(target=held, tokens=st.integers(0, 130), gap_s=st.floats(0, 5))
    def reserve(self, tokens: int, gap_s: float) -> Reservation | None:
        self.now_s += gap_s
        result = self.quota.reserve(tokens, self.now_s)
        if isinstance(result, Reject):
            return None
        self.open += 1
        self.reserved += tokens
        return result

    @rule(reservation=consumes(held), used=st.floats(0, 1), cancelled=st.booleans())
    def settle(self, reservation: Reservation | None, used: float, cancelled: bool) -> None:
        if reservation is None:
            return
        self.open -= 1
        self.reserved -= reservation.tokens
        if cancelled:
            self.quota.cancel(reservation, self.now_s)
        else:
            tokens = int(used * reservation.tokens)
            self.spent += tokens
            self.quota.settle(reservation, tokens, self.now_s)

    @invariant()
    def conserved(self) -> None:
        if not hasattr(self, "quota"):
            return
        quota = self.quota
        assert (quota.spent_tokens, quota.reserved_tokens, quota.concurrent) == (self.spent, self.reserved, self.open)
        assert quota.remaining_tokens + quota.reserved_tokens + quota.spent_tokens == self.limits.budget_tokens
        assert quota.remaining_tokens >= 0
        assert self.limits.concurrent is not None
        assert self.open <= self.limits.concurrent


TestAccountMachine = AccountMachine.TestCase


# --- at the door ---------------------------------------------------------------------------------------------------


def a_request(request_id: str, tenant: str) -> Request:
    sampling = SamplingParams(max_tokens=20)
    return Request(request_id=request_id, model="m", prompt_ids=range(30), sampling=sampling, tenant=tenant)


def test_each_tenant_has_an_account_and_the_worst_case_is_reserved() -> None:
    guard = QuotaAdmission(limits={"big": QuotaLimits(budget_tokens=100)}, default=QuotaLimits(budget_tokens=50))
    assert isinstance(guard.decide(a_request("1", "big"), FleetView(), 0.0), Admit)
    assert isinstance(guard.decide(a_request("2", "big"), FleetView(), 0.0), Admit)
    assert isinstance(guard.decide(a_request("3", "big"), FleetView(), 0.0), Reject)
    assert isinstance(guard.decide(a_request("4", "small"), FleetView(), 0.0), Admit)
    guard.finished(a_request("1", "big"), 35, 1.0)
    assert (guard.quota("big").spent_tokens, guard.quota("big").remaining_tokens) == (35, 15)


def test_tenants_that_clients_invent_take_bounded_memory_and_nobody_else_loses_an_account() -> None:
    limits = QuotaLimits(budget_tokens=1_000)
    guard = QuotaAdmission(limits={"known": limits}, default=limits, strangers=3)
    requests = [a_request(f"q{n}", tenant) for n, tenant in enumerate(["known", "inside", *map(str, range(100))])]
    for request in requests:
        assert isinstance(guard.decide(request, FleetView(), 0.0), Admit)
        if request.tenant != "inside":
            guard.finished(request, 40, 0.0)
    spent = [guard.quota(tenant).spent_tokens for tenant in ("known", "99", "98", "97")]
    assert spent == [40, 40, 40, 0], "97 was forgotten: three are remembered, and one of them has a request inside"
    guard.finished(requests[1], 50, 1.0)
    assert guard.quota("inside").spent_tokens == 50


@pytest.mark.parametrize("wrong", [{"requests_per_min": 0}, {"concurrent": -1}, {"budget_tokens": -5}])
def test_impossible_quotas_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SetupError, match=next(iter(wrong))):
        QuotaLimits(**wrong)
