"""Overload: give everyone a little less before some get nothing.

A ladder of measures, each kept while the ones above it are added: a smaller model, shorter answers, answers from the
cache, then no answers for batch work, then none for standard work. Interactive requests are never shed here.

An alert about a promise that is not kept (`operations.slo`) raises it too, rung by rung (`BurningBudget`).

It climbs as fast as the load demands; it comes down one rung at a time, after the load has stayed clearly lower (`gap`)
for `hold_s`. Without both it would oscillate: a measure lowers the load, and the lower load cancels the measure.

Knows the view of the fleet and the time it is told. A live gateway performs it (`gateway/degraded.py`) if its file has
the table that `Degradation` describes; the simulator does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import pairwise

from miniserve.errors import Overloaded, SetupError
from miniserve.types import FleetView, Priority, Request


class Rung(IntEnum):
    NORMAL = 0
    SMALL_MODEL = 1
    SHORT_ANSWER = 2
    CACHED_ANSWER = 3
    SHED_BATCH = 4
    SHED_STANDARD = 5


@dataclass(frozen=True, slots=True)
class SetRung:
    """Treat requests according to this rung from now on; `load` is the reason."""

    rung: Rung
    load: float


class Ladder:
    """Finds the right rung for the load. Load 1: every ready replica has as many requests as it is meant to run."""

    def __init__(
        self,
        *,
        capacity: float,  # requests that one replica should hold at a time, including waiting ones
        enter: Sequence[float] = (0.9, 1.2, 1.5, 2.0, 3.0),  # our choice: lateness starts at a queue of one batch
        gap: float = 0.2,
        hold_s: float = 30.0,
    ) -> None:
        if not capacity > 0:
            raise SetupError(f"capacity ({capacity}) must be above 0 requests per replica")
        if len(enter) != len(Rung) - 1 or any(a >= b for a, b in pairwise(enter)):
            raise SetupError(f"enter must be {len(Rung) - 1} rising loads, one per rung, not {list(enter)}")
        if not 0 < gap < enter[0] or not hold_s >= 0:
            raise SetupError(f"need 0 < gap < {enter[0]} (the first load) and hold_s >= 0, not {gap} and {hold_s}")
        self._capacity, self._enter, self._gap, self._hold_s = capacity, tuple(enter), gap, hold_s
        self._calm_since_s: float | None = None
        self.rung = Rung.NORMAL

    def tick(self, now_s: float, view: FleetView, least: Rung = Rung.NORMAL) -> list[SetRung]:
        """Return the change of rung that this load calls for, if any; `least`: what something else calls for."""
        load = load_of(view, self._capacity)
        wanted = max(least, sum(load >= border for border in self._enter))
        # Up at once, several rungs if need be; down only below the entry border *minus the gap*: at the border itself
        # the
        # measure's own effect would end it, and it would come on again.
        if wanted > self.rung:
            return self._move(wanted, load)
        if self.rung > least and load < self._enter[self.rung - 1] - self._gap:
            return self._calm(now_s, load)
        self._calm_since_s = None
        return []

    def _calm(self, now_s: float, load: float) -> list[SetRung]:
        if self._calm_since_s is None:
            self._calm_since_s = now_s
        return self._move(self.rung - 1, load) if now_s - self._calm_since_s >= self._hold_s else []

    def _move(self, rung: int, load: float) -> list[SetRung]:
        self.rung, self._calm_since_s = Rung(rung), None
        return [SetRung(self.rung, load)]


class BurningBudget:
    """What a broken promise calls for, whatever the load looks like: a rung, and one more for each `every_s` it lasts.

    Queues are one reason for late answers. Slow replicas and failures are others, which no load shows. It goes no
    further than refusing batch work, since an error budget that burns is no proof that less work would mend it.
    """

    def __init__(self, *, every_s: float = 30.0, most: Rung = Rung.SHED_BATCH) -> None:
        if not every_s > 0:
            raise SetupError(f"every_s ({every_s}) must be above 0 seconds")
        self._every_s = every_s
        self._most = most
        self._since_s: float | None = None

    def least(self, now_s: float, *, is_burning: bool) -> Rung:
        """Return the lowest rung that is allowed now."""
        if not is_burning:
            self._since_s = None
            return Rung.NORMAL
        if self._since_s is None:
            self._since_s = now_s
        return Rung(min(self._most, 1 + int((now_s - self._since_s) / self._every_s)))


def load_of(view: FleetView, capacity: float) -> float:
    """Return the ready replicas' requests divided by what they should hold; infinite if none is ready."""
    ready = view.ready()
    outstanding = sum(max(replica.outstanding, replica.running + replica.queue_depth) for replica in ready)
    return outstanding / (capacity * len(ready)) if ready else math.inf


@dataclass(frozen=True, slots=True)
class Treatment:
    """How a request is to be served: what is left of what it asked for."""

    request: Request
    cache_first: bool = False  # take an older answer to the same question, if there is one
    measures: tuple[str, ...] = ()  # what was taken away, in words for a header: it is never done in silence


def treat(
    request: Request, rung: Rung, *, small_model: str | None, max_tokens: int, retry_after_s: float = 5.0
) -> Treatment:
    """Return how to serve a request on this rung; `small_model` None: it keeps the model that it asked for.

    Raises: Overloaded if the rung sheds the request's class. SetupError if `max_tokens` is below 1.
    """
    if max_tokens < 1:
        raise SetupError(f"max_tokens ({max_tokens}) of a short answer must be at least 1")
    if rung >= _SHED.get(request.priority, math.inf):
        name = request.priority.name.lower()
        raise Overloaded(f"overloaded: {name} requests must wait until it is over", retry_after_s=retry_after_s)
    measures: list[str] = []
    if rung >= Rung.SMALL_MODEL and small_model is not None and small_model != request.model:
        request = replace(request, model=small_model)
        measures.append("small-model")
    if rung >= Rung.SHORT_ANSWER and request.sampling.max_tokens > max_tokens:
        least = min(request.sampling.min_tokens, max_tokens)
        request = replace(request, sampling=replace(request.sampling, max_tokens=max_tokens, min_tokens=least))
        measures.append("short-answer")
    return Treatment(request, rung >= Rung.CACHED_ANSWER, tuple(measures))


_SHED = {Priority.BATCH: Rung.SHED_BATCH, Priority.STANDARD: Rung.SHED_STANDARD}


@dataclass(frozen=True, slots=True)
class Degradation:
    """The table `[degradation]`: without it, nothing of this happens."""

    capacity: float  # requests that one replica should hold at a time, including waiting ones
    smaller: Mapping[str, str] = field(default_factory=dict)  # large model -> the smaller one that may stand in for it
    max_tokens: int = 64  # of a short answer
    retry_after_s: float = 5.0  # what who is shed is told
    enter: tuple[float, ...] = (0.9, 1.2, 1.5, 2.0, 3.0)
    gap: float = 0.2
    hold_s: float = 30.0

    def __post_init__(self) -> None:
        """Raises: SetupError for settings that no ladder could have."""
        self.ladder()
        if self.max_tokens < 1:
            raise SetupError(f"max_tokens ({self.max_tokens}) of a short answer must be at least 1")
        if not 0 < self.retry_after_s < math.inf:
            raise SetupError(f"retry_after_s ({self.retry_after_s:g}) must be above 0 and finite")
        if any(large == small for large, small in self.smaller.items()):
            raise SetupError("smaller: no model is smaller than itself")
        if pins := [large for large in self.smaller if "@" in large]:
            raise SetupError(f"smaller: {pins[0]} is a version, and who asks for a version gets it; name a model")

    def ladder(self) -> Ladder:
        """Return a ladder at its foot."""
        return Ladder(capacity=self.capacity, enter=self.enter, gap=self.gap, hold_s=self.hold_s)
