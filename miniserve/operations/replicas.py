"""The part that looks after replicas: it says what happens to them, and lets a person kill one or have it hang.

POST /admin/replicas/large@1-0 {"action": "kill"}      SIGKILL; the supervisor starts another process
POST /admin/replicas/large@1-0 {"action": "hang", "seconds": 10}      SIGSTOP, and SIGCONT after that time
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from miniserve.errors import Conflict, InvalidRequest
from miniserve.operations.bodies import admin_body
from miniserve.operations.events import EventLog
from miniserve.operations.fleet_story import FleetStory, Streams
from miniserve.operations.part import DeskPart
from miniserve.operations.workplace import Workplace
from miniserve.types import FleetView

HANG_S, LONGEST_HANG_S = 10.0, 120.0


class ReplicasPart(DeskPart):
    """Tells the fleet's story as events; `/admin/replicas/ID` is where a person interferes with it."""

    name = "replicas"

    def __init__(self, work: Workplace) -> None:
        self._work = work
        self._story = FleetStory()

    def tick(self, now_s: float, view: FleetView) -> None:
        backend = self._work.backend
        watch = backend.policies.progress
        silent = {} if watch is None else watch.silent_s(view.ready(), now_s)
        counts = Streams(backend.counts.total("resumed"), self._work.recent.failed)
        for told in self._story.watch(now_s, view, counts, self._work.processes(), silent):
            self._work.events.say("replica", told.text, told.level)

    def routes(self) -> Sequence[BaseRoute]:
        return [Route("/admin/replicas/{replica_id}", self._interfere, methods=["POST"])]

    async def _interfere(self, request: HttpRequest) -> Response:
        body = await admin_body(request)
        text = self.interfere(request.path_params["replica_id"], body)
        return JSONResponse({"done": text})

    def interfere(self, replica_id: str, body: Mapping[str, object]) -> str:
        """Do what `body` says, and return it in words. Raises: InvalidRequest, NotFound, Conflict."""
        hands, action = self._work.hands, body.get("action")
        if hands is None:
            raise Conflict("these replicas run elsewhere; this gateway can only use them")
        if action == "kill":
            hands.kill(replica_id)
            text = f"Somebody pressed Kill: the process of {replica_id} is ended at once."
        elif action == "hang":
            seconds = _seconds(body.get("seconds", HANG_S))
            hands.hang(replica_id, seconds)
            text = f"Somebody pressed Freeze: the process of {replica_id} is frozen for {seconds:g} s."
        else:
            raise InvalidRequest(f'action is {action!r}; it must be "kill" or "hang"', "action")
        self._work.events.say("person", text)
        return text


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST_HANG_S:
        raise InvalidRequest(f"seconds is {value!r}; it must be above 0 and at most {LONGEST_HANG_S:g}", "seconds")
    return float(value)


def say_size(events: EventLog, model: str, before: int, wanted: int, load: float) -> None:
    """Say that an autoscaler changes the number of a model's replicas. `load`: requests for each ready one."""
    verb = "adds" if wanted > before else "takes away"
    count = abs(wanted - before)
    replicas = "a replica" if count == 1 else f"{count} replicas"
    text = f"The autoscaler {verb} {replicas} of {model}: {wanted} instead of {before}"
    events.say("autoscaler", f"{text} (load: {load:.1f} requests for each that is ready).")
