"""The quality monitor live: it names a version that is worse, leaves others alone, and survives a restart."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from operations.desk_work import Work, call

from miniserve.operations.alerts import AlertsPart
from miniserve.operations.quality import NEEDED, QualityPart
from miniserve.types import FleetView, ReplicaState, ReplicaView

OLD, NEW = "large@1", "large@2"


def view(*versions: str) -> FleetView:
    return FleetView(tuple(ReplicaView(f"{v}-0", ReplicaState.READY, version=v) for v in versions))


def serve(work: Work, quality: QualityPart, version: str, answers: int, liked: float, *, seed: int = 7) -> None:
    """Let so many graded answers happen, of which the share `liked` is good; a third is not graded."""
    rng = Random(f"{version} {seed}")
    for number in range(answers):
        work.fleet.clock.advance(0.05)
        one = call(work.fleet.clock(), model=version, text="It is 12.", completion_tokens=rng.randint(4, 9))
        quality.answered(one)
        if number % 3:
            quality.judged(one, rng.random() < liked)


def at_work() -> tuple[Work, QualityPart, AlertsPart]:
    work = Work()
    quality, alerts = work.add(QualityPart(work)), work.add(AlertsPart(work))
    serve(work, quality, OLD, 400, 0.94)
    settle(work, quality, OLD)
    return work, quality, alerts


def settle(work: Work, quality: QualityPart, *versions: str) -> None:
    """Let the time pass in which a verdict may still come."""
    work.fleet.clock.advance(6.0)
    quality.tick(work.fleet.clock(), view(*versions))


def test_a_worse_version_is_named_and_the_alert_ends_when_it_has_gone() -> None:
    work, quality, alerts = at_work()
    serve(work, quality, NEW, NEEDED, 0.7)
    settle(work, quality, OLD, NEW)
    (alert,) = alerts.firing

    assert alert.name == f"quality-{NEW}"
    assert "liked answers instead of" in alert.text
    settle(work, quality, OLD)
    assert alerts.firing == ()


def test_a_version_that_is_no_worse_is_said_to_be_none() -> None:
    work, quality, alerts = at_work()
    serve(work, quality, NEW, NEEDED, 0.94)
    settle(work, quality, OLD, NEW)
    status: Any = quality.status()

    assert alerts.firing == ()
    assert any("answers like large@1" in text for text in work.said())
    assert not any(shift["alarm"] for shift in status["verdicts"][NEW])
    assert status["versions"][NEW]["answers"] == NEEDED


def test_a_better_version_is_no_alarm() -> None:
    work, quality, alerts = at_work()
    serve(work, quality, "large@3", 400, 0.6)  # a first newcomer, which is worse
    settle(work, quality, OLD, "large@3")
    settle(work, quality, "large@3")  # and which has the field to itself
    serve(work, quality, "large@3", 400, 0.6)
    settle(work, quality, "large@3")
    serve(work, quality, NEW, NEEDED, 0.97)
    settle(work, quality, "large@3", NEW)

    assert alerts.firing == ()
    assert any(text.startswith("large@2 against large@3") for text in work.said())


def test_refusals_are_seen_without_any_verdict_of_a_client() -> None:
    work, quality, alerts = at_work()
    for _ in range(NEEDED):
        work.fleet.clock.advance(0.05)
        quality.answered(call(work.fleet.clock(), model=NEW, text="I'm sorry, I cannot do that.", completion_tokens=8))
    settle(work, quality, OLD, NEW)

    assert "refusals instead of" in alerts.firing[0].text


def test_no_verdict_before_there_is_something_to_compare_with() -> None:
    work = Work()
    quality = work.add(QualityPart(work))
    serve(work, quality, OLD, 50, 0.94)
    serve(work, quality, NEW, 600, 0.2)
    settle(work, quality, OLD, NEW)
    status: Any = quality.status()

    assert status["verdicts"] == {}


def test_what_is_known_survives_a_restart_and_no_text_is_kept() -> None:
    _, quality, _ = at_work()
    kept = json.dumps(quality.state())
    assert "It is" not in kept
    again = Work()
    restored, alerts = again.add(QualityPart(again)), again.add(AlertsPart(again))
    restored.restore(json.loads(kept))
    assert restored.status() == quality.status()
    serve(again, restored, NEW, NEEDED, 0.6)
    settle(again, restored, OLD, NEW)
    assert len(alerts.firing) == 1
