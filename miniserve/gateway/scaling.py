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
    """Add it to `fleet` as a tick. Scales the replicas called `prefix` and a number; see `control.scaling`."""

    def __init__(
        self,
        fleet: Fleet,
        autoscaler: Autoscaler,
        crew: Crew,
        prefix: str,
        *,
        period_s: float,
        requests: Callable[[], int],
    ) -> None:
        def view() -> FleetView:
            return replace(fleet.view(), requests=requests())

        self._scaler = Scaler(autoscaler, crew, prefix, view, fleet.clock())
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
        before = self.sizes[-1]
        try:
            self._scaler.tick(now_s)
        except PolicyError as error:
            log.error("%s; the number of replicas stays as it is", error)
        if (size := self.sizes[-1]) is not before:
            log.info("autoscaler: %d ready, %d starting, %d draining", size.ready, size.starting, size.draining)
