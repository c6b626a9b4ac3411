"""One request's story, told once: choose a replica, send, and on failure choose another.

A generator of effects (`types.Effect`). It yields `Send`, its driver performs it and sends back an `AttemptResult`; the
same story so runs under asyncio and under simulated time. Knows views of replicas and results of attempts. Does not
know tokens on their way (the driver passes those straight to the client), clocks, or sockets.

Before the first token nobody has seen anything, so a failed attempt can be repeated elsewhere; afterwards the client
holds half an answer, and the story ends with the error.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from miniserve.errors import Overloaded, RequestError
from miniserve.policies.balancer import Balancer
from miniserve.types import AttemptResult, Effect, FleetView, Outcome, ReplicaView, Request, Send

RETRY_AFTER_S = 1.0  # what a client is told to wait when no replica is ready: two rounds of health probes


def dispatch(
    request: Request, fleet: Callable[[], FleetView], balancer: Balancer, *, max_attempts: int = 3
) -> Generator[Effect, AttemptResult | None, Outcome]:
    """Tell `request`'s story: at most `max_attempts` sends, each to a replica not yet tried, none after a token.

    Raises: ValueError if `max_attempts` is less than 1.
    """
    if max_attempts < 1:
        raise ValueError(f"max_attempts ({max_attempts}) must be at least 1")
    attempts: list[AttemptResult] = []
    while len(attempts) < max_attempts:
        replica_id = balancer.choose(request, _untried(fleet(), attempts))
        if replica_id is None:
            break
        result = yield Send(replica_id, request, attempt=len(attempts))
        assert result is not None, "a driver answers Send with an AttemptResult"
        attempts.append(result)
        if result.ok:
            return Outcome(request.request_id, result.finish_reason, attempts=tuple(attempts))
        if not _may_go_elsewhere(result):
            break
    return Outcome(request.request_id, error=_error(attempts, fleet()), attempts=tuple(attempts))


def _untried(fleet: FleetView, attempts: Sequence[AttemptResult]) -> tuple[ReplicaView, ...]:
    tried = {attempt.replica_id for attempt in attempts}
    return tuple(view for view in fleet.ready() if view.replica_id not in tried)


def _may_go_elsewhere(result: AttemptResult) -> bool:
    """Say whether another replica may start this request from its beginning.

    A stream that broke in the middle would need to be *continued* (`Request.resume_ids`), which is another decision.
    """
    nothing_sent = not result.token_ids
    return nothing_sent and isinstance(result.error, RequestError) and result.error.retryable


def _error(attempts: Sequence[AttemptResult], fleet: FleetView) -> Exception:
    if attempts and attempts[-1].error is not None:
        return attempts[-1].error
    return Overloaded(
        f"no replica is ready (0 of {len(fleet.replicas)}); try again in {RETRY_AFTER_S:g} s",
        None,
        "no_replica_ready",
        RETRY_AFTER_S,
    )
