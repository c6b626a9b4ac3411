"""All parts of operations behind one gateway: who is told what, what is kept, and which routes there are.

A part that breaks is named in the log and the others go on: nothing here may cost a client its answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fastapi import FastAPI
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from starlette.requests import Request as HttpRequest
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from miniserve.api.answered import AnsweredCall
from miniserve.operations.admin import AdminDoor, kept_token
from miniserve.operations.part import DeskPart
from miniserve.operations.state_file import StateFile
from miniserve.types import FleetView

log = logging.getLogger(__name__)

ADMIN_PATH = "/admin/"


def desk_of(state_dir: Path | None) -> Desk:
    """Return a desk that keeps its states and its token in `state_dir`, or nowhere. Raises: SetupError."""
    return Desk(AdminDoor(None if state_dir is None else kept_token(state_dir)), state_dir)


class Desk(Collector):
    """Holds the parts. `tick` is a control loop of the fleet, `answered` is the edge's listener."""

    def __init__(self, door: AdminDoor, state_dir: Path | None) -> None:
        self.door = door
        self._state_dir = state_dir
        self._parts: dict[str, DeskPart] = {}
        self._files: dict[str, StateFile] = {}

    def open(self, parts: Sequence[DeskPart], app: FastAPI) -> None:
        """Let all parts take their places, and give `app` their routes."""
        for part in parts:
            self.add(part)
        self.add_routes(app)

    def part(self, name: str) -> DeskPart | None:
        return self._parts.get(name)

    def add(self, part: DeskPart) -> None:
        """Let a part take its place, with the state that it had before a restart."""
        self._parts[part.name] = part
        if self._state_dir is None:
            return
        file = self._files[part.name] = StateFile(self._state_dir / f"{part.name}.json")
        if (state := file.load()) is None:
            return
        try:
            part.restore(state)
        except (ValueError, TypeError, LookupError) as error:
            file.set_aside(None, error)

    # --- what parts are told ---------------------------------------------------------------------------------------

    def tick(self, now_s: float, view: FleetView) -> None:
        self._each(lambda part: part.tick(now_s, view))
        self.keep()

    def answered(self, call: AnsweredCall) -> None:
        self._each(lambda part: part.answered(call))

    def judged(self, call: AnsweredCall, good: bool) -> None:
        self._each(lambda part: part.judged(call, good))

    def keep(self) -> None:
        """Write down the states that have changed. Called each turn; call it too before answering who changed one."""
        for name, file in self._files.items():
            try:
                if (state := self._parts[name].state()) is not None:
                    file.save(state)
            except Exception:  # a full disk, say: serving goes on
                log.exception("the state of %s could not be kept", name)

    def status(self) -> dict[str, object]:
        """Return the parts' sections of `GET /status`."""
        sections: dict[str, object] = {}

        def add(part: DeskPart) -> None:
            if (section := part.status()) is not None:
                sections[part.name] = section

        self._each(add)
        return sections

    def collect(self) -> Iterator[Metric]:
        """Yield the parts' metrics for Prometheus."""
        for part in self._parts.values():
            try:
                yield from part.metrics()
            except Exception:  # a scrape without it is better than none
                log.exception("the metrics of %s broke", part.name)

    async def close(self) -> None:
        self.keep()
        for part in self._parts.values():
            try:
                await part.close()
            except Exception:
                log.exception("%s did not close", part.name)

    def _each(self, tell: Callable[[DeskPart], None]) -> None:
        for part in self._parts.values():
            try:
                tell(part)
            except Exception:  # one broken part must not stop the others
                log.exception("%s broke", part.name)

    # --- routes ----------------------------------------------------------------------------------------------------

    def add_routes(self, app: FastAPI) -> None:
        for part in self._parts.values():
            app.router.routes += self._guarded(part.routes())

    def _guarded(self, routes: Sequence[BaseRoute]) -> list[BaseRoute]:
        for route in routes:
            if isinstance(route, Route) and route.path.startswith(ADMIN_PATH):
                route.app = self._behind_the_door(route.app)
        return list(routes)

    def _behind_the_door(self, app: ASGIApp) -> ASGIApp:
        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            self.door.check(HttpRequest(scope).headers)
            await app(scope, receive, send)

        return guarded
