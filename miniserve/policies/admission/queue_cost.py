"""What the fleet's queues cost in time: how long a client that was refused should wait before it asks again.

Those who wait, divided by how many were answered per second of late, is how long the queue takes to empty (Little's
law). Knows views and when answers ended; the estimate is kept between a second, since nobody can come back sooner to
any use, and a minute, since a guess about more is worth nothing.
"""

from __future__ import annotations

from miniserve.errors import Overloaded, SetupError
from miniserve.policies.recovery.retry_budget import SlidingSum
from miniserve.types import FleetView, ReplicaView


class QueueCost:
    """Counts answers per replica. Use one for the whole fleet."""

    def __init__(self, *, window_s: float = 30.0, least_s: float = 1.0, most_s: float = 60.0) -> None:
        if window_s <= 0 or not 0 <= least_s <= most_s:
            raise SetupError(
                f"window_s ({window_s}) must be above 0, and 0 <= least_s ({least_s}) <= most_s ({most_s})"
            )
        self._window_s = window_s
        self._least_s = least_s
        self._most_s = most_s
        self._answers: dict[str, SlidingSum] = {}

    def answered(self, replica_id: str, now_s: float) -> None:
        """Learn that the replica has answered a request in full."""
        if replica_id not in self._answers:
            self._answers[replica_id] = SlidingSum(self._window_s)
        self._answers[replica_id].add(1, now_s)

    def wait_s(self, view: FleetView, now_s: float) -> float:
        """Return how long the shortest queue of the ready replicas takes to empty."""
        return min((self._emptied_s(replica, now_s) for replica in view.ready()), default=self._least_s)

    def told(self, error: Exception, view: FleetView, now_s: float) -> Exception:
        """Return `error`, or where it says that a queue is full, the same with this estimate for the client."""
        if type(error) is not Overloaded or error.code is not None:
            return error
        wait_s = self.wait_s(view, now_s)
        if wait_s <= (error.retry_after_s or self._least_s):
            return error
        return Overloaded(error.message, error.param, error.code, wait_s)

    def _emptied_s(self, replica: ReplicaView, now_s: float) -> float:
        waiting = max(replica.queue_depth, replica.outstanding - replica.running)
        answers = self._answers[replica.replica_id].total(now_s) if replica.replica_id in self._answers else 0
        if waiting <= 0:
            return self._least_s
        return min(self._most_s, max(self._least_s, waiting * self._window_s / answers)) if answers else self._most_s
