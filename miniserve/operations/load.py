"""The part that tells of the demo's own load, and lets a person turn it up or down.

POST /admin/load {"factor": 2}      0 (none) to 4 times what it sends by itself

The load is a process of its own, which operations do not know: a `LoadDial` lies between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from miniserve.errors import InvalidRequest
from miniserve.operations.bodies import admin_body
from miniserve.operations.part import DeskPart
from miniserve.operations.workplace import Workplace

MOST = 4.0  # times the load that the demo sends by itself
_COUNTS = ("sent", "answered", "failed", "graded", "good")
_WORDS = {0.0: "was switched off", 1.0: "is what it was at first again", 2.0: "was doubled", 0.5: "was halved"}


class LoadDial:
    """What the load last said of itself, and the factor that a person wants. `on_factor` passes that on."""

    def __init__(self) -> None:
        self.factor = 1.0
        self.on_factor: Callable[[float], None] = lambda factor: None
        self._rate_per_s = 0.0
        self._now = dict.fromkeys(_COUNTS, 0)
        self._before = dict.fromkeys(_COUNTS, 0)  # by processes that ended

    def turn(self, factor: float) -> None:
        self.factor = factor
        self.on_factor(factor)

    def told(self, said: Mapping[str, object]) -> None:
        """Note what the load says. Raises: LookupError, TypeError or ValueError for what is no count."""
        self._now = {name: int(str(said[name])) for name in _COUNTS}
        self._rate_per_s = float(str(said["rate_per_s"]))

    def ended(self) -> None:
        """Note that the process that sends it has ended; another counts from 0."""
        self._before = self._totals()
        self._now = dict.fromkeys(_COUNTS, 0)
        self._rate_per_s = 0.0

    def as_json(self) -> dict[str, object]:
        totals = self._totals()
        good, answered = totals.pop("good"), totals["answered"]
        share = round(good / answered, 4) if answered else None
        return {"rate_per_s": round(self._rate_per_s, 2), "factor": self.factor, **totals, "good_fraction": share}

    def _totals(self) -> dict[str, int]:
        return {name: self._before[name] + self._now[name] for name in _COUNTS}


class LoadPart(DeskPart):
    """Shows `dial`, and turns it."""

    name = "load"

    def __init__(self, dial: LoadDial, work: Workplace) -> None:
        self._dial = dial
        self._events = work.events

    def status(self) -> object:
        return self._dial.as_json()

    def routes(self) -> Sequence[BaseRoute]:
        return [Route("/admin/load", self._turn, methods=["POST"])]

    async def _turn(self, request: HttpRequest) -> Response:
        factor = _factor((await admin_body(request)).get("factor"))
        if factor != self._dial.factor:
            self._dial.turn(factor)
            self._events.say(
                "load", f"The load {_WORDS.get(factor, f'is {factor:g} times what it was at first')}, by hand."
            )
        return JSONResponse(self._dial.as_json())


def _factor(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
        raise InvalidRequest(f"factor is {value!r}; it must be a number from 0 to {MOST:g}", "factor")
    return float(value)
