"""How many replicas? Autoscalers look at the fleet every few seconds and say what they want.

    Reactive        as many as bring the measured load per replica back to its target (the rule of Kubernetes' HPA)
    TargetTracking  requests in the fleet / target, averaged over a short while (Ray Serve)
    QueueBased      more while requests wait, fewer when hardly any do
    Scheduled       a fixed plan by time of day
    Combined        the most that any of several autoscalers wants
    Predictive      what demand will need once a replica ordered now is ready (`control.predictive`)

Starting replicas are counted in, or every tick during a cold start would ask for them again. None of these autoscalers
has bounds or patience: `control.steady` adds both to any autoscaler, including a user's own. Knows views and the time
it is told.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Literal, Protocol

from miniserve.errors import SetupError
from miniserve.types import Drain, FleetView, ReplicaState, ReplicaView, ScaleTo

ScalingAction = ScaleTo | Drain
LoadMetric = Literal["outstanding", "waiting", "running", "kv_used_fraction"]
DAY_S = 86_400.0
_ROUNDING = 1e-9  # 3 * (0.2 / 0.1) is a little more than 6


class Autoscaler(Protocol):
    """Called once per period. May keep state; must not look at a clock or change what it is shown."""

    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        """Return what to do now: usually one `ScaleTo`; an empty answer changes nothing."""
        ...


class Reactive:
    """Wants ceil(replicas * metric / target), unless metric / target is within `tolerance` of 1.

    When scaling up, a starting replica counts as one without load; when scaling down, it does not count. Source:
    Kubernetes, Horizontal Pod Autoscaler.
    """

    def __init__(self, *, target: float, metric: LoadMetric = "outstanding", tolerance: float = 0.1) -> None:
        if not target > 0 or not tolerance >= 0:
            raise SetupError(f"target ({target:g}) must be above 0, tolerance ({tolerance:g}) at least 0")
        self._target = target
        self._metric = metric
        self._tolerance = tolerance

    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        ready, starting = len(view.ready()), count(view, ReplicaState.STARTING)
        now = ready + starting
        if ready == 0:
            return [ScaleTo(now)]
        load = sum(load_by_metric(replica, self._metric) for replica in view.ready())
        ratio = load / (ready * self._target)
        if ratio > 1 and starting:
            ratio = load / (now * self._target)
            if ratio < 1:  # the starting ones will be enough
                return [ScaleTo(now)]
            ready = now
        return [ScaleTo(now if abs(ratio - 1) <= self._tolerance + _ROUNDING else whole(ready * ratio))]


class TargetTracking:
    """Wants the requests in the fleet, averaged over `look_back_s`, divided by how many one replica should have."""

    def __init__(self, *, target: float, look_back_s: float = 30.0) -> None:
        if not target > 0 or not look_back_s >= 0:
            raise SetupError(f"target ({target:g}) must be above 0, look_back_s ({look_back_s:g}) at least 0")
        self._target = target
        self._recent = RecentValues(look_back_s)

    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        self._recent.add(now_s, sum(replica.outstanding for replica in view.replicas))
        return [ScaleTo(whole(self._recent.mean() / self._target))]


class QueueBased:
    """Adds one replica for every `waiting_per_replica` requests that wait inside replicas.

    A queue shows only what is already late, and its length says little about how many replicas are needed: this one is
    here for comparison. When fewer requests wait, it shrinks the fleet until each replica runs at most `most_running`.
    """

    def __init__(self, *, waiting_per_replica: float, most_running: float) -> None:
        if not (waiting_per_replica > 0 and most_running > 0):
            raise SetupError(
                f"waiting_per_replica ({waiting_per_replica:g}) and most_running ({most_running:g}) must be above 0"
            )
        self._waiting_per_replica = waiting_per_replica
        self._most_running = most_running

    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        ready, now = view.ready(), wanted_now(view)
        more = int(sum(replica.queue_depth for replica in ready) / self._waiting_per_replica)
        if more > 0 or len(ready) < now:
            return [ScaleTo(max(now, len(ready) + more))]
        running = sum(replica.running for replica in ready)
        least = int(any(replica.outstanding or replica.queue_depth for replica in ready))  # an idle fleet needs none
        return [ScaleTo(min(now, max(least, whole(running / self._most_running))))]


class Scheduled:
    """A fixed number of replicas from each given time on, repeated every `every_s` (0: only once).

    `plan` holds pairs (seconds from the start of a period, replicas), in order. Until the first time in a period, the
    last entry applies; if the plan runs only once, the first.
    """

    def __init__(self, *, plan: Sequence[tuple[float, int]], every_s: float = DAY_S) -> None:
        times = [at_s for at_s, _ in plan]
        if not plan or times != sorted(times) or times[0] < 0 or any(replicas < 0 for _, replicas in plan):
            raise SetupError(f"plan needs times of 0 or more in order, and no negative replicas, not {list(plan)}")
        if not every_s >= 0 or (every_s > 0 and times[-1] >= every_s):
            raise SetupError(f"every_s ({every_s:g}) must be 0, or more than the last time of the plan, {times[-1]:g}")
        self._plan = tuple(plan)
        self._every_s = every_s

    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        time_s = now_s % self._every_s if self._every_s else now_s
        begun = [replicas for at_s, replicas in self._plan if at_s <= time_s]
        return [ScaleTo(begun[-1] if begun else self._plan[-1 if self._every_s else 0][1])]


class Combined:
    """Wants the most that any of `parts` wants; each part keeps its own state."""

    def __init__(self, *, parts: Sequence[Autoscaler]) -> None:
        if not parts:
            raise SetupError("parts is empty: name at least one autoscaler")
        self._parts = deepcopy(tuple(parts))

    @property
    def horizon_s(self) -> float | None:
        horizons = [horizon for part in self._parts if (horizon := horizon_s(part)) is not None]
        return min(horizons, default=None)

    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        return merge_actions(part.tick(now_s, view) for part in self._parts)


class RecentValues:
    """The values of the last `seconds`, including this instant's."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._items: deque[tuple[float, float]] = deque()

    def add(self, now_s: float, value: float) -> None:
        self._items.append((now_s, value))
        while self._items[0][0] < now_s - self.seconds:
            self._items.popleft()

    def values(self) -> list[float]:
        return [value for _, value in self._items]

    def mean(self) -> float:
        return sum(self.values()) / len(self._items)


def count(view: FleetView, state: ReplicaState) -> int:
    return sum(replica.state is state for replica in view.replicas)


def wanted_now(view: FleetView) -> int:
    """Return how many replicas are ready or starting: the number that `ScaleTo` sets."""
    return len(view.ready()) + count(view, ReplicaState.STARTING)


def load_by_metric(replica: ReplicaView, metric: LoadMetric) -> float:
    return float(replica.queue_depth if metric == "waiting" else getattr(replica, metric))


def whole(replicas: float) -> int:
    """Round up to whole replicas, forgiving rounding errors."""
    return math.ceil(replicas - _ROUNDING)


def merge_actions(answers: Iterable[Sequence[ScalingAction]]) -> list[ScalingAction]:
    """Return the answers of several autoscalers as one: the largest `ScaleTo`, and every other action."""
    actions = [action for answer in answers for action in answer]
    wanted = [action.replicas for action in actions if isinstance(action, ScaleTo)]
    others: list[ScalingAction] = [action for action in actions if not isinstance(action, ScaleTo)]
    return [*([ScaleTo(max(wanted))] if wanted else []), *others]


def horizon_s(autoscaler: object) -> float | None:
    """Return how far ahead `autoscaler` looks; None if it does not say."""
    seconds: float | None = getattr(autoscaler, "horizon_s", None)
    return seconds


def check_horizon(autoscaler: object, cold_start_s: float) -> None:
    """Refuse an autoscaler whose forecast ends before the replicas it asks for can be ready.

    Raises: SetupError. An autoscaler that does not say how far it looks is accepted.
    """
    horizon = horizon_s(autoscaler)
    if horizon is not None and horizon < cold_start_s:
        raise SetupError(
            f"horizon_s ({horizon:g}) is shorter than the cold start ({cold_start_s:g} s): a replica ordered "
            "when the forecast shows the need comes too late"
        )
