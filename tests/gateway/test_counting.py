"""A story's attempts are counted as they happen, and the story itself is told as without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from miniserve.clock import ManualClock
from miniserve.errors import NoFirstToken, Unreachable, UpstreamError
from miniserve.gateway.counting import counted, error_kind
from miniserve.observe.counts import GatewayCounts
from miniserve.policies.bundle import Policies
from miniserve.policies.dispatch import advance, cancel, dispatch
from miniserve.policies.routing.balancer import RoundRobin
from miniserve.types import (
    AttemptResult,
    FinishReason,
    FleetView,
    Hedge,
    Outcome,
    ReplicaView,
    Request,
    Send,
    Sleep,
    Story,
)

MakeRequest = Callable[..., Request]
FLEET = FleetView(tuple(ReplicaView(name) for name in "abc"))


def told(counts: GatewayCounts, request: Request, **policies: object) -> Story:
    bundle = replace(Policies(RoundRobin()), **policies)  # type: ignore[arg-type]
    return counted(dispatch(request, lambda: FLEET, ManualClock(1.0), bundle), counts)


def after(story: Story, result: AttemptResult) -> Send | Hedge | Outcome:
    """Return what follows `result`, waits left out."""
    effect = advance(story, result)
    while isinstance(effect, Sleep):
        effect = advance(story)
    return effect


def test_a_retry_counts_where_it_goes_and_the_failure_where_it_was(make_request: MakeRequest) -> None:
    counts, failed = GatewayCounts(), list[AttemptResult]()
    bundle = Policies(RoundRobin())
    story = counted(dispatch(make_request(), lambda: FLEET, ManualClock(1.0), bundle), counts, failed.append)
    first = advance(story)
    assert isinstance(first, Send)
    second = after(story, AttemptResult(first.replica_id, error=Unreachable("gone")))
    assert [attempt.replica_id for attempt in failed] == [first.replica_id], "though another saves the answer"
    assert isinstance(second, Send)
    end = after(story, AttemptResult(second.replica_id, FinishReason.STOP, (1, 2)))
    assert isinstance(end, Outcome)
    assert end.ok
    one, other = counts.replicas[first.replica_id], counts.replicas[second.replica_id]
    assert (one.attempts, one.retries, dict(one.failures)) == (1, 0, {"unreachable": 1})
    assert (other.attempts, other.retries, other.resumed, dict(other.failures)) == (1, 1, 0, {})
    assert (counts.total("attempts"), counts.total("retries"), counts.total("hedges")) == (2, 1, 0)


def test_going_on_after_the_tokens_of_another_is_resuming(make_request: MakeRequest) -> None:
    counts = GatewayCounts()
    story = told(counts, make_request(), resume=True)
    first = advance(story)
    assert isinstance(first, Send)
    second = after(story, AttemptResult(first.replica_id, token_ids=(7, 8), error=UpstreamError("cut")))
    assert isinstance(second, Send)
    assert tuple(second.request.resume_ids) == (7, 8)
    assert counts.replicas[second.replica_id].resumed == 1
    assert counts.total("resumed") == 1
    cancel(story)


def test_the_other_half_of_a_hedge_counts_once_it_is_started(make_request: MakeRequest) -> None:
    counts = GatewayCounts()
    story = told(counts, make_request(), hedge_after_s=0.1, budget=None)
    hedge = advance(story)
    assert isinstance(hedge, Hedge)
    assert counts.total("attempts") == 1
    second = hedge.second()
    assert second is not None
    assert (counts.total("attempts"), counts.total("hedges"), counts.total("retries")) == (2, 1, 0)
    loser = AttemptResult(hedge.first.replica_id, error=NoFirstToken("slow"))
    won = AttemptResult(second.replica_id, FinishReason.STOP, (1,), losers=(loser,))
    assert isinstance(after(story, won), Outcome)
    assert dict(counts.replicas[hedge.first.replica_id].failures) == {"no_first_token": 1}


def test_a_client_that_leaves_is_counted_and_the_story_still_hears_of_it(make_request: MakeRequest) -> None:
    counts = GatewayCounts()
    bundle = Policies(RoundRobin())
    story = counted(dispatch(make_request(), lambda: FLEET, ManualClock(1.0), bundle), counts)
    advance(story)
    cancel(story, (1,))
    assert counts.clients_left == 1
    cancel(story)
    assert counts.clients_left == 1


def test_an_errors_label_is_its_class_in_small_letters() -> None:
    assert error_kind(UpstreamError("x")) == "upstream_error"
    assert error_kind(NoFirstToken("x")) == "no_first_token"
    assert error_kind(ValueError("x")) == "value_error"
