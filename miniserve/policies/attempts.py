"""The attempts of one request: what each produced, which replicas failed, and telling the policies that learn from it.

Every attempt begins and ends here exactly once, however it ends: with a result, as the loser of a hedge, or because the
client left. Nothing is decided here: `dispatch` decides, and reads here what has happened so far.

Breakers are told last. Whether a failure was the replica's fault may not be known until another replica has served the
request, so an attempt's permit is held until then, or until the story ends without a verdict.
"""

from __future__ import annotations

from miniserve.errors import DeadlineExceeded, InternalError, NoFirstToken, Unreachable, UpstreamError
from miniserve.policies.bundle import Policies
from miniserve.policies.guard import ask_about
from miniserve.policies.recovery.breaker import Permit
from miniserve.policies.recovery.ejection import is_success, is_suspicious
from miniserve.policies.recovery.retry import may_retry, was_too_busy
from miniserve.types import AttemptResult, FinishReason, Request, TokenIds


class Attempts:
    """One request's attempts, from its arrival."""

    __slots__ = (
        "_open",
        "_permits",
        "_policies",
        "_request",
        "answered_500",
        "failed",
        "failures",
        "is_text",
        "results",
        "sent",
        "stuck_on",
        "tokens",
        "tried",
    )

    def __init__(self, request: Request, policies: Policies) -> None:
        self.results: list[AttemptResult] = []
        self.sent = 0  # attempts begun, hedges included
        self.failures = 0  # in a row: since the client's last token
        self.tried: set[str] = set()
        self.failed: set[str] = set()  # of these, since the client's last token: others may have been restarted
        self.tokens: TokenIds = ()  # what the client has received
        self.is_text = False  # ... and whether any of it came as text
        self.stuck_on: set[str] = set()  # replicas that broke since the client's last token
        self.answered_500 = False  # ... and whether one of them lived to say so
        self._request = request
        self._policies = policies
        self._open: dict[str, float] = {}  # replica of each attempt under way -> when it began
        self._permits: list[tuple[str, Permit]] = []  # attempts the breakers have not heard about yet

    def begin(self, replica_id: str, now_s: float) -> None:
        """Record an attempt that is being sent now."""
        policies = self._policies
        self.sent += 1
        self.tried.add(replica_id)
        self._open[replica_id] = now_s
        if policies.progress is not None:
            policies.progress.sent(replica_id, now_s)
        if policies.breakers is not None and (permit := policies.breakers[replica_id].enter(now_s)) is not None:
            self._permits.append((replica_id, permit))

    def learn(self, result: AttemptResult, now_s: float) -> None:
        """Record a result and its losers, and tell every policy that learns from it."""
        self.results.append(result)
        # The order matters: `_end` fills `stuck_on`, which the budgets read; and breakers come last, because they count
        # only
        # failures that the ejector has blamed on a replica.
        for attempt in (*result.losers, result):
            self._end(attempt, now_s)
        self.failures += 1
        self._tell_budgets(result, now_s)
        blamed = self._blamed(result, now_s)
        if self._policies.breakers is not None:
            self._tell_breakers(result, blamed, now_s)

    def add_tokens(self, token_ids: TokenIds) -> None:
        """Record tokens that have reached the client."""
        if token_ids:
            self.tokens = joined(self.tokens, token_ids)
            self.failures = 0
            self.failed.clear()
            self.stuck_on.clear()
            self.answered_500 = False

    def release(self, now_s: float) -> None:
        """Release everything still held: the client left, or no replica could be blamed."""
        for replica_id, started_s in self._open.items():
            if self._policies.progress is not None:
                aborted = AttemptResult(replica_id, FinishReason.ABORT, started_s=started_s, ended_s=now_s)
                self._policies.progress.ended(aborted, now_s)
        for replica_id, permit in self._permits:
            if self._policies.breakers is not None:
                self._policies.breakers[replica_id].record(permit, None, now_s)

    @property
    def was_lost(self) -> bool:
        """Say whether the last attempt ended since its replica broke off or was not there: no answer, and no wait."""
        error = self.results[-1].error if self.results else None
        return isinstance(error, UpstreamError) and not isinstance(error, NoFirstToken)

    @property
    def is_poison(self) -> bool:
        """Say whether the request has broken enough replicas at one token not to be sent to yet another.

        Two are enough if one of them said 500. Two lost ones may have been killed one after the other by somebody else,
        the second before it had made a token, so then a third is asked.
        """
        return len(self.stuck_on) > (1 if self.answered_500 else 2)

    # --- telling ---------------------------------------------------------------------------------------------------

    def _end(self, attempt: AttemptResult, now_s: float) -> None:
        """Record the end of one attempt: a hedge's loser, or the one that counts."""
        self._open.pop(attempt.replica_id, None)
        self.add_tokens(attempt.token_ids)
        self.failed.add(attempt.replica_id)
        self.is_text = self.is_text or attempt.is_text
        if _broke(attempt):
            self.stuck_on.add(attempt.replica_id)
            self.answered_500 = self.answered_500 or isinstance(attempt.error, InternalError)
        if self._policies.progress is not None:
            self._policies.progress.ended(attempt, now_s)
        if (learner := self._policies.learner) is not None:
            ask_about(learner, self._request, lambda: learner.observe(attempt, now_s))

    def _tell_budgets(self, result: AttemptResult, now_s: float) -> None:
        budget, opinions = self._policies.budget, self._policies.second_opinions
        if (
            budget is not None
            and result.error is not None
            and may_retry(result.error)
            and not was_too_busy(result.error)
        ):
            budget.record(False, now_s)
        elif budget is not None and result.ok:
            budget.record(True, now_s)
        in_vain = isinstance(result.error, InternalError) and len(self.stuck_on) > 1
        if opinions is not None and (result.ok or in_vain):
            opinions.record(result.ok, now_s)

    def _blamed(self, result: AttemptResult, now_s: float) -> tuple[str, ...]:
        """Return the replicas that this result counts against; without an ejector, every replica that failed."""
        if self._policies.ejector is not None:
            return self._policies.ejector.record(self._request.request_id, result, now_s)
        return tuple(one.replica_id for one in (*result.losers, result) if is_suspicious(one))

    def _tell_breakers(self, result: AttemptResult, blamed: tuple[str, ...], now_s: float) -> None:
        """Settle the permits of replicas proven good or bad; the others stay open until the story ends."""
        assert self._policies.breakers is not None
        verdicts = dict.fromkeys(blamed, False)
        if is_success(result):
            verdicts[result.replica_id] = True
        for replica_id, permit in self._permits:
            if replica_id in verdicts:
                self._policies.breakers[replica_id].record(permit, verdicts[replica_id], now_s)
        self._permits = [held for held in self._permits if held[0] not in verdicts]


def _broke(attempt: AttemptResult) -> bool:
    """Say whether the request may be what broke this attempt: it was taken, and then something went wrong."""
    return is_suspicious(attempt) and not isinstance(attempt.error, Unreachable | NoFirstToken | DeadlineExceeded)


def joined(first: TokenIds, second: TokenIds) -> TokenIds:
    """Return both, concatenated; two ranges that meet stay a range."""
    if not first:
        return second
    if isinstance(first, range) and isinstance(second, range) and first.stop == second.start:
        return range(first.start, second.stop)
    return (*first, *second)
