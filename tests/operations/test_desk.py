"""The desk: parts are told, kept over a restart, and kept apart; its door opens to the token only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from miniserve.api.access import AccessLog
from miniserve.api.errors import add_error_handlers
from miniserve.errors import SetupError
from miniserve.observe.metrics import ApiMetrics
from miniserve.operations.admin import TOKEN_FILE, TOKEN_HEADER, AdminDoor, kept_token
from miniserve.operations.desk import Desk
from miniserve.operations.events import EventLog
from miniserve.operations.part import DeskPart
from miniserve.operations.state_file import StateFile
from miniserve.types import FleetView


class Counting(DeskPart):
    name = "counting"

    def __init__(self) -> None:
        self.turns = 0

    def tick(self, now_s: float, view: FleetView) -> None:
        self.turns += 1

    def status(self) -> object:
        return {"turns": self.turns}

    def state(self) -> object:
        return self.turns

    def restore(self, state: Any) -> None:
        self.turns = int(state["turns"]) if isinstance(state, dict) else int(state)

    def routes(self) -> list[Route]:
        async def press(_: HttpRequest) -> Response:
            self.turns = 0
            return JSONResponse({})

        return [Route("/admin/press", press, methods=["POST"]), Route("/look", press)]


class Broken(DeskPart):
    name = "broken"

    def tick(self, now_s: float, view: FleetView) -> None:
        raise RuntimeError("broken")

    status = state = tick  # type: ignore[assignment]


def desk_with(state_dir: Path | None, *parts: DeskPart) -> Desk:
    desk = Desk(AdminDoor("secret"), state_dir)
    for part in parts:
        desk.add(part)
    return desk


def test_a_part_goes_on_after_a_restart(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    for turn in range(3):
        desk_with(tmp_path, first).tick(turn, FleetView())
    desk_with(tmp_path, second)

    assert second.turns == first.turns > 0


def test_a_broken_part_costs_the_others_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counting = Counting()
    desk = desk_with(tmp_path, Broken(), counting)
    desk.tick(0.0, FleetView())

    assert counting.turns == 1
    assert desk.status() == {"counting": {"turns": 1}}
    assert json.loads((tmp_path / "counting.json").read_text()) == 1
    assert "broken broke" in caplog.text


@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda text: '"no state of ours"'])
def test_a_damaged_state_is_set_aside_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any) -> None:
    path = tmp_path / "counting.json"
    path.write_text(damage('{"turns": 7}'))
    counting = Counting()
    desk_with(tmp_path, counting)

    assert counting.turns == 0
    assert "cannot be read" in caplog.text
    assert (tmp_path / "counting.damaged").exists()
    assert not path.exists()


def test_a_state_cut_in_half_falls_back_to_the_one_before(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "it.json")
    file.save({"n": 1})
    file.save({"n": 2})
    path = tmp_path / "it.json"
    path.write_text(path.read_text()[:4])

    assert StateFile(path).load() == {"n": 1}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({TOKEN_HEADER: "secret"}, 200),
        ({TOKEN_HEADER: "secret", "origin": "http://127.0.0.1:80"}, 200),
        ({}, 401),
        ({TOKEN_HEADER: "sekret"}, 401),
        ({TOKEN_HEADER: "secret", "origin": "https://evil.example"}, 403),
        ({TOKEN_HEADER: "secret", "origin": "null"}, 403),
        ({TOKEN_HEADER: "secret", "host": "evil.example"}, 403),
    ],
)
def test_only_our_own_page_and_programs_with_the_token_may_press(headers: dict[str, str], status: int) -> None:
    app = FastAPI()
    add_error_handlers(app)
    app.add_middleware(AccessLog, metrics=ApiMetrics(CollectorRegistry()), clock=lambda: 0.0)
    counting = Counting()
    counting.turns = 5
    desk_with(None, counting).add_routes(app)
    client = TestClient(app, base_url="http://127.0.0.1:80", headers={"host": "127.0.0.1:80"})
    answer = client.post("/admin/press", headers=headers)

    assert answer.status_code == status
    assert counting.turns == (0 if status == 200 else 5)
    assert client.get("/look").status_code == 200


def test_the_token_is_the_owners_alone_and_stays(tmp_path: Path) -> None:
    token = kept_token(tmp_path)

    assert token == kept_token(tmp_path)
    assert len(token) >= 20
    assert (tmp_path / TOKEN_FILE).stat().st_mode & 0o077 == 0
    (tmp_path / TOKEN_FILE).write_text("")
    with pytest.raises(SetupError, match="empty"):
        kept_token(tmp_path)


def test_events_are_numbered_told_and_forgotten_in_the_end() -> None:
    heard: list[str] = []
    events = EventLog(lambda: 5.0)
    events.listen(lambda event: heard.append(event.text))
    for i in range(1_200):
        events.say("replica", f"event {i}")

    assert (heard[-1], len(heard)) == ("event 1199", 1_200)
    assert [event.number for event in events.after(1_198)] == [1_199, 1_200]
    assert events.after()[0].number == 201
