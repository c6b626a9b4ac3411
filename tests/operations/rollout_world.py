"""A gateway's workplace without a gateway: a fleet that is a list, versions that are ready when a test says so."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from miniserve.api.access import AccessLog
from miniserve.api.answered import AnsweredCall
from miniserve.api.catalogue import Catalogue, merged_versions
from miniserve.api.errors import add_error_handlers
from miniserve.api.wiring import served_model
from miniserve.clock import ManualClock
from miniserve.errors import SetupError, UpstreamError
from miniserve.observe.metrics import ApiMetrics
from miniserve.operations.admin import TOKEN_HEADER, AdminDoor
from miniserve.operations.desk import Desk
from miniserve.operations.events import EventLog
from miniserve.operations.rollout import RolloutPart
from miniserve.policies.routing.router import ByModel, VersionPin
from miniserve.types import AttemptResult, FinishReason, FleetView, ReplicaState, ReplicaView, Request, Send, TokenEvent


@dataclass
class FakeFleet:
    """`said` is what the replicas answer to a copy; an error is raised instead."""

    clock: ManualClock
    states: dict[str, ReplicaState] = field(default_factory=dict)
    said: str | Exception = "hi"
    sent: list[Send] = field(default_factory=list)
    encode: Callable[[str], list[int]] = lambda text: list(text.encode())

    def view(self) -> FleetView:
        views = [ReplicaView(name, state, version=name.rpartition("-")[0]) for name, state in self.states.items()]
        return FleetView(tuple(views), self.clock())

    async def attempt(self, send: Send) -> AsyncGenerator[TokenEvent, None]:
        self.sent.append(send)
        if isinstance(self.said, Exception):
            raise self.said
        self.clock.advance(0.25)
        ids = tuple(self.encode(self.said))
        yield TokenEvent(send.request.request_id, ids[:1])
        yield TokenEvent(send.request.request_id, ids[1:], FinishReason.STOP)


@dataclass
class FakeVersions:
    fleet: FakeFleet
    folder: Path
    troubles: dict[str, str] = field(default_factory=dict)
    done: list[tuple[object, ...]] = field(default_factory=list)

    def files(self, name: str, source: str | None = None) -> Path:
        if name == "large@none":
            raise SetupError("there is no model 'large@none'")
        return self.folder

    def start_version(self, new: str, like: str, replicas: int, folder: Path) -> None:
        self.done.append(("start", new, like, replicas))
        self.fleet.states |= {f"{new}-{i}": ReplicaState.STARTING for i in range(replicas)}

    def retire_version(self, name: str) -> None:
        self.done.append(("retire", name))
        for replica_id in [one for one in self.fleet.states if one.startswith(f"{name}-")]:
            self.fleet.states[replica_id] = ReplicaState.DRAINING

    def trouble(self, name: str) -> str | None:
        return self.troubles.get(name)


class World:
    """`press` is the route, `run` some seconds of traffic at 20 requests a second, of which every answer is judged."""

    def __init__(
        self, folder: Path, state: Path | None = None, results: Path = Path("none"), now_s: float = 100.0
    ) -> None:
        self.fleet = FakeFleet(ManualClock(now_s))
        self.fleet.states = {f"large@1-{i}": ReplicaState.READY for i in range(2)}
        self.versions = FakeVersions(self.fleet, folder)
        models = {"1": served_model("large@1", folder, 64)}
        self.fleet.encode = models["1"].tokenizer.encode
        self.catalogue = Catalogue([merged_versions("large", models), served_model("plain", folder, 64)])
        self.pin, self.events = VersionPin(), EventLog(lambda: 0.0)
        self.failures: list[Any] = []
        self.desk = Desk(AdminDoor("secret"), state)
        self.work: Any = SimpleNamespace(
            fleet=self.fleet,
            versions=self.versions,
            catalogue=self.catalogue,
            pin=self.pin,
            events=self.events,
            backend=SimpleNamespace(on_failed=self.failures),
            keep=self.desk.keep,
        )
        self.part = RolloutPart(self.work, results)
        app = FastAPI()
        add_error_handlers(app)
        metrics = ApiMetrics(CollectorRegistry())
        self.desk.open([self.part], app)
        self.client = TestClient(
            AccessLog(app, metrics, self.fleet.clock), base_url="http://127.0.0.1", headers={TOKEN_HEADER: "secret"}
        )
        self.rng = np.random.default_rng(5)
        self.bad = {"large@1": 0.056, "large@2": 0.003, "large@bad": 0.2665}  # shares, as recorded evals say
        self.seen: list[tuple[Request, str]] = []  # who got which version
        self.asked = 0

    # --- a person ----------------------------------------------------------------------------------------------------

    def press(self, action: str, **fields: object) -> tuple[int, str]:
        """Return the status and the error's message."""
        answer = self.client.post("/admin/rollout", json={"action": action, **fields})
        return answer.status_code, "" if answer.status_code == 200 else answer.json()["error"]["message"]

    def start(self, new: str = "large@2", **fields: object) -> None:
        assert self.press("start", new=new, without_eval=True, **fields) == (200, "")

    @property
    def told(self) -> dict[str, Any]:
        """The section of the status."""
        section: Any = self.part.status()
        return dict(section)

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.events.after()]

    # --- the world's course ------------------------------------------------------------------------------------------

    def ready(self) -> None:
        """Let everything that starts be ready, and what drains be gone."""
        states = {name: state for name, state in self.fleet.states.items() if state is not ReplicaState.DRAINING}
        self.fleet.states = dict.fromkeys(states, ReplicaState.READY)

    def tick(self, seconds: float = 0.5) -> None:
        self.fleet.clock.advance(seconds)
        self.desk.tick(self.fleet.clock(), self.fleet.view())

    def run(self, seconds: float, *, judge: bool = True) -> None:
        for _ in range(round(2 * seconds)):
            for _ in range(10):
                self.ask(judge=judge)
            self.tick()

    def ask(self, model: str = "large", *, judge: bool = True, text: str = "hi") -> AnsweredCall | None:
        """Route one request as the gateway does and tell the desk of its answer."""
        self.asked += 1
        request = Request(f"q{self.asked}", model, (1, 2), session_key=f"user-{self.asked % 997}", tenant="acme")
        route = ByModel(self.pin).route(request, self.fleet.view())
        if not route.replicas:
            return None
        version, now_s = route.replicas[0].version, self.fleet.clock()
        self.seen.append((request, version))
        latency_s = float(self.rng.lognormal(-2.0, 0.3))
        first_s, ended_s = now_s + latency_s, now_s + 2 * latency_s
        call = AnsweredCall(
            f"a{self.asked}", request, now_s, ended_s, 200, version, None, "stop", first_s, 2, 0, 3, text
        )
        self.desk.answered(call)
        if judge and model == "large":
            self.desk.judged(call, bool(self.rng.random() >= self.bad[version]))
        return call

    def fail(self, replica_id: str, model: str = "large", error: Exception | None = None) -> None:
        """Tell of an attempt that failed, and of nothing else: another one saved the answer."""
        self.asked += 1
        request = Request(f"q{self.asked}", model, (1, 2))
        for listener in self.failures:
            listener(request, AttemptResult(replica_id, error=error or UpstreamError("broke")))
