"""Bounds and patience around any autoscaler, so that one quiet minute does not shrink the fleet.

    the autoscaler's number ── + warm pool ── bounds ── stabilisation ── consolidation check ──> ScaleTo

**Stabilisation**: the fleet shrinks to the most that was wanted in the last `down_after_s`, and grows to the least that
was wanted in the last `up_after_s` (0: at once). Too many replicas cost money for a few minutes; too few cost a cold
start. The maximum of a few quiet minutes is soon exceeded, so `slack` more replicas than that are kept: without them, a
fleet at steady load went up, down and up again within ten minutes. **Consolidation check**: before one of N replicas is
removed, the others' new load is worked out: N/(N-1) times the present one. If that came close to the load at which they
are too slow, the removal would have to be undone at once.

Source: Kubernetes, HPA behaviour (300 s down, 0 s up); the check as in NVIDIA Dynamo's planner (0.8 of the limit).
Knows views and the time it is told.
"""

from __future__ import annotations

from collections.abc import Sequence

from miniserve.control.autoscaler import Autoscaler, RecentValues, ScalingAction, horizon_s, wanted_now
from miniserve.errors import SetupError
from miniserve.types import FleetView, ScaleTo

MARGIN = 0.8  # the share of `most_outstanding` that the remaining replicas may reach


class Steady:
    """See the module docstring. `warm_pool` extra replicas are kept: ready, paid for, and used like the rest.

    `most_outstanding`: the number of requests at which one replica becomes too slow; None skips the check.
    """

    def __init__(
        self,
        autoscaler: Autoscaler,
        *,
        min_replicas: int = 1,
        max_replicas: int = 100,
        warm_pool: int = 0,
        down_after_s: float = 300.0,
        up_after_s: float = 0.0,
        slack: int = 0,
        most_outstanding: float | None = None,
    ) -> None:
        if not 0 <= min_replicas <= max_replicas:
            raise SetupError(
                f"min_replicas ({min_replicas}) must be at least 0 and at most max_replicas ({max_replicas})"
            )
        if min(warm_pool, slack) < 0 or not min(down_after_s, up_after_s) >= 0:
            raise SetupError("warm_pool, slack, down_after_s and up_after_s must be at least 0")
        self._autoscaler = autoscaler
        self._bounds = min_replicas, max_replicas
        self._warm_pool = warm_pool
        self._for_down, self._for_up = RecentValues(down_after_s), RecentValues(up_after_s)
        self._slack = slack
        self._most_outstanding = most_outstanding
        self._requests = 0
        self._has_ticked = False

    @property
    def horizon_s(self) -> float | None:
        return horizon_s(self._autoscaler)

    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        asked = self._autoscaler.tick(now_s, view)
        now, has_news, self._requests = wanted_now(view), view.requests > self._requests, view.requests
        others = [action for action in asked if not isinstance(action, ScaleTo)]
        wanted = [action.replicas for action in asked if isinstance(action, ScaleTo)]
        wishes = max(wanted, default=now) + (self._warm_pool if wanted else 0)
        if not wishes and has_news:
            wishes = 1  # an empty fleet shows no load, but a request has come
        return [ScaleTo(self._steadied(now_s, now, self._within(wishes), view)), *others]

    def _within(self, replicas: int) -> int:
        least, most = self._bounds
        return min(max(replicas, least), most)

    def _steadied(self, now_s: float, now: int, wanted: int, view: FleetView) -> int:
        if not self._has_ticked:  # the initial fleet counts as wanted, or the first tick would shrink it
            self._has_ticked = True
            for window in (self._for_down, self._for_up):
                if window.seconds > 0:
                    window.add(now_s, now)
        self._for_down.add(now_s, wanted)
        self._for_up.add(now_s, wanted)
        # Growing needs agreement over the whole window (its minimum), and so does shrinking (its maximum): each is the
        # answer
        # that no moment in the window contradicts.
        up, down = int(min(self._for_up.values())), int(max(self._for_down.values())) + self._slack
        if up > now:
            return self._within(up)
        return self._within(self._consolidated(down, now, view) if down < now else now)

    def _consolidated(self, down: int, now: int, view: FleetView) -> int:
        """Return the smallest number from `down` to `now` that carries the present load with a margin."""
        if self._most_outstanding is None:
            return down
        outstanding = sum(replica.outstanding for replica in view.ready())
        while down < now and outstanding > down * MARGIN * self._most_outstanding:
            down += 1
        return down
