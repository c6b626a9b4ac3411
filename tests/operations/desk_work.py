"""A workplace without a gateway: a clock that a test sets, and parts that can find each other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from miniserve.api.answered import AnsweredCall
from miniserve.clock import ManualClock
from miniserve.operations.events import EventLog
from miniserve.operations.part import DeskPart
from miniserve.operations.settings import OperatorSettings
from miniserve.types import FleetView, ReplicaState, ReplicaView, Request

READY = FleetView((ReplicaView("r0", ReplicaState.READY, version="large@1"),))
NOBODY = FleetView((ReplicaView("r0", ReplicaState.DOWN, version="large@1"),))


class Work(SimpleNamespace):
    """Stands for a `Workplace`. `wall_s` is what the wall clock says."""

    def __init__(self, settings: OperatorSettings = OperatorSettings(), now_s: float = 100.0) -> None:  # noqa: B008  # frozen
        self.parts: dict[str, DeskPart] = {}
        self.wall_s = 1_000_000.0
        clock = ManualClock(now_s)
        super().__init__(
            fleet=SimpleNamespace(clock=clock),
            settings=settings,
            events=EventLog(lambda: self.wall_s),
            wall_clock=lambda: self.wall_s,
            part=self.parts.get,
        )

    def add(self, part: Any) -> Any:
        self.parts[part.name] = part
        return part

    def said(self) -> list[str]:
        return [event.text for event in self.events.after()]


def call(
    ended_s: float, *, status: int = 200, ttft_s: float | None = 0.1, model: str = "large@1", **more: Any
) -> AnsweredCall:
    """A call that began a second before `ended_s`; complete unless `status` says otherwise."""
    began_s = ended_s - 1.0
    first_s = None if ttft_s is None or status >= 500 else began_s + ttft_s
    request = more.pop("request", Request("r", model, (1, 2, 3), session_key=more.pop("user", None)))
    finish = "stop" if status == 200 else None
    fields = {"finish_reason": finish, "first_token_s": first_s, "completion_tokens": 8, **more}
    return AnsweredCall(f"id-{ended_s}", request, began_s, ended_s, status, model, **fields)
