"""One request's story: choose a replica, send, and on failure decide whether and where to try again.

    admitted? ──> choose ──> Send ──> ok ─────────────────────────────> Outcome
                    ^         |  (or Hedge: a second attempt races the first)
                    |         └─> failed ──> can it be repeated? affordable? ──no──> Outcome with the last error
                    └── Sleep <──────────────────────────────────yes──┘

A story is a generator of effects (`types.Effect`): it yields `Send`, `Hedge` or `Sleep`; its driver performs that
effect and sends back an `AttemptResult`. So the same story runs under asyncio and in simulated time. It knows views of
replicas, results of attempts, and the time; it asks the policies in its `Policies` bundle and tells them what happened.
It never sees tokens in flight (the driver passes those straight to the client) or sockets.

**While the client has seen nothing** a failed attempt can be repeated elsewhere: before the first token, and as long as
tokens have been made but nothing of them has gone out (`Request.seen`), as in an answer without streaming. The tokens
that are there are sent along (`resume_ids`), so that nobody computes them twice. **Afterwards** the client holds part
of an answer, which can only be continued, and whether to do so is another decision (`Policies.resume`). Text from a
backend that names no tokens nobody can continue.

**Who is to blame?** A request that breaks two replicas at the same token is poison, and is not tried on a third; nor on
a fourth, if all that is known of them is that they were lost, since two may be killed in a row. A 500 is tried on one
other replica, as long as such second opinions have been worth it (`Policies.second_opinions`).

A driver goes on with `advance`. When the client leaves it calls `cancel`: the story yields nothing more, and releases
what it held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from miniserve.errors import LONGEST_WAIT_S, DeadlineExceeded, InternalError, Overloaded
from miniserve.policies.admission.admission import Admission, Reject
from miniserve.policies.attempts import Attempts, joined
from miniserve.policies.bundle import Policies
from miniserve.policies.guard import ask_about, broken_promise
from miniserve.policies.recovery.progress import left_out
from miniserve.policies.recovery.retry import was_too_busy
from miniserve.policies.routed import RoutedFleet
from miniserve.types import (
    AttemptResult,
    Clock,
    Effect,
    FleetView,
    Hedge,
    Outcome,
    ReplicaView,
    Request,
    Send,
    Sleep,
    Story,
    TokenIds,
)

RETRY_AFTER_S = 1.0  # how long a client is told to wait when no replica is ready: two rounds of health probes


def dispatch(request: Request, fleet: Callable[[], FleetView], clock: Clock, policies: Policies) -> Story:
    """Return `request`'s story. `request.deadline_s` is read on `clock`, which must be the driver's clock.

    Raises: PolicyError, naming the policy and the request, when a policy breaks its contract.
    """
    one = _Dispatch(request, fleet, clock, policies)
    return one.effects() if policies.admission is None else one.effects_if_admitted(policies.admission)


class ClientLeft(BaseException):
    """Thrown into a story whose client has left; `token_ids`: what the current attempt had delivered."""

    def __init__(self, token_ids: TokenIds = ()) -> None:
        super().__init__(token_ids)
        self.token_ids = token_ids


def advance(story: Story, result: AttemptResult | None = None) -> Effect | Outcome:
    """Tell `story` what became of its last effect; return the next one, or how it ended."""
    try:
        return story.send(result)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


def cancel(story: Story, token_ids: TokenIds = ()) -> None:
    """End `story`, if it has not ended yet. `token_ids`: what the current attempt had delivered."""
    with suppress(ClientLeft, StopIteration):
        story.throw(ClientLeft(token_ids))


class _Dispatch:
    """One story: what it works with, and what has happened in it so far."""

    __slots__ = ("_attempts", "_clock", "_fleet", "_hanging", "_policies", "_request", "_route")

    def __init__(self, request: Request, fleet: Callable[[], FleetView], clock: Clock, policies: Policies) -> None:
        self._request = request
        self._fleet = fleet
        self._clock = clock
        self._policies = policies
        self._attempts = Attempts(request, policies)
        self._route = RoutedFleet(request, fleet, policies.router)
        self._hanging: tuple[ReplicaView, ...] = ()  # as of the last look at the fleet

    def effects_if_admitted(self, admission: Admission) -> Story:
        """Ask the admission policy first; go on with the story if it admits the request."""
        request, now_s = self._request, self._clock()
        verdict = ask_about(admission, request, lambda: admission.decide(request, self._fleet(), now_s))
        if isinstance(verdict, Reject):
            return Outcome(request.request_id, error=verdict.error())
        try:
            return (yield from self.effects())
        finally:
            ask_about(admission, request, lambda: admission.finished(request, self._computed_tokens(), self._clock()))

    def effects(self) -> Story:
        attempts = self._attempts
        if self._policies.budget is not None:
            self._policies.budget.deposit(self._clock())
        try:
            while (effect := self._next_effect()) is not None:
                result = yield effect
                assert result is not None, "a driver answers Send and Hedge with an AttemptResult"
                attempts.learn(result, self._clock())
                if result.error is None:
                    return Outcome(self._request.request_id, result.finish_reason, attempts=tuple(attempts.results))
                if attempts.tokens:
                    self._route.keep_version_of(result.replica_id)
                wait_s = self._wait_s(result.error)
                if wait_s is None:
                    break
                if wait_s > 0:
                    yield Sleep(wait_s)
            return Outcome(self._request.request_id, error=self._error(), attempts=tuple(attempts.results))
        except ClientLeft as left:
            attempts.add_tokens(left.token_ids)
            raise
        finally:
            attempts.release(self._clock())

    # --- where to --------------------------------------------------------------------------------------------------

    def _next_effect(self) -> Send | Hedge | None:
        """Return the next attempt; None if there is no replica to send to, or no time left."""
        now_s = self._clock()
        left_s = self._left_s(now_s)
        if left_s is not None and left_s <= 0:
            return None
        candidates = self._candidates(now_s)
        if (trial := self._trial(candidates, now_s)) is not None:
            return trial
        first = self._send(candidates, now_s)
        if first is None or self._policies.hedge_after_s is None:
            return first
        return Hedge(first, self._policies.hedge_after_s, self._second)

    def _second(self) -> Send | None:
        """Return the other half of a hedge: chosen only when it is needed, and only if the budget allows it."""
        now_s = self._clock()
        candidates = self._untried(self._candidates(now_s))
        return self._send(candidates, now_s) if candidates and self._pays(now_s) else None

    def _trial(self, candidates: tuple[ReplicaView, ...], now_s: float) -> Hedge | None:
        """Let a replica that seems to hang prove itself, alongside an ordinary attempt that the client can rely on."""
        progress = self._policies.progress
        if progress is None or not self._hanging or not (others := self._untried(candidates)):
            return None
        suspect = progress.trial(self._untried(self._hanging), now_s)
        if suspect is None:
            return None
        others = tuple(view for view in others if view.replica_id != suspect)  # it may be all that is left
        return Hedge(self._send_to(suspect, now_s), 0.0, lambda: self._send(others, now_s))

    def _candidates(self, now_s: float) -> tuple[ReplicaView, ...]:
        """Return the replicas that may be used: the healthy ones and, of those, the untried."""
        policies = self._policies
        replicas = self._route.replicas()
        # Health before "untried": the ejector and the progress watch each give up filtering when too many replicas are
        # bad,
        # and must judge that by the whole route, not by what this request has left to try. Breakers have no such rule.
        if policies.ejector is not None:
            replicas = policies.ejector.admitted(replicas, now_s)
        if policies.progress is not None:
            progressing = policies.progress.admitted(replicas, now_s)
            self._hanging = left_out(replicas, progressing)
            replicas = progressing
        replicas = self._unbroken(replicas, now_s)
        if not self._attempts.tried:
            return replicas
        return self._untried(replicas) or (replicas if policies.same_replica else self._tried_before(replicas, now_s))

    def _unbroken(self, replicas: tuple[ReplicaView, ...], now_s: float) -> tuple[ReplicaView, ...]:
        breakers = self._policies.breakers
        if breakers is None:
            return replicas
        return tuple(view for view in replicas if breakers[view.replica_id].allows(now_s))

    def _tried_before(self, replicas: tuple[ReplicaView, ...], now_s: float) -> tuple[ReplicaView, ...]:
        """Return where a request that its replica has lost may go on once all have been tried.

        Who failed before the last token may have been restarted since. And who is left out for its health may be well
        all the same, while an error would be certain.
        """
        attempts = self._attempts
        if not attempts.tokens and not attempts.was_lost:
            return ()
        back = tuple(view for view in replicas if view.replica_id not in attempts.failed)
        return back or self._unbroken(
            tuple(view for view in self._route.replicas() if view.replica_id not in attempts.failed), now_s
        )

    def _untried(self, replicas: Sequence[ReplicaView]) -> tuple[ReplicaView, ...]:
        tried = self._attempts.tried
        return tuple(view for view in replicas if view.replica_id not in tried) if tried else tuple(replicas)

    def _send(self, candidates: tuple[ReplicaView, ...], now_s: float) -> Send | None:
        replica_id = self._choose(candidates)
        if replica_id is None:
            return None
        return self._send_to(replica_id, now_s, others=len(candidates) > 1)

    def _send_to(self, replica_id: str, now_s: float, *, others: bool = False) -> Send:
        """Begin an attempt. Its wait for a first token is limited only if `others` could be asked instead."""
        left_s = self._left_s(now_s)
        within_s = self._policies.first_token_within_s(left_s) if others else None
        progress, wait_on = self._policies.progress, None
        if progress is not None and within_s is not None:
            wait_on = partial(progress.wait_on_s, replica_id, now_s, within_s)
        send = Send(replica_id, self._rest_of_request(), self._attempts.sent, within_s, left_s, wait_on)
        self._attempts.begin(replica_id, now_s)
        return send

    def _choose(self, candidates: tuple[ReplicaView, ...]) -> str | None:
        balancer, request = self._policies.balancer, self._request
        chosen = ask_about(balancer, request, lambda: balancer.choose(request, candidates))
        if chosen is not None and all(view.replica_id != chosen for view in candidates):
            names = ", ".join(view.replica_id for view in candidates) or "none"
            raise broken_promise(balancer, request, f"it chose {chosen!r}, but was offered {names}")
        return chosen

    def _rest_of_request(self) -> Request:
        tokens = self._attempts.tokens
        if not tokens:
            return self._request
        return replace(self._request, resume_ids=joined(self._request.resume_ids, tokens))

    def _left_s(self, now_s: float) -> float | None:
        return None if self._request.deadline_s is None else self._request.deadline_s - now_s

    # --- whether to go on ------------------------------------------------------------------------------------------

    def _wait_s(self, error: Exception) -> float | None:
        """Return how long to wait before another attempt after `error`, or None to give up."""
        now_s = self._clock()
        if self._attempts.is_poison or not self._can_go_on():
            return None
        if not self._policies.same_replica and not self._candidates(now_s):
            return None
        if isinstance(error, InternalError):
            return 0.0 if self._may_ask_another(now_s) else None
        if was_too_busy(error) and self._untried(self._candidates(now_s)):
            return self._asked_next_s(error, now_s)
        wait_s = self._backoff_s(error, now_s)
        if wait_s is None or not self._pays(now_s):
            return None
        return wait_s

    def _asked_next_s(self, error: Exception, now_s: float) -> float | None:
        """Return 0, or None to give up: a refusal has cost nothing, so the next replica is asked at once and free."""
        retry, failures = self._policies.retry, self._attempts.failures
        wait_s = ask_about(retry, self._request, lambda: retry.delay_s(failures, error, now_s, None))
        return None if wait_s is None else 0.0

    def _backoff_s(self, error: Exception, now_s: float) -> float | None:
        retry, failures, deadline_s = self._policies.retry, self._attempts.failures, self._request.deadline_s
        wait_s = ask_about(retry, self._request, lambda: retry.delay_s(failures, error, now_s, deadline_s))
        if wait_s is not None and not wait_s >= 0:
            raise broken_promise(retry, self._request, f"it wants to wait {wait_s} s")
        if wait_s is None or wait_s > LONGEST_WAIT_S or (deadline_s is not None and now_s + wait_s >= deadline_s):
            return None
        return wait_s

    def _can_go_on(self) -> bool:
        """Return whether a new attempt could give the client what it lacks without repeating anything."""
        tokens = self._attempts.tokens
        if self._attempts.is_text:
            return False
        if not tokens:
            return True
        return (self._policies.resume or self._is_unseen()) and len(tokens) < self._request.sampling.max_tokens

    def _is_unseen(self) -> bool:
        """Return whether the client has nothing yet of what was generated: a plain answer leaves in one piece."""
        seen = self._request.seen
        return seen is not None and not seen()

    def _may_ask_another(self, now_s: float) -> bool:
        """Return whether to try another replica after a 500, which is usually the request's own fault."""
        opinions = self._policies.second_opinions
        is_seen = self._attempts.tokens and not self._is_unseen()
        if opinions is None or is_seen or not self._untried(self._candidates(now_s)):
            return False
        return opinions.withdraw(now_s) and self._pays(now_s)

    def _pays(self, now_s: float) -> bool:
        return self._policies.budget is None or self._policies.budget.withdraw(now_s)

    # --- the end ---------------------------------------------------------------------------------------------------

    def _computed_tokens(self) -> int | None:
        """Return the tokens computed for the request, as far as is known here; None if it was never sent."""
        attempts = self._attempts
        return len(self._request.prompt_ids) + len(attempts.tokens) if attempts.sent else None

    def _error(self) -> Exception:
        results, left_s = self._attempts.results, self._left_s(self._clock())
        if results and (error := results[-1].error) is not None:
            return error
        if left_s is not None and left_s <= 0:
            return DeadlineExceeded("the request's deadline had passed before it could be sent to a replica")
        message = f"{self._route.why_none()}; try again in {RETRY_AFTER_S:g} s"
        return Overloaded(message, code="no_replica_ready", retry_after_s=RETRY_AFTER_S)
