"""The live autoscaler: `control.scaling` as a control loop of the fleet, once per period.

What an autoscaler asks for is carried out by processes that start and drain in the background (`processes.pools`), so
a tick never waits. One that breaks its contract is named in the log, and the fleet keeps its size.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace

from miniserve.control.autoscaler import Autoscaler
from miniserve.control.scaling import Crew, Scaler, Size
from miniserve.errors import PolicyError
from miniserve.gateway.fleet import Fleet
from miniserve.types import FleetView

log = logging.getLogger(__name__)


class LiveScaling:
    """Add it to `fleet` as a tick. Scales the replicas called `prefix` and a number; see `control.scaling`.

    A function tells a prefix that changes: when another version takes a pool's place, that one is scaled from then on.
    `on_wanted` is told when another size is wanted than there is: both, and the requests for each ready replica.
    """

    def __init__(
        self,
        fleet: Fleet,
        autoscaler: Autoscaler,
        crew: Crew,
        prefix: str | Callable[[], str],
        *,
        period_s: float,
        requests: Callable[[], int],
        on_wanted: Callable[[int, int, float], None] = lambda before, wanted, load: None,
    ) -> None:
        def view() -> FleetView:
            return replace(fleet.view(), requests=requests())

        self._prefix = prefix if callable(prefix) else lambda: prefix
        self._scaler = Scaler(autoscaler, crew, self._prefix(), view, fleet.clock())
        self._on_wanted = on_wanted
        self._period_s = period_s
        self._due_s = fleet.clock() + period_s

    @property
    def sizes(self) -> list[Size]:
        """How the pool's size has changed."""
        return self._scaler.sizes

    def __call__(self, now_s: float, view: FleetView) -> None:
        if now_s < self._due_s:
            return
        self._due_s += self._period_s * (1 + math.floor((now_s - self._due_s) / self._period_s))
        self._scaler.follow(self._prefix())
        before = self.sizes[-1]
        try:
            self._scaler.tick(now_s)
        except PolicyError as error:
            log.error("%s; the number of replicas stays as it is", error)
        if (size := self.sizes[-1]) is not before:
            log.info("autoscaler: %d ready, %d starting, %d draining", size.ready, size.starting, size.draining)
            if size.wanted != before.wanted:
                self._on_wanted(before.wanted, size.wanted, self._load(view))

    def _load(self, view: FleetView) -> float:
        ready = [one for one in view.ready() if one.replica_id.startswith(self._prefix())]
        return sum(one.outstanding for one in ready) / max(1, len(ready))
