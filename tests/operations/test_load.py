"""The dial of the demo's load: what it shows, and what turning it does and says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from miniserve.api.access import AccessLog
from miniserve.api.errors import add_error_handlers
from miniserve.observe.metrics import ApiMetrics
from miniserve.operations.admin import TOKEN_HEADER, AdminDoor
from miniserve.operations.desk import Desk
from miniserve.operations.events import EventLog
from miniserve.operations.load import LoadDial, LoadPart
from miniserve.operations.workplace import Workplace

SAID = {"rate_per_s": 12.345, "sent": 10, "answered": 8, "failed": 1, "graded": 7, "good": 6}


def test_the_dial_shows_what_was_said_last_and_adds_up_over_processes() -> None:
    dial = LoadDial()
    assert dial.as_json()["good_fraction"] is None
    dial.told(SAID)
    shown = {"rate_per_s": 12.35, "factor": 1.0, "sent": 10, "answered": 8, "failed": 1, "graded": 7}
    assert dial.as_json() == {**shown, "good_fraction": 0.75}
    dial.ended()
    assert (dial.as_json()["sent"], dial.as_json()["rate_per_s"]) == (10, 0.0)
    dial.told({**SAID, "good": 2})
    assert (dial.as_json()["sent"], dial.as_json()["good_fraction"]) == (20, 0.5)


@pytest.mark.parametrize("nonsense", [{}, {**SAID, "sent": "many"}, {**SAID, "rate_per_s": None}])
def test_what_is_no_count_is_refused(nonsense: dict[str, object]) -> None:
    with pytest.raises((LookupError, ValueError)):
        LoadDial().told(nonsense)


@pytest.fixture
def events() -> EventLog:
    return EventLog(lambda: 0.0)


@pytest.fixture
def dial() -> LoadDial:
    return LoadDial()


@pytest.fixture
def client(dial: LoadDial, events: EventLog) -> TestClient:
    app = FastAPI()
    add_error_handlers(app)
    app.add_middleware(AccessLog, metrics=ApiMetrics(CollectorRegistry()), clock=lambda: 0.0)
    work = cast(Workplace, SimpleNamespace(events=events))
    Desk(AdminDoor("secret"), None).open([LoadPart(dial, work)], app)
    return TestClient(app, base_url="http://127.0.0.1:80", headers={TOKEN_HEADER: "secret", "host": "127.0.0.1:80"})


def test_turning_it_reaches_the_load_and_is_said_in_plain_words(
    client: TestClient, dial: LoadDial, events: EventLog
) -> None:
    passed_on: list[float] = []
    dial.on_factor = passed_on.append
    for factor in (2, 2, 3.5, 0, 1):
        answer = client.post("/admin/load", json={"factor": factor})
        assert (answer.status_code, answer.json()["factor"]) == (200, factor)
    assert passed_on == [2, 3.5, 0, 1], "the same again is no news"
    assert [(event.kind, event.text) for event in events.after()] == [
        ("load", "The load was doubled, by hand."),
        ("load", "The load is 3.5 times what it was at first, by hand."),
        ("load", "The load was switched off, by hand."),
        ("load", "The load is what it was at first again, by hand."),
    ]


@pytest.mark.parametrize("body", [{}, {"factor": -1}, {"factor": 4.1}, {"factor": "2"}, {"factor": True}])
def test_what_is_no_factor_is_a_400_and_changes_nothing(
    body: dict[str, Any], client: TestClient, dial: LoadDial, events: EventLog
) -> None:
    answer = client.post("/admin/load", json=body)
    assert answer.status_code == 400
    assert "must be a number from 0 to 4" in answer.json()["error"]["message"]
    assert (dial.factor, events.after()) == (1.0, [])


def test_it_needs_the_token(client: TestClient) -> None:
    assert client.post("/admin/load", json={"factor": 2}, headers={TOKEN_HEADER: "other"}).status_code == 401
