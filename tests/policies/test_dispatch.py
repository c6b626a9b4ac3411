"""dispatch: what it asks for, given what it is told. No clock, no loop: the test is the driver."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import InternalError, InvalidRequest, Overloaded, RequestError, UpstreamError
from miniserve.policies.balancer import LeastOutstanding
from miniserve.policies.dispatch import dispatch
from miniserve.types import (
    AttemptResult,
    FinishReason,
    FleetView,
    Outcome,
    ReplicaState,
    ReplicaView,
    Request,
    Send,
)

REQUEST = Request(request_id="q", model="m", prompt_ids=(1, 2, 3))


def fleet_of(*replicas: str, state: ReplicaState = ReplicaState.READY) -> Callable[[], FleetView]:
    view = FleetView(tuple(ReplicaView(replica_id, state=state) for replica_id in replicas))
    return lambda: view


def tell(
    fleet: Callable[[], FleetView], answer: Callable[[Send], AttemptResult], max_attempts: int = 3
) -> tuple[list[Send], Outcome]:
    """Drive the story with `answer` as the world; return what it sent and how it ended."""
    story = dispatch(REQUEST, fleet, LeastOutstanding(), max_attempts=max_attempts)
    sends: list[Send] = []
    try:
        effect = next(story)
        while True:
            assert isinstance(effect, Send), "the simple path neither sleeps nor hedges"
            sends.append(effect)
            effect = story.send(answer(effect))
    except StopIteration as stop:
        return sends, stop.value


def failing(error: Exception, token_ids: tuple[int, ...] = ()) -> Callable[[Send], AttemptResult]:
    return lambda send: AttemptResult(send.replica_id, token_ids=token_ids, error=error)


def succeeding(send: Send) -> AttemptResult:
    return AttemptResult(send.replica_id, FinishReason.STOP, (7, 8))


def test_a_good_attempt_ends_the_story() -> None:
    sends, outcome = tell(fleet_of("a", "b"), succeeding)
    assert [send.attempt for send in sends] == [0]
    assert sends[0].request is REQUEST
    assert outcome.ok
    assert outcome.finish_reason is FinishReason.STOP
    assert [attempt.token_ids for attempt in outcome.attempts] == [(7, 8)]


def test_a_failure_before_the_first_token_goes_to_another_replica() -> None:
    first: list[str] = []

    def answer(send: Send) -> AttemptResult:
        if not first:
            first.append(send.replica_id)
            return AttemptResult(send.replica_id, error=UpstreamError("refused"))
        return succeeding(send)

    sends, outcome = tell(fleet_of("a", "b"), answer)
    assert {send.replica_id for send in sends} == {"a", "b"}
    assert [send.attempt for send in sends] == [0, 1]
    assert outcome.ok
    assert len(outcome.attempts) == 2


def test_a_failure_after_the_first_token_ends_the_request_with_its_error() -> None:
    error = UpstreamError("cut")
    sends, outcome = tell(fleet_of("a", "b"), failing(error, token_ids=(7,)))
    assert len(sends) == 1
    assert outcome.error is error


@pytest.mark.parametrize("error", [InvalidRequest("too long"), InternalError("bug"), RuntimeError("not one of ours")])
def test_an_error_that_would_repeat_itself_is_not_retried(error: Exception) -> None:
    sends, outcome = tell(fleet_of("a", "b"), failing(error))
    assert len(sends) == 1
    assert outcome.error is error


@pytest.mark.parametrize("state", [ReplicaState.STARTING, ReplicaState.DRAINING, ReplicaState.DOWN])
def test_without_a_ready_replica_the_client_is_told_when_to_come_back(state: ReplicaState) -> None:
    sends, outcome = tell(fleet_of("a", "b", state=state), succeeding)
    assert sends == []
    assert isinstance(outcome.error, Overloaded)
    assert "0 of 2" in str(outcome.error)
    assert outcome.error.retry_after_s == 1.0


def test_the_fleet_is_looked_at_again_before_each_attempt() -> None:
    """A replica that appears while the first attempt fails is used for the second."""
    fleet = [ReplicaView("a")]

    def answer(send: Send) -> AttemptResult:
        fleet.append(ReplicaView("b"))
        return succeeding(send) if send.replica_id == "b" else failing(UpstreamError("refused"))(send)

    sends, outcome = tell(lambda: FleetView(tuple(fleet)), answer)
    assert [send.replica_id for send in sends] == ["a", "b"]
    assert outcome.ok


def test_closing_the_story_in_the_middle_is_quiet() -> None:
    """The client left: the driver closes the generator, which must not ask for anything more."""
    story = dispatch(REQUEST, fleet_of("a"), LeastOutstanding())
    next(story)
    story.close()


def test_no_attempts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_attempts \(0\)"):
        next(dispatch(REQUEST, fleet_of("a"), LeastOutstanding(), max_attempts=0))


errors = st.sampled_from([UpstreamError("x"), Overloaded("x"), InvalidRequest("x"), RuntimeError("x")])
steps = st.tuples(st.none() | errors, st.integers(0, 2))  # the attempt's error if any, tokens before it


@given(st.integers(0, 6), st.lists(steps, min_size=6, max_size=6), st.integers(1, 5))
def test_whatever_happens_the_rules_hold(
    replicas: int, world: list[tuple[Exception | None, int]], max_attempts: int
) -> None:
    def answer(send: Send) -> AttemptResult:
        error, tokens = world[send.attempt]
        reason = FinishReason.LENGTH if error is None else None
        return AttemptResult(send.replica_id, reason, tuple(range(tokens)), error)

    sends, outcome = tell(fleet_of(*(f"r{i}" for i in range(replicas))), answer, max_attempts)
    assert len(sends) <= min(max_attempts, replicas)
    assert len({send.replica_id for send in sends}) == len(sends), "no replica is tried twice"
    assert len(outcome.attempts) == len(sends)
    for earlier in outcome.attempts[:-1]:  # whatever was followed by another attempt was safe to repeat
        assert not earlier.ok
        assert not earlier.token_ids
        assert isinstance(earlier.error, RequestError)
        assert earlier.error.retryable
    assert outcome.ok == (bool(outcome.attempts) and outcome.attempts[-1].ok)
    if not outcome.ok and outcome.attempts:
        assert outcome.error is outcome.attempts[-1].error
