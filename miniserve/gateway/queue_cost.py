"""What the fleet's queues cost in time: how long a client that was refused should wait before it asks again.

Those who wait, divided by how many were answered per second of late, is how long the queue takes to empty (Little's
law). Knows views and when answers ended. More than a minute is never said: a guess about that is worth nothing.
"""

from __future__ import annotations

from collections import defaultdict

from miniserve.errors import Overloaded
from miniserve.policies.recovery.retry_budget import SlidingSum
from miniserve.types import FleetView, ReplicaView

WINDOW_S = 30.0  # over which answers are counted
LEAST_S, MOST_S = 1.0, 60.0


class QueueCost:
    """Counts answers per replica. Use one for the whole fleet."""

    def __init__(self) -> None:
        self._answers: defaultdict[str, SlidingSum] = defaultdict(lambda: SlidingSum(WINDOW_S))

    def answered(self, replica_id: str, now_s: float) -> None:
        """Learn that the replica has answered a request in full."""
        self._answers[replica_id].add(1, now_s)

    def told(self, error: Exception, view: FleetView, now_s: float) -> Exception:
        """Return `error`; where it says that a queue is full, with the time that the shortest one takes to empty."""
        if type(error) is not Overloaded or error.code is not None:
            return error
        wait_s = min((self._emptied_s(replica, now_s) for replica in view.ready()), default=0.0)
        if wait_s <= (error.retry_after_s or LEAST_S):
            return error
        return Overloaded(error.message, error.param, error.code, wait_s)

    def _emptied_s(self, replica: ReplicaView, now_s: float) -> float:
        waiting = max(replica.queue_depth, replica.outstanding - replica.running, 0)
        answers = self._answers[replica.replica_id].total(now_s)
        return min(MOST_S, waiting * WINDOW_S / answers if answers else MOST_S * waiting)
