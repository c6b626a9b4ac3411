"""The shape of everything that works at the desk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import Metric
from starlette.routing import BaseRoute

from miniserve.api.answered import AnsweredCall
from miniserve.types import FleetView


class DeskPart:
    """One concern of operations. This one does nothing: a part overrides what it needs.

    All methods are called on the event loop and return at once; what takes longer is a task of the part's own.
    """

    name = ""  # its section in `GET /status`, and its file among the kept states

    def tick(self, now_s: float, view: FleetView) -> None:
        """Take a turn: twice a second, with the fleet's monotonic time."""

    def answered(self, call: AnsweredCall) -> None:
        """Learn how a call of a client ended."""

    def judged(self, call: AnsweredCall, good: bool) -> None:
        """Learn what a client thought of an answer, once for each answer."""

    def status(self) -> object:
        """Return the section of `GET /status` in JSON's types; None: no section."""
        return None

    def state(self) -> object:
        """Return what must survive a restart, in JSON's types; None: nothing."""
        return None

    def restore(self, state: object) -> None:
        """Go on from what `state` returned before a restart.

        Raises: ValueError, TypeError or LookupError for a state that is none of this part's; it is then left aside.
        """

    def metrics(self) -> Iterable[Metric]:
        """Return its metrics for Prometheus, made anew for each scrape."""
        return ()

    def routes(self) -> Sequence[BaseRoute]:
        """Return its routes; those below /admin/ are behind `admin.AdminDoor`."""
        return ()

    async def close(self) -> None:
        """End what it has running. Called once, when the gateway has drained."""
