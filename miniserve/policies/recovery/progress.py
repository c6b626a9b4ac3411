"""Forward-progress health: a replica that has work but produces no tokens is suspect, whatever its probes say.

When an engine hangs, its HTTP server goes on answering "healthy". Tokens cannot be faked. Two signs make a suspect:

- *stalled*: it has outstanding requests, and for `stall_s` none of them has produced a token or ended;
- *missing*: `misses` attempts in a row ended without a first token, and without a step of the replica since.

A suspect gets no ordinary traffic, only one request at a time as a *trial*, so that it can come back; a single token
clears it. Trials are offered explicitly, because a balancer would never choose a replica whose stuck requests make it
look busy. What waits there already is cut off after `move_s` and goes on elsewhere (`silent_s`): a process that hangs
may hold its connections open for ever.

**Waiting is not failing.** A limit on the first token asks here before it cuts an attempt off (`wait_on_s`). While the
replica's steps go on and nobody who came much later has been served before it, the attempt waits in a queue that moves:
to repeat it elsewhere would throw its place and its prefill away, and do so just when the fleet has no time to spare.

Knows when attempts began, produced tokens, and ended. A driver that cannot report single tokens can report probes that
saw some (`observe`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from miniserve.errors import DeadlineExceeded, NoFirstToken, SetupError
from miniserve.types import AttemptResult, ReplicaView

_LEAST_WAIT_S = 0.1  # news comes with probes: asking more often would learn nothing


@dataclass(slots=True)
class _Replica:
    outstanding: int = 0
    progress_s: float = 0.0  # the last token or end of an attempt; if the replica was idle, when its next attempt began
    served_s: float = 0.0  # when the latest attempt began of those that have brought a token
    misses: int = 0  # in a row
    steps: int = 0  # as of the last probe
    trial_s: float | None = None  # when the current trial began
    next_trial_s: float = 0.0


class ProgressWatch:
    """Watches for replicas that make no progress. Use one for the whole fleet."""

    def __init__(
        self,
        *,
        stall_s: float = 5.0,  # longer than any step or prefill chunk: a false suspicion lasts until the next token
        move_s: float | None = None,  # four fifths of `stall_s`, unless said: to move in error costs a prefill only
        misses: int = 2,
        trial_interval_s: float = 5.0,  # like a breaker's opening
    ) -> None:
        move_s = 0.8 * stall_s if move_s is None else move_s
        if stall_s <= 0 or move_s <= 0 or misses < 1 or trial_interval_s < 0:
            raise SetupError(
                f"a progress watch needs stall_s ({stall_s}) and move_s ({move_s}) > 0, misses ({misses}) >= 1 "
                f"and trial_interval_s ({trial_interval_s}) >= 0"
            )
        self.stall_s = stall_s
        self.move_s = move_s
        self._misses = misses
        self._trial_interval_s = trial_interval_s
        self._replicas: dict[str, _Replica] = {}

    # --- events ----------------------------------------------------------------------------------------------------

    def sent(self, replica_id: str, now_s: float) -> None:
        """Learn that an attempt has begun."""
        replica = self._replicas.setdefault(replica_id, _Replica())
        if replica.outstanding == 0:
            replica.progress_s = max(replica.progress_s, now_s)
        replica.outstanding += 1

    def progressed(self, replica_id: str, now_s: float) -> None:
        """Learn that the replica produced a token at `now_s`; the news may come late or out of order."""
        replica = self._replicas.setdefault(replica_id, _Replica())
        if now_s >= replica.progress_s:
            replica.progress_s = now_s
            replica.misses = 0

    def observe(self, replicas: Sequence[ReplicaView]) -> None:
        """Learn from the whole fleet's probes: a replica whose step count has changed was making progress when probed.

        A replica that is no longer listed, and has no outstanding requests of ours, is forgotten.
        """
        for gone in self._replicas.keys() - {view.replica_id for view in replicas}:
            if self._replicas[gone].outstanding == 0:
                del self._replicas[gone]
        for view in replicas:
            replica = self._replicas.setdefault(view.replica_id, _Replica())
            if view.steps != replica.steps:
                replica.steps = view.steps
                self.progressed(view.replica_id, view.as_of_s)

    def ended(self, result: AttemptResult, now_s: float) -> None:
        """Learn how an attempt (not its losers) ended, in whatever way."""
        replica = self._replicas.setdefault(result.replica_id, _Replica())
        replica.outstanding = max(0, replica.outstanding - 1)
        if replica.trial_s is not None and result.started_s >= replica.trial_s:
            replica.trial_s = None
        if result.first_token_s is not None:
            replica.served_s = max(replica.served_s, result.started_s)
            self.progressed(result.replica_id, result.ended_s if result.ok else result.first_token_s)
        elif (
            isinstance(result.error, DeadlineExceeded) and result.started_s < replica.progress_s > now_s - self.stall_s
        ):
            pass  # it waited in a queue that moves, which says nothing against the replica
        elif isinstance(result.error, NoFirstToken | DeadlineExceeded):  # it waited in vain
            replica.misses += 1

    def forget(self, replica_id: str) -> None:
        """Drop everything about a replica that has left the fleet or restarted."""
        self._replicas.pop(replica_id, None)

    # --- queries from dispatch -------------------------------------------------------------------------------------

    def suspects(self, now_s: float) -> frozenset[str]:
        """Return the replicas that have work but make no progress."""
        return frozenset(id_ for id_, replica in self._replicas.items() if self._is_suspect(replica, now_s))

    def silent_s(self, replicas: Sequence[ReplicaView], now_s: float) -> Mapping[str, float]:
        """Return which replicas have been silent for `move_s` and more, and how long; none if there is nowhere to go.

        `replicas`: those that may get work. Where all of them are silent, the trouble is probably ours.
        """
        silent = {id_: now_s - one.progress_s for id_, one in self._replicas.items() if one.outstanding > 0}
        silent = {id_: silent_s for id_, silent_s in silent.items() if silent_s >= self.move_s}
        return silent if any(view.replica_id not in silent for view in replicas) else {}

    def admitted(self, replicas: Sequence[ReplicaView], now_s: float) -> tuple[ReplicaView, ...]:
        """Return `replicas` without the suspects, or all of them if all are suspect."""
        suspects = self.suspects(now_s)
        if not suspects:
            return tuple(replicas)
        return tuple([view for view in replicas if view.replica_id not in suspects]) or tuple(replicas)

    def wait_on_s(self, replica_id: str, started_s: float, patience_s: float, now_s: float) -> float | None:
        """Return how much longer an attempt that began at `started_s` may wait for its first token; None: no longer.

        It may while the replica has made progress within `patience_s`, and has not yet brought a token of an attempt
        that began so much later: then the place in the queue does not move. (Of a lower class, an attempt is overtaken
        by those who come some seconds after it. That is no reason to begin anew at the back of another queue.)
        """
        replica = self._replicas.get(replica_id)
        if replica is None or replica.served_s >= started_s + patience_s:
            return None
        until_s = replica.progress_s + patience_s
        return max(until_s - now_s, _LEAST_WAIT_S) if until_s > now_s else None

    def trial(self, replicas: Sequence[ReplicaView], now_s: float) -> str | None:
        """Return a suspect that should prove itself with the next request, which the caller then sends and reports."""
        for id_ in sorted(view.replica_id for view in replicas):
            replica = self._replicas.get(id_)
            if replica is None or not self._is_suspect(replica, now_s):
                continue
            if replica.trial_s is None and now_s >= replica.next_trial_s:
                replica.trial_s = now_s
                replica.next_trial_s = now_s + self._trial_interval_s
                return id_
        return None

    def _is_suspect(self, replica: _Replica, now_s: float) -> bool:
        stalled = replica.outstanding > 0 and now_s - replica.progress_s >= self.stall_s
        return stalled or replica.misses >= self._misses


def left_out(replicas: Sequence[ReplicaView], kept: tuple[ReplicaView, ...]) -> tuple[ReplicaView, ...]:
    """Return the replicas that are not among `kept`, which has the others in the same order.

    One walk past both, and by identity: comparing views by value would cost the square of the fleet.
    """
    if len(kept) == len(replicas):
        return ()
    rest = iter(kept)
    next_kept, others = next(rest, None), []
    for view in replicas:
        if view is next_kept:
            next_kept = next(rest, None)
        else:
            others.append(view)
    return tuple(others)
