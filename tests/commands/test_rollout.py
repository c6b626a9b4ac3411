"""The `rollout` command: what it asks of the gateway, and how it tells where a rollout stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import miniserve.commands.rollout as command
from miniserve.__main__ import main
from miniserve.operations.rollout_body import checked_body
from tests.operations.rollout_world import World


@pytest.fixture
def world(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The command's gateway."""
    world = World(tiny_folder)

    def call(args: object, method: str, path: str, body: object = None) -> Any:
        if path == "/status":
            return {"rollout": world.part.status()}
        answer = world.client.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    monkeypatch.setattr(command, "call_gateway", call)
    return world


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("large@2", {"strategy": "canary", "shares": None, "min_answers": 200}),
        ("large@2 --canary 1,10,50,100", {"shares": [0.01, 0.1, 0.5, 1.0]}),
        ("large@2 --blue-green --replicas 3", {"strategy": "blue-green", "replicas": 3}),
        ("large@2 --shadow", {"strategy": "shadow", "mirror": 0.1}),
        ("large@2 --shadow 0.5 --min-answers 10", {"mirror": 0.5, "min_answers": 10}),
        ("large@2 --ramp 4 --min-s 2", {"strategy": "ramp", "steps": 4, "min_s": 2.0}),
        (
            "large@9 --model DIR --from large@2 --without-eval",
            {"source": "DIR", "old": "large@2", "without_eval": True},
        ),
    ],
)
def test_a_command_line_is_a_body_that_the_gateway_takes(
    line: str, fields: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    told = {"new": "large@2", "old": "large@1", "without_eval": False}
    monkeypatch.setattr(command, "call_gateway", lambda *asked: sent.append(asked[3]) or {"rollout": told})
    assert main(["rollout", "start", *line.split()]) == 0

    body = checked_body(sent[0])
    assert {name: getattr(body, name) for name in fields} == fields
    plan = body.plan(replicas=2)
    assert plan.build("large@1", body.new).stages[-1].share in (0.0, 1.0)


@pytest.mark.parametrize("percents", ["0,10", "10,5", "10,200", "ten"])
def test_percents_that_make_no_sense_are_refused(percents: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["rollout", "start", "large@2", "--canary", percents])
    assert "--canary" in capsys.readouterr().err


def test_how_a_rollout_goes_is_told_from_its_start_to_its_end(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*line: str) -> str:
        assert main(["rollout", *line]) == 0
        return " ".join(capsys.readouterr().out.split())

    assert said("status") == "no rollout; `miniserve rollout start NAME@VERSION` begins one"
    assert "large@bad is being started beside large@1; its recorded eval was not asked for" in said(
        "start", "large@bad", "--canary", "10,100", "--without-eval"
    )
    assert "waits until replicas of large@bad are ready" in said("status")
    world.ready()
    world.run(10)
    text = said("status")
    assert "stage 1 of 2: 10 % of the users get large@bad; " in text
    assert "of at least 200 answers" in text
    assert "! it was started without asking for the recorded eval (old: none, new: none)" in text
    world.run(170)
    assert "ROLLED BACK after " in (text := said("status"))
    assert "judged bad" in text
    assert json.loads(said("status", "--json"))["phase"] == "rolled_back"
    assert said("clear") == "no rollout is remembered any more"

    assert "large@2 is being started beside large@1" in said("start", "large@2", "--blue-green", "--without-eval")
    world.ready()
    world.run(4)
    assert "all users get large@2; large@1 is kept ready" in said("status")
    assert said("rollback", "--reason", "enough") == "all users are back with large@1"
    assert "enough" in said("status")

    said("start", "large@2", "--canary", "10,100", "--without-eval")
    world.ready()
    world.tick()
    assert said("promote") == "all users get large@2 now; promote again to retire large@1"
    assert said("promote") == "large@1 is retired; large@2 has taken its place"
    assert "done: 100 % of the users get large@2" in said("status")


def test_a_version_that_failed_and_a_shadow_are_told(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.start()
    world.versions.troubles["large@2"] = "no memory"
    world.tick()
    main(["rollout", "status"])
    assert "FAILED: large@2 could not be started: no memory" in capsys.readouterr().out

    world.versions.troubles.clear()
    world.start(strategy="shadow", mirror=0.25)
    world.ready()
    world.tick()
    live = world.part._live
    assert live is not None
    live.mirror.counts.copies = live.mirror.counts.same = 8
    main(["rollout", "status"])
    text = " ".join(capsys.readouterr().out.split())
    assert "25 % of the requests are copied to it" in text
    assert "8 copies, 0 failed, 0 left out" in text
    assert "same text" in text
