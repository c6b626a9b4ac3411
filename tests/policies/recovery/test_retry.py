"""Retry policies: what they refuse, what they obey, and how many attempts that makes."""

from __future__ import annotations

from random import Random

import pytest

from miniserve.errors import InternalError, InvalidRequest, Overloaded, SetupError, UpstreamError
from miniserve.policies.recovery.retry import Backoff, NaiveRetry, NeverRetry, expected_attempts, may_retry

BROKEN = UpstreamError("refused")


@pytest.mark.parametrize("error", [InvalidRequest("x"), InternalError("x"), RuntimeError("x")])
def test_what_would_fail_again_is_not_retried(error: Exception) -> None:
    assert not may_retry(error)
    assert Backoff().delay_s(1, error, 0.0, None) is None


def test_max_attempts_includes_the_first() -> None:
    policy = Backoff(max_attempts=3)
    assert [policy.delay_s(n, BROKEN, 0.0, None) is None for n in (1, 2, 3, 4)] == [False, False, True, True]


def test_a_push_back_sets_the_wait() -> None:
    error = Overloaded("full", retry_after_s=7.5)
    assert Backoff().delay_s(1, error, 0.0, None) == 7.5
    assert Backoff().delay_s(1, Overloaded("full", retry_after_s=0.0), 0.0, None) == 0.0


def test_a_negative_push_back_forbids() -> None:
    error = Overloaded("do not", retry_after_s=-1.0)
    assert not may_retry(error)
    assert Backoff().delay_s(1, error, 0.0, None) is None


def test_a_wait_that_reaches_the_deadline_is_no_use() -> None:
    error = Overloaded("full", retry_after_s=2.0)
    assert Backoff().delay_s(1, error, 10.0, 12.0) is None
    assert Backoff().delay_s(1, error, 10.0, 12.1) == 2.0


def test_the_same_seed_waits_the_same() -> None:
    def waits(seed: int) -> list[float | None]:
        policy = Backoff(max_attempts=9, seed=seed)
        return [policy.delay_s(n, BROKEN, 0.0, None) for n in range(1, 9)]

    assert waits(3) == waits(3)
    assert waits(3) != waits(4)


def test_naive_retries_whatever_it_is_told() -> None:
    policy = NaiveRetry(max_attempts=4)
    assert [policy.delay_s(n, InvalidRequest("no"), 5.0, 5.0) for n in (1, 2, 3, 4)] == [0.0, 0.0, 0.0, None]
    assert NeverRetry().delay_s(1, BROKEN, 0.0, None) is None


@pytest.mark.parametrize(("p", "n", "golden"), [(0.5, 3, 1.75), (0.9, 4, 3.439), (1.0, 7, 7.0), (0.0, 3, 1.0)])
def test_expected_attempts_are_the_closed_form(p: float, n: int, golden: float) -> None:
    assert expected_attempts(p, n) == pytest.approx(golden)


def test_a_policy_makes_the_expected_number_of_attempts() -> None:
    """Each attempt fails with probability 1/2; 3 at most: 1.75 on average."""
    rng, policy, attempts, requests = Random(5), Backoff(max_attempts=3), 0, 20_000
    for _ in range(requests):
        failures = 0
        attempts += 1
        while rng.random() < 0.5:
            failures += 1
            if policy.delay_s(failures, BROKEN, 0.0, None) is None:
                break
            attempts += 1
    assert attempts / requests == pytest.approx(expected_attempts(0.5, 3), rel=0.02)


@pytest.mark.parametrize("wrong", [{"max_attempts": 0}, {"base_s": -1.0}, {"base_s": 2.0, "cap_s": 1.0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SetupError):
        Backoff(**wrong)  # type: ignore[arg-type]
