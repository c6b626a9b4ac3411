"""Outcomes as columns: what is recorded comes back, small, and summed up by the one definition of a percentile."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import DeadlineExceeded, Overloaded, UpstreamError
from miniserve.observe.outcomes import CLIENT_LEFT, SERVED, Latency, OutcomeLog, Outcomes, status_of
from miniserve.observe.percentiles import percentiles
from miniserve.types import AttemptResult, FinishReason, Outcome, Request, SamplingParams


def three() -> Outcomes:
    log = OutcomeLog()
    log.record(0, 1.0, 4.0, first_token_s=2.0, prompt_tokens=10, output_tokens=5, cached_tokens=4, replica_id="a")
    log.record(2, 2.0, 2.0, status=429, attempts=0, tenant="noisy", prompt_tokens=10)
    log.record(1, 1.5, 5.0, first_token_s=5.0, prompt_tokens=20, output_tokens=1, replica_id="b", attempts=3)
    return log.outcomes()


def test_latencies_of_each_request() -> None:
    outcomes = three()

    np.testing.assert_equal(outcomes.ttft_s, [1.0, math.nan, 3.5])
    np.testing.assert_equal(outcomes.e2e_s, [3.0, 0.0, 3.5])
    np.testing.assert_equal(outcomes.tpot_s, [0.5, math.nan, math.nan])  # one token has no next one
    assert outcomes.served.tolist() == [True, False, True]


def test_the_summary() -> None:
    summary = three().summary()

    assert (summary.requests, summary.served, summary.by_status) == (3, 2, {200: 2, 429: 1})
    assert (summary.duration_s, summary.served_per_s, summary.output_tokens_per_s) == (4.0, 0.5, 1.5)
    assert summary.attempts_per_request == pytest.approx(4 / 3)
    assert summary.cached_fraction == pytest.approx(4 / 40)
    assert summary.ttft == Latency(2.25, 1.0, 3.5, 3.5, 3.5, 3.5, 3.5)
    assert summary.e2e == Latency(3.25, 3.0, 3.5, 3.5, 3.5, 3.5, 3.5), "the refusal's 0 seconds are not an answer"
    assert summary.figures()["ttft_p99_s"] == 3.5
    assert summary.figures()["served_per_s"] == 0.5


def test_a_first_token_of_an_answer_that_broke_off_is_no_latency() -> None:
    log = OutcomeLog()
    log.record(0, 0.0, 9.0, first_token_s=8.0, output_tokens=3, status=502)

    summary = log.outcomes().summary()
    assert (summary.ttft, summary.tpot, summary.e2e) == (None, None, None)
    assert summary.output_tokens_per_s == pytest.approx(3 / 9), "but its tokens were made"


def test_parts_of_a_run() -> None:
    outcomes = three()

    assert outcomes.of_tenant("noisy").index.tolist() == [2]
    assert len(outcomes.of_tenant("nobody")) == 0
    assert outcomes.arrived_between(1.5, 2.0).index.tolist() == [1]
    assert outcomes.by_replica() == {"a": 1, "b": 1}


def test_nothing_at_all() -> None:
    summary = OutcomeLog().outcomes().summary()

    assert (summary.requests, summary.duration_s, summary.served_per_s, summary.ttft) == (0, 0.0, 0.0, None)
    assert "ttft_p50_s" not in summary.figures()


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_are_the_exact_ones(values: list[float]) -> None:
    latency = Latency.of([*values, math.nan])

    assert latency is not None
    assert astuple(latency)[1:] == percentiles(values, (50, 90, 95, 99, 99.9, 100))


def test_a_million_requests_fit_in_a_hundred_megabytes() -> None:
    """Checked on fifty thousand: bytes per row do not depend on their number."""
    tracemalloc.start()
    log = OutcomeLog()
    for i in range(50_000):
        log.record(i, i * 0.1, i * 0.1 + 1, first_token_s=i * 0.1 + 0.5, output_tokens=i % 7, replica_id=f"r{i % 8}")
    outcomes = log.outcomes()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert used / len(outcomes) < 100
    assert outcomes.index[-1] == 49_999


# ---- from the end that dispatch tells

REQUEST = Request("q", "m", range(9), SamplingParams(), arrived_s=1.0, deadline_s=30.0, tenant="alice")


def test_a_stream_continued_elsewhere_has_the_first_token_of_its_first_part() -> None:
    cut = AttemptResult("a", None, (1, 2), UpstreamError(), 1.0, 1.5, 2.0)
    rest = AttemptResult("b", FinishReason.STOP, (3, 4, 5), None, 2.0, 2.5, 3.0, cached_tokens=8)
    log = OutcomeLog()
    log.record_outcome(4, REQUEST, Outcome("q", FinishReason.STOP, None, (cut, rest)), 3.0)
    outcomes = log.outcomes()

    assert (outcomes.ttft_s[0], outcomes.e2e_s[0], outcomes.deadline_s[0]) == (0.5, 2.0, 30.0)
    assert (outcomes.output_tokens[0], outcomes.prompt_tokens[0], outcomes.cached_tokens[0]) == (5, 9, 8)
    assert (outcomes.attempts[0], outcomes.status[0]) == (2, SERVED)
    assert (outcomes.replicas[outcomes.replica[0]], outcomes.tenants[outcomes.tenant[0]]) == ("b", "alice")


def test_the_loser_of_a_hedge_is_an_attempt_too() -> None:
    loser = AttemptResult("a", None, (), None, 1.0, None, 3.0)
    winner = AttemptResult("b", FinishReason.STOP, (1,), None, 2.0, 2.5, 3.0, (loser,))
    log = OutcomeLog()
    log.record_outcome(0, REQUEST, Outcome("q", FinishReason.STOP, None, (winner,)), 3.0)

    assert log.outcomes().attempts.tolist() == [2]


def test_a_refused_request_never_had_a_replica() -> None:
    log = OutcomeLog()
    log.record_outcome(0, REQUEST, Outcome("q", error=Overloaded()), 1.0)
    outcomes = log.outcomes()

    assert (outcomes.replica[0], outcomes.attempts[0], outcomes.status[0]) == (-1, 0, 503)
    assert outcomes.by_replica() == {}


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome("q", FinishReason.LENGTH), SERVED),
        (Outcome("q", FinishReason.ABORT), CLIENT_LEFT),
        (Outcome("q", error=DeadlineExceeded()), 504),
        (Outcome("q", error=ZeroDivisionError()), 500),
    ],
)
def test_the_status_of_an_end(outcome: Outcome, status: int) -> None:
    assert status_of(outcome) == status
