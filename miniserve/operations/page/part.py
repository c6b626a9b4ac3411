"""The part that serves the page: its files, its token, and a stream of snapshots."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from miniserve.api.answered import AnsweredCall
from miniserve.api.event_stream import EventStream
from miniserve.errors import NotFound
from miniserve.operations.admin import AdminDoor
from miniserve.operations.page.samples import COLUMNS, PERIOD_S, PageSamples, Row
from miniserve.operations.page.viewers import Viewers
from miniserve.operations.part import DeskPart
from miniserve.operations.workplace import Workplace
from miniserve.types import FleetView

FIRST_EVENTS = 200  # that somebody who opens the page is told
TOKEN_PLACE = "{{token}}"
HEARTBEAT_S, SEND_TIMEOUT_S = 15.0, 30.0
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
# Nothing from elsewhere, nothing inline, in nobody's frame
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
# Of a replica's row in the status: what a tile shows
_SHOWN = (
    "replica_id", "state", "pid", "model", "region", "running", "queue_depth", "outstanding", "kv_used_fraction",
    "tokens_per_s", "busy_fraction", "restarts", "paced", "overrun_fraction", "report_age_s", "cold_start_s",
)  # fmt: skip


class PagePart(DeskPart):
    """Has no section of its own in the status: it shows everybody's."""

    name = "page"

    def __init__(self, work: Workplace) -> None:
        self._work = work
        self._door = AdminDoor(work.token)
        self._samples = PageSamples()
        self.viewers = Viewers(self._everything)
        self._run = secrets.token_hex(4)  # a page of another run must load itself anew: its token may be void
        self._files = _read_files()
        self._due_s = -math.inf
        self._told = 0  # number of the last event in a snapshot

    def tick(self, now_s: float, view: FleetView) -> None:
        if now_s < self._due_s:
            return
        self._due_s = now_s + PERIOD_S - 0.25  # turns come twice a second, give or take
        rate = self._work.recent.tokens_per_s(now_s)
        row = self._samples.take(now_s, self._work.wall_clock(), view, rate)
        if self.viewers.count:
            self.viewers.publish(self._snapshot(row))
        self._told = max((event.number for event in self._work.events.after(self._told)), default=self._told)

    def answered(self, call: AnsweredCall) -> None:
        self._samples.answered(self._work.fleet.clock(), call.ttft_s, call.failed)

    async def close(self) -> None:
        self.viewers.close()

    # --- what viewers are sent -------------------------------------------------------------------------------------

    def _snapshot(self, row: Row) -> str:
        events = [event.as_json() for event in self._work.events.after(self._told)]
        return _json({"run": self._run, "row": row, "events": events, "status": self._status()})

    def _everything(self) -> str:
        """Return what a page needs that has nothing yet."""
        events = [event.as_json() for event in self._work.events.after()[-FIRST_EVENTS:]]
        history = {"columns": COLUMNS, "rows": self._samples.rows()}
        return _json({"run": self._run, "history": history, "events": events, "status": self._status()})

    def _status(self) -> dict[str, Any]:
        status = self._work.status()
        rows = status.get("replicas")
        shown = [{key: row.get(key) for key in _SHOWN} for row in rows] if isinstance(rows, list) else []
        can_roll_out = self._work.part("rollout") is not None
        return {
            **status,
            "replicas": shown,
            "can_interfere": self._work.hands is not None,
            "can_roll_out": can_roll_out,
        }

    # --- routes ----------------------------------------------------------------------------------------------------

    def routes(self) -> Sequence[BaseRoute]:
        return [
            Route("/", self._page),
            Route("/page/events", self._events, methods=["GET"]),
            Route("/page/{file:path}", self._file),
        ]

    async def _page(self, request: HttpRequest) -> Response:
        self._door.check_page(request.headers)
        html, media_type = self._files["page.html"]
        text = html.replace(TOKEN_PLACE.encode(), self._work.token.encode())
        return Response(text, media_type=media_type, headers=HEADERS)

    async def _file(self, request: HttpRequest) -> Response:
        self._door.check_page(request.headers)
        name = request.path_params["file"]
        if name not in self._files or name == "page.html":
            raise NotFound(f"the page has no file {name!r}")
        content, media_type = self._files[name]
        return Response(content, media_type=media_type, headers=HEADERS)

    async def _events(self, request: HttpRequest) -> Response:
        self._door.check_page(request.headers)
        follow = self.viewers.follow()
        return EventStream(follow, heartbeat_s=HEARTBEAT_S, send_timeout_s=SEND_TIMEOUT_S, headers=HEADERS)


def _read_files() -> dict[str, tuple[bytes, str]]:
    """Return the page's files by their path below `static/`, each with its media type."""
    root, found = files(__package__) / "static", {}
    for folder, prefix in ((root, ""), (root / "uplot", "uplot/")):
        for file in folder.iterdir():
            if file.is_file():
                media_type = _TYPES.get(file.name.rpartition(".")[2], "text/plain")
                found[prefix + file.name] = (file.read_bytes(), media_type)
    return found


def _json(value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:  # some part's figure is nan: the others are still worth showing
        return json.dumps(_finite(value), separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
