"""Ask for replicas before they are needed: forecast demand for the time at which they would be ready.

    requests so far ── difference per interval ──> rate ── forecast, upper band ──> rate to expect
                                                                     / requests per second of one replica = replicas

The horizon must be at least as long as a cold start, or replicas arrive too late; the scenario reader and the driver
refuse a shorter one. A forecast may be wrong, so it can only add: what the present rate needs, or what a reactive
autoscaler wants, is the minimum (AWS calls this combining dynamic with predictive scaling).

Counts of independent arrivals scatter by their square root, however good the forecast, so the band is never narrower
than that. Knows views and the time it is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy

from miniserve.control.autoscaler import Autoscaler, ScalingAction, merge_actions, whole
from miniserve.control.forecast import Band, Forecast, Holt
from miniserve.errors import SetupError
from miniserve.types import FleetView, ScaleTo

_MOST_STEPS = 10_000  # of the forecast: it looks at each at every tick


class Predictive:
    """`replica_per_s`: the rate that one replica serves within the SLO (measure it: `simulate` a fixed fleet).

    `interval_s` is the forecast's step, `horizon_s` how far it looks ahead, `deviations` the width of the band, and
    `floor` a reactive autoscaler whose answer is the minimum.
    """

    def __init__(
        self,
        *,
        replica_per_s: float,
        forecast: Forecast | None = None,
        interval_s: float = 60.0,
        horizon_s: float = 300.0,
        deviations: float = 1.64,
        floor: Autoscaler | None = None,
    ) -> None:
        if not replica_per_s > 0 or not interval_s > 0:
            raise SetupError(f"replica_per_s ({replica_per_s:g}) and interval_s ({interval_s:g}) must be above 0")
        if not horizon_s >= interval_s:
            raise SetupError(f"horizon_s ({horizon_s:g}) must be at least one step, interval_s ({interval_s:g})")
        if not horizon_s / interval_s <= _MOST_STEPS:
            raise SetupError(
                f"horizon_s ({horizon_s:g}) must be at most {_MOST_STEPS} steps, interval_s ({interval_s:g})"
            )
        self.horizon_s = horizon_s
        self._replica_per_s = replica_per_s
        self._interval_s = interval_s
        self._deviations = deviations
        steps = math.ceil(horizon_s / interval_s)
        self._band = Band(deepcopy(forecast) if forecast else Holt(), steps=steps, deviations=deviations)
        self._floor = deepcopy(floor)
        self._begun: tuple[float, int] | None = None  # the current interval: its start, and the requests until then
        self._rate_per_s = 0.0  # in the last complete interval

    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        self._count(now_s, view.requests)
        predicted = [ScaleTo(whole(self._reckon_per_s() / self._replica_per_s))]
        return predicted if self._floor is None else merge_actions([predicted, self._floor.tick(now_s, view)])

    def _count(self, now_s: float, requests: int) -> None:
        """Close the interval once it is over. Ticks need not divide it: the rate is per time that really passed."""
        if self._begun is None:
            self._begun = now_s, requests
            return
        since_s, before = self._begun
        if now_s - since_s >= self._interval_s * (1 - 1e-9):
            self._rate_per_s = (requests - before) / (now_s - since_s)
            self._band.observe(self._rate_per_s)
            self._begun = now_s, requests

    def _reckon_per_s(self) -> float:
        """Return the rate to prepare for."""
        scatter_per_s = self._deviations * math.sqrt(self._rate_per_s / self._interval_s)
        return max(self._rate_per_s + scatter_per_s, self._band.upper())
