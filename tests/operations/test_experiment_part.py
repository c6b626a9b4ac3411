"""Experiments on a desk: users are split and stay, pins are left alone, and a restart loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fastapi import FastAPI
from operations.desk_work import Work, call
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from miniserve.api.access import AccessLog
from miniserve.api.errors import add_error_handlers
from miniserve.errors import NotFound, SetupError
from miniserve.observe.metrics import ApiMetrics
from miniserve.operations.admin import TOKEN_HEADER, AdminDoor
from miniserve.operations.desk import Desk
from miniserve.operations.experiments import LOOK_EVERY_S, ExperimentPart
from miniserve.policies.routing.router import VersionPin
from miniserve.types import FleetView, ReplicaState, ReplicaView, Request

BOTH = FleetView(tuple(ReplicaView(f"large@{v}-0", ReplicaState.READY, version=f"large@{v}") for v in "12"))
START = {"action": "start", "variants": ["large@1", "large@2"], "name": "test"}


class Catalogue:
    def entry(self, name: str) -> None:
        if name != "large":
            raise NotFound(f"no {name}")


class Versions:
    def __init__(self) -> None:
        self.started: list[str] = []

    def files(self, name: str, source: str | None = None) -> Path:
        raise SetupError(f"there are no files of {name}")


class Bench:
    """A part, its workplace and a client of its route."""

    def __init__(self, state_dir: Path | None = None) -> None:
        self.work = Work()
        self.work.pin, self.work.catalogue, self.work.versions = VersionPin(), Catalogue(), Versions()
        self.work.fleet.view = lambda: BOTH
        self.part = ExperimentPart(self.work)  # type: ignore[arg-type]
        self.desk = Desk(AdminDoor("t"), state_dir)
        self.work.keep = self.desk.keep
        app = FastAPI()
        app.add_middleware(AccessLog, metrics=ApiMetrics(CollectorRegistry()), clock=lambda: 0.0)
        add_error_handlers(app)
        self.desk.open([self.part], app)
        self.client = TestClient(app, base_url="http://127.0.0.1:1", headers={TOKEN_HEADER: "t"})

    def press(self, body: object) -> Any:
        return self.client.post("/admin/experiment", json=body)

    def serve(self, users: int, liked: dict[str, float], answers: int = 3) -> None:
        """Let so many users ask, who like each answer of a variant with its chance."""
        rng = Random(7)
        for number in range(users * answers):
            user = f"user {number % users}"
            request = Request(f"{number}", "large", (number, 1, 2), session_key=user)
            version = f"large@{self.work.pin.version_of(request)}"
            one = call(self.work.fleet.clock(), model=version, request=request)
            self.part.answered(one)
            self.part.judged(one, rng.random() < liked[version])

    def look(self) -> dict[str, Any]:
        self.work.fleet.clock.advance(LOOK_EVERY_S)
        self.desk.tick(self.work.fleet.clock(), BOTH)
        found: Any = self.part.status()
        return dict(found)


@pytest.fixture
def bench() -> Iterator[Bench]:
    return Bench()


def test_users_are_split_as_asked_and_stay(bench: Bench) -> None:
    assert bench.press({**START, "split": [0.25, 0.75]}).status_code == 200
    bench.serve(400, {"large@1": 0.9, "large@2": 0.9})
    first = bench.look()
    bench.serve(400, {"large@1": 0.9, "large@2": 0.9})
    again = bench.look()

    assert first["users"] == again["users"]
    assert sum(first["users"]) == 400
    assert first["sample_ratio_p"] > 0.001
    assert again["answers"] == [2 * count for count in first["answers"]]


def test_another_name_shuffles_the_users_anew(bench: Bench) -> None:
    requests = [Request("r", "large", (), session_key=f"user {number}") for number in range(200)]
    bench.press(START)
    first = [bench.work.pin.version_of(request) for request in requests]
    for action in ("stop", "clear"):
        assert bench.press({"action": action}).status_code == 200
    bench.press({**START, "name": "other"})
    second = [bench.work.pin.version_of(request) for request in requests]

    same = sum(one == other for one, other in zip(first, second, strict=True))
    assert 60 < same < 140


def test_a_better_variant_is_found_and_told(bench: Bench) -> None:
    bench.press(START)
    bench.serve(300, {"large@1": 0.6, "large@2": 0.9})
    report = bench.look()

    assert report["verdict"].startswith("large@2 is better than large@1")
    assert [text.partition(":")[0] for text in bench.work.said()] == ["test", "test"]


def test_who_names_no_user_or_a_version_is_not_counted(bench: Bench) -> None:
    bench.press(START)
    for request in (Request("a", "large", (1,)), Request("b", "large@2", (1,), session_key="ann")):
        bench.part.answered(call(1.0, model="large@2", request=request))
    assert bench.look()["users"] == [0, 0]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({**START, "variants": ["large@1"]}, 400, "variants"),
        ({**START, "variants": ["large@1", "large@1"]}, 400, "two versions of one model"),
        ({**START, "variants": ["large@1", "small@1"]}, 400, "two versions of one model"),
        ({**START, "variants": ["tiny@1", "tiny@2"]}, 404, "no tiny"),
        ({**START, "variants": ["large@1", "large@9"]}, 400, "no files of large@9"),
        ({**START, "split": [0.5, 0.6]}, 400, "add up to 1"),
        ({"action": "stop"}, 409, "no experiment is running"),
        ({"action": "shout"}, 400, "action"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    bench: Bench, body: dict[str, Any], status: int, said: str
) -> None:
    answer = bench.press(body)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]
    assert not bench.work.pin.splits("large")


def test_two_at_once_and_one_beside_a_rollout_are_conflicts(bench: Bench) -> None:
    bench.press(START)
    assert bench.press(START).status_code == 409
    other = Bench()
    other.work.pin.set_shares({"large@2": 0.1, "large@1": 0.9})
    answer = other.press(START)
    assert answer.status_code == 409
    assert "rollout" in answer.json()["error"]["message"]


def test_an_experiment_goes_on_after_a_kill(tmp_path: Path) -> None:
    first = Bench(tmp_path)
    first.press(START)
    first.serve(200, {"large@1": 0.9, "large@2": 0.9})
    before = first.look()
    second = Bench(tmp_path)  # nobody closed the first

    assert second.part.status() == before
    users = [Request("r", "large", (), session_key=f"user {number}") for number in range(50)]
    assert [second.work.pin.version_of(one) for one in users] == [first.work.pin.version_of(one) for one in users]
    assert json.loads((tmp_path / "experiments.json").read_text())["running"] is True
