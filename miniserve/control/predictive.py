"""Ask for replicas before they are needed: forecast the demand to the time at which they would be there.

    requests so far ── difference per interval ──> rate ── forecast, upper band ──> rate to reckon with
                                                                     / requests per second of one replica = replicas

The horizon has to be longer than a cold start, or what is asked for comes too late; the scenario reader and the driver
refuse one that is not. A forecast may be wrong, so it only ever adds: what the present rate needs, or what a reactive
autoscaler wants, is the least (AWS calls this dynamic scaling beside predictive scaling).

Counts of independent arrivals scatter by their square root whatever is forecast, so the band is never narrower than
that. Knows views and the time it is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy

from miniserve.control.autoscaler import Autoscaler, ScalingAction, merge_actions, whole
from miniserve.control.forecast import Band, Forecast, Holt
from miniserve.errors import SetupError
from miniserve.types import FleetView, ScaleTo


class Predictive:
    """`replica_per_s`: the rate that one replica serves within the SLO (measure it: `simulate` a fixed fleet).

    `interval_s` is the forecast's step, `horizon_s` how far it looks, `deviations` the width of the band, and `floor`
    the reactive autoscaler that it never goes below.
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
        self.horizon_s = horizon_s
        self._replica_per_s = replica_per_s
        self._interval_s = interval_s
        self._deviations = deviations
        steps = math.ceil(horizon_s / interval_s)
        self._band = Band(deepcopy(forecast) if forecast else Holt(), steps=steps, deviations=deviations)
        self._floor = deepcopy(floor)
        self._begun: tuple[float, int] | None = None  # of the present interval: its start, and the requests until then
        self._rate_per_s = 0.0  # of the last whole interval

    def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
        self._count(now_s, view.requests)
        predicted = [ScaleTo(whole(self._reckon_per_s() / self._replica_per_s))]
        return predicted if self._floor is None else merge_actions([predicted, self._floor.tick(now_s, view)])

    def _count(self, now_s: float, requests: int) -> None:
        """Close the interval when it is over. Ticks need not divide it: a rate is taken over the time that passed."""
        if self._begun is None:
            self._begun = now_s, requests
            return
        since_s, before = self._begun
        if now_s - since_s >= self._interval_s * (1 - 1e-9):
            self._rate_per_s = (requests - before) / (now_s - since_s)
            self._band.observe(self._rate_per_s)
            self._begun = now_s, requests

    def _reckon_per_s(self) -> float:
        """Return the rate to be ready for."""
        scatter_per_s = self._deviations * math.sqrt(self._rate_per_s / self._interval_s)
        return max(self._rate_per_s + scatter_per_s, self._band.upper())
