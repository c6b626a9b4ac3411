"""Rollouts on a live stack, told what clients get: forward, back, by hand, over a restart, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from miniserve.errors import DeadlineExceeded, Draining, InvalidRequest, UpstreamError
from miniserve.types import ReplicaState
from tests.operations.rollout_world import World

pytestmark = pytest.mark.anyio
STAGES = {"shares": [0.1, 0.5, 1.0], "min_answers": 200}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def world(tiny_folder: Path) -> World:
    return World(tiny_folder)


def test_a_good_version_takes_over_stage_by_stage_and_the_old_one_is_retired(world: World) -> None:
    world.start(**STAGES, keep_warm_s=20)
    assert world.told["phase"] == "waiting"
    world.run(4)
    assert {version for _, version in world.seen} == {"large@1"}

    world.ready()
    shares, answers = [], {}
    for _ in range(600):
        world.run(0.5)
        told = world.told
        shares += [told["share"]] if told["share"] not in shares else []
        answers[told["stage"]] = max(told["answers_in_stage"], answers.get(told["stage"], 0))
        if told["phase"] == "done":
            break
        world.ready()
    assert shares == [0.1, 0.5, 1.0]
    assert min(answers[stage] for stage in (0, 1)) >= 180, "no stage ends before its minimum, give or take a look"
    assert world.versions.done == [("start", "large@2", "large@1", 2), ("retire", "large@1")]
    assert world.texts[-1] == "large@1 is retired; large@2 has taken its place."
    assert [entry.name for entry in world.catalogue] == ["large", "large@2", "plain"]
    world.ready()
    world.run(1)
    assert not world.pin.splits("large"), "there is only one version left"


def test_harm_is_rolled_back_in_the_first_stage_and_said_why(world: World) -> None:
    world.start("large@bad", **STAGES)
    world.ready()
    world.run(180)

    told = world.told
    assert (told["phase"], told["stage"], told["share"], told["without_eval"]) == ("rolled_back", 0, 0.0, True)
    assert told["reason"].startswith("bad: ")
    assert told["rolled_back_after_s"] < 180
    assert 0 < told["exposed_share"] < 0.2
    assert world.versions.done[-1] == ("retire", "large@bad")
    assert any("large@bad did harm and was rolled back" in text for text in world.texts)
    assert world.events.after()[-1].level == "alarm"
    assert {version for _, version in world.seen[-100:]} == {"large@1"}


def test_who_pins_a_version_gets_it_and_counts_for_neither(world: World) -> None:
    world.start(shares=[1.0], min_answers=10**6)
    world.ready()
    world.tick()
    for _ in range(50):
        for model in ("large@1", "large@2"):
            world.ask(model)
    world.tick(2.5)

    assert {(request.model, version) for request, version in world.seen} == {
        ("large@1", "large@1"),
        ("large@2", "large@2"),
    }
    assert world.told["answers_in_stage"] == 0


def test_users_stick_to_what_they_saw(world: World) -> None:
    world.start(**STAGES)
    world.ready()
    world.run(400)
    rounds: dict[str, list[str]] = {}
    for request, version in world.seen:
        rounds.setdefault(str(request.session_key), []).append(version)

    assert world.told["share"] == 1
    for versions in rounds.values():
        assert versions == sorted(versions), "nobody who saw large@2 goes back to large@1"


# --- errors ----------------------------------------------------------------------------------------------------------


def test_errors_that_failover_hides_count_all_the_same(world: World) -> None:
    world.start(**STAGES)
    world.ready()
    world.run(4, judge=False)
    for _ in range(60):
        world.fail("large@2-0")
        world.run(0.5, judge=False)

    assert world.told["phase"] == "rolled_back"
    assert world.told["reason"].startswith("errors: ")


@pytest.mark.parametrize(
    ("replica_id", "model", "error", "counts"),
    [
        ("large@2-0", "large", UpstreamError("x"), (1, 0)),
        ("large@2-0", "large", DeadlineExceeded("x"), (1, 0)),
        ("large@2-0", "large", ValueError("a bug"), (1, 0)),
        ("large@1-0", "large", UpstreamError("x"), (0, 1)),
        ("large@2-0", "large@2", UpstreamError("x"), (0, 0)),
        ("large@2-0", "large", InvalidRequest("x"), (0, 0)),
        ("large@2-0", "large", Draining("x"), (0, 0)),
        ("other-0", "large", UpstreamError("x"), (0, 0)),
    ],
)
def test_a_failure_is_the_versions_unless_the_request_was_wrong_or_the_replica_was_taken_away(
    world: World, replica_id: str, model: str, error: Exception, counts: tuple[int, int]
) -> None:
    world.start(**STAGES)
    world.ready()
    world.tick()
    world.fail(replica_id, model, error)
    world.tick(2.5)

    errors = world.told["counts"]["errors"]
    assert (errors["new"]["bad"], errors["old"]["bad"]) == counts


def test_what_a_dead_replica_served_is_remembered(world: World) -> None:
    world.start(**STAGES)
    world.ready()
    world.tick()
    del world.fleet.states["large@2-0"]
    world.fail("large@2-0")
    world.tick(2.5)

    assert world.told["counts"]["errors"]["new"]["bad"] == 1


def test_a_verdict_that_comes_late_is_counted_when_there_is_room(world: World) -> None:
    world.start(**STAGES)
    world.ready()
    world.tick()
    calls = [world.ask(judge=False) for _ in range(40)]
    world.tick(2.5)
    for call in calls:
        assert call is not None
        world.desk.judged(call, False)
    world.tick(2.5)
    assert world.told["counts"]["bad"]["old"]["of"] == 0
    for _ in range(60):
        world.ask(judge=False)
    world.tick(2.5)
    assert world.told["counts"]["bad"]["old"]["bad"] > 20


# --- a version that does not come ------------------------------------------------------------------------------------


def test_a_version_that_does_not_load_ends_the_rollout_and_leaves_the_old_one_alone(world: World) -> None:
    world.start(**STAGES)
    world.versions.troubles["large@2"] = "replica large@2-0 exited with code 2"
    world.run(1)

    assert (world.told["phase"], world.told["share"]) == ("failed", 0.0)
    assert world.told["reason"] == "large@2 could not be started: replica large@2-0 exited with code 2"
    assert world.texts[-1].endswith("; large@1 goes on serving all users.")
    assert world.versions.done[-1] == ("retire", "large@2")
    assert {version for _, version in world.seen} == {"large@1"}
    assert [entry.name for entry in world.catalogue] == ["large", "large@1", "plain"]
    world.start(**STAGES)  # another try


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"new": "large"}, 400, "name the version that is to be introduced as NAME@VERSION"),
        ({"new": "large@2", "shares": [0.5, 0.1]}, 400, "must never fall"),
        ({"new": "large@2", "shares": [2.0]}, 400, r"shares\.0: Input should be less than or equal to 1"),
        ({"new": "large@2", "stages": 3}, 400, "stages: Extra inputs are not permitted"),
        ({"new": "large@2", "strategy": "yolo"}, 400, "strategy: Input should be 'canary'"),
        ({"new": "huge@2"}, 404, "The model `huge` does not exist"),
        ({"new": "plain@2"}, 409, "no other is ready"),
        ({"new": "large@1"}, 409, "large@1 is to take over from another version of large, and no other is ready"),
        ({"new": "large@none"}, 400, "there is no model 'large@none'"),
        ({"new": "large@2", "without_eval": False}, 409, "there is no recorded eval of large@1 and large@2"),
    ],
)
def test_what_cannot_begin_is_refused_in_a_sentence_and_changes_nothing(
    world: World, fields: dict[str, object], status: int, message: str
) -> None:
    code, said = world.press("start", **{"without_eval": True, **fields})

    assert code == status
    assert re.search(message, said), said
    assert world.versions.done == []
    assert not world.pin.splits("large")
    assert world.part.status() is None
    assert world.texts == []


def test_the_recorded_eval_decides_unless_somebody_says_otherwise(tiny_folder: Path, tmp_path: Path) -> None:
    def record(date: str, model: str, accuracy: float) -> None:
        scores = [{"difficulty": "all", "task": "all", "accuracy": accuracy}]
        (tmp_path / f"{date}-eval-{model}.json").write_text(json.dumps({"result": {"model": model, "scores": scores}}))

    world = World(tiny_folder, results=tmp_path)
    record("2026-11-01", "large-1", 0.944)
    record("2026-11-01", "large-2", 0.997)
    record("2026-11-02", "large-2", 0.914)  # the newest counts
    code, said = world.press("start", new="large@2")
    assert code == 409
    assert "large@2 scored 91.4% in its recorded eval and large@1 94.4%: worse by 3.0 points" in said
    (tmp_path / "2026-11-03-eval-large-2.json").write_text("half a rec")
    assert world.press("start", new="large@2")[0] == 409, "a damaged record is passed over"
    record("2026-11-04", "large-2", 0.93)
    assert world.press("start", new="large@2") == (200, "")
    assert world.told["eval"] == {"old": 0.944, "new": 0.93}
    assert world.texts == ["A rollout begins (canary): large@2 is to take the place of large@1."]


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_there_is_one_rollout_at_a_time(world: World) -> None:
    world.start(**STAGES)
    code, said = world.press("start", new="large@bad", without_eval=True)
    assert (code, said) == (
        409,
        "there is one rollout at a time, and the one from large@1 to large@2 is running: wait for its end, or roll it "
        "back",
    )
    assert world.press("clear")[0] == 409
    assert world.press("rollback") == (200, "")
    assert world.press("rollback") == (
        409,
        "no rollout is running; `python -m miniserve rollout start` begins one",
    )
    assert world.press("clear") == (200, "")
    assert world.part.status() is None
    world.start(**STAGES)


def test_traffic_that_an_experiment_splits_is_not_taken_from_it(world: World) -> None:
    world.pin.set_shares({"large@1": 0.5, "large@3": 0.5})
    assert world.press("start", new="large@2", without_eval=True) == (
        409,
        "the traffic of large is split already: end the experiment with it first",
    )


def test_a_person_promotes_at_once_and_retires_with_the_second_press(world: World) -> None:
    world.start(**STAGES)
    assert world.press("promote") == (409, "large@2 cannot be promoted now: its replicas are not ready yet")
    world.ready()
    world.tick()
    assert world.press("promote") == (200, "")
    assert (world.told["phase"], world.told["share"]) == ("warm", 1.0)
    assert world.press("promote") == (200, "")
    assert world.told["phase"] == "done"
    assert world.versions.done[-1] == ("retire", "large@1")


def test_a_switch_and_the_way_back_are_measured(world: World) -> None:
    world.start(strategy="blue-green")
    world.fleet.states["large@2-0"] = ReplicaState.READY
    world.run(3)
    assert world.told["share"] == 0, "one of two is not enough"
    world.ready()
    world.run(3)
    told = world.told
    assert (told["phase"], told["share"]) == ("warm", 1.0)
    assert 3.0 <= told["switched_after_s"] < 5.0
    assert {version for _, version in world.seen[-20:]} == {"large@2"}

    assert world.press("rollback", reason="the support line is full") == (200, "")
    world.run(3)
    assert world.told["back_after_s"] == 0.0
    assert world.told["reason"] == "the support line is full"
    assert {version for _, version in world.seen[-20:]} == {"large@1"}


# --- over a restart --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [0.0, 30.0, 110.0, 140.0])
def test_a_rollout_goes_on_after_a_restart(tiny_folder: Path, tmp_path: Path, moment: float) -> None:
    first = World(tiny_folder, tmp_path)
    first.start(**STAGES, keep_warm_s=50)
    if moment:
        first.ready()
    first.run(moment)
    first.desk.keep()
    later = World(tiny_folder, tmp_path, now_s=7.0)  # its replicas are started by those who look after processes
    later.fleet.states |= dict.fromkeys(("large@2-0", "large@2-1"), ReplicaState.READY)

    for key in ("phase", "stage", "share", "answers_in_stage", "exposed_share", "counts", "p_values"):
        assert later.told[key] == first.told[key], key
    assert later.told["since_s"] == pytest.approx(first.told["since_s"], abs=2.5)
    assert later.pin.splits("large")
    later.run(500)
    assert later.told["phase"] == "done"
    assert [one[0] for one in later.versions.done] == ["retire"]


def test_what_is_pressed_is_kept_before_it_is_answered(tiny_folder: Path, tmp_path: Path) -> None:
    first = World(tiny_folder, tmp_path)
    first.start(**STAGES)
    first.ready()
    first.tick()
    assert first.press("rollback") == (200, "")
    later = World(tiny_folder, tmp_path)

    assert later.told["phase"] == "rolled_back"
    assert later.told["reason"] == "rolled back by hand"
    assert later.press("clear") == (200, "")
    assert World(tiny_folder, tmp_path).part.status() is None


@pytest.mark.parametrize("damage", ["{}", '{"order": 1}', '{"order": {"plan": {"new": "gone@2"}, "old": "gone@1"}}'])
def test_a_state_that_is_none_is_left_aside(tiny_folder: Path, tmp_path: Path, damage: str) -> None:
    (tmp_path / "rollout.json").write_text(damage)
    world = World(tiny_folder, tmp_path)

    assert world.part.status() is None
    world.start(**STAGES)


# --- shadows ---------------------------------------------------------------------------------------------------------


async def shadowed(world: World, answers: int) -> dict[str, Any]:
    live = world.part._live
    assert live is not None
    for _ in range(answers):
        world.ask()
        while live.mirror._running:
            await next(iter(live.mirror._running))
    world.tick(2.5)
    return dict(world.told["shadow"])


async def test_copies_are_compared_and_change_nothing_for_anybody(world: World) -> None:
    world.start(strategy="shadow", mirror=1.0, min_answers=6)
    world.ready()
    world.tick()
    assert (world.told["share"], world.told["mirror"]) == (0.0, 1.0)
    first = await shadowed(world, 2)
    assert (first["copies"], first["same_text_share"], first["errors"], first["skipped"]) == (2, 1.0, 0, 0)
    assert first["median_ttft_s"]["copy"] == 0.25

    world.fleet.said = "hello"
    second = await shadowed(world, 2)
    assert (second["same_text_share"], second["mean_characters"]) == (0.5, {"shown": 2.0, "copy": 3.5})
    world.fleet.said = UpstreamError("broke")
    third = await shadowed(world, 2)
    assert (third["copies"], third["errors"]) == (6, 2)

    assert {version for _, version in world.seen} == {"large@1"}
    for send in world.fleet.sent:
        assert send.replica_id.startswith("large@2-")
        assert (send.request.tenant, send.request.session_key, send.request.priority.name) == ("shadow", None, "BATCH")
    assert world.told["phase"] == "done"
    world.ask()
    assert len(world.fleet.sent) == 6, "the end of the shadow is the end of the copies"
    assert world.press("clear") == (200, "")
    assert world.versions.done[-1] == ("retire", "large@2")


async def test_copies_that_would_pile_up_or_have_nowhere_to_go_are_left_out(world: World) -> None:
    world.start(strategy="shadow", mirror=1.0)
    world.ready()
    world.tick()
    live = world.part._live
    assert live is not None
    for _ in range(20):
        world.ask()
    assert len(live.mirror._running) == 8
    await live.close()
    world.fleet.states = {name: ReplicaState.DOWN for name in world.fleet.states if name.startswith("large@2")} | {
        "large@1-0": ReplicaState.READY
    }
    world.ask()
    assert live.mirror.counts.skipped == 13


async def test_a_mirrored_share_copies_about_that_share_and_no_pinned_request(world: World) -> None:
    world.start(strategy="shadow", mirror=0.2)
    world.ready()
    world.tick()
    assert (await shadowed(world, 400))["copies"] == pytest.approx(80, abs=30)
    before = len(world.fleet.sent)
    for _ in range(50):
        world.ask("large@1")
    assert len(world.fleet.sent) == before
