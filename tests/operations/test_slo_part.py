"""Promises watched live: what counts, when it alerts, and what a restart keeps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from operations.desk_work import NOBODY, READY, Work, call

from miniserve.errors import SetupError
from miniserve.operations.alerts import AlertsPart
from miniserve.operations.settings import OperatorSettings
from miniserve.operations.slo import SloPart

HOURS_6 = OperatorSettings()  # windows of 30 s and 2.5 s, 3 min and 15 s, 36 min and 3 min


def at_work(settings: OperatorSettings = HOURS_6) -> tuple[Work, SloPart, AlertsPart]:
    work = Work(settings)
    return work, work.add(SloPart(work)), work.add(AlertsPart(work))


def run(work: Work, slo: SloPart, seconds: float, **how: Any) -> None:
    """Ten calls a second, all with the same end."""
    for _ in range(int(seconds * 10)):
        work.fleet.clock.advance(0.1)
        slo.answered(call(work.fleet.clock(), **how))
        slo.tick(work.fleet.clock(), READY)


def test_an_outage_pages_soon_and_the_page_ends_soon_after_it() -> None:
    work, slo, alerts = at_work()
    run(work, slo, 60)
    assert alerts.firing == ()
    run(work, slo, 5, status=502)
    names = {alert.name for alert in alerts.firing}
    assert "slo-availability-0" in names
    assert "too many requests fail" in work.said()[0]
    run(work, slo, 5)
    assert "slo-availability-0" not in {alert.name for alert in alerts.firing}, "the short window is good again"
    assert any(text.startswith("over: ") for text in work.said())


def test_slow_answers_spend_the_other_budget() -> None:
    work, slo, alerts = at_work()
    run(work, slo, 30, ttft_s=0.5)
    run(work, slo, 30, ttft_s=3.0)
    section: Any = slo.status()

    assert section["availability"]["bad"] == 0
    assert section["speed"] == section["speed"] | {"events": 600, "bad": 300, "limit_s": 2.0}
    assert section["speed"]["budget_left"] == pytest.approx(1 - 0.5 / 0.05)
    assert {alert.name.rpartition("-")[0] for alert in alerts.firing} == {"slo-speed"}


@pytest.mark.parametrize("how", [{"status": 499}, {"status": 400}, {"status": 429}])
def test_what_the_client_did_is_no_event_of_availability(how: dict[str, int]) -> None:
    work, slo, _ = at_work()
    run(work, slo, 2, ttft_s=None, **how)
    section: Any = slo.status()
    assert section["availability"]["events"] == 0


def test_an_answer_that_broke_off_is_a_failure() -> None:
    work, slo, _ = at_work()
    run(work, slo, 1, error="server_error", finish_reason="error")
    section: Any = slo.status()
    assert section["availability"]["bad"] == 10


def test_a_restart_keeps_budget_and_alerts_and_tells_nobody_twice() -> None:
    work, slo, alerts = at_work()
    run(work, slo, 60)
    run(work, slo, 6, status=502)
    work.fleet.clock.advance(10)
    kept = json.loads(json.dumps([slo.state(), alerts.state()]))

    again, slo_again, alerts_again = Work(now_s=7.0), None, None
    slo_again, alerts_again = again.add(SloPart(again)), again.add(AlertsPart(again))
    slo_again.restore(kept[0])
    alerts_again.restore(kept[1])
    assert slo_again.status() == slo.status()
    slo_again.tick(7.0, READY)
    assert {alert.name for alert in alerts_again.firing} == {alert.name for alert in alerts.firing}
    assert [event.text for event in again.events.after()] == []


def test_a_budget_that_was_counted_against_another_limit_is_not_taken_up() -> None:
    work, slo, _ = at_work()
    run(work, slo, 1)
    other = Work(OperatorSettings(ttft_s=1.0))
    with pytest.raises(ValueError, match="another limit"):
        SloPart(other).restore(slo.state())  # type: ignore[arg-type]


def test_no_ready_replica_is_an_alert_of_its_own() -> None:
    work, _, alerts = at_work()
    for now_s, view, stands in [(0, READY, 0), (1, NOBODY, 0), (3.9, NOBODY, 0), (4, NOBODY, 1), (5, READY, 0)]:
        alerts.tick(now_s, view)
        assert len(alerts.firing) == stands, now_s
    assert work.said() == [
        "no replica is ready: nothing can be answered",
        "over: no replica is ready: nothing can be answered",
    ]


@pytest.mark.parametrize(
    "wrong",
    [{"availability": 1.0}, {"ttft_s": 0.0}, {"slo_period_s": float("inf")}, {"alert_webhook": "ftp://x"}],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SetupError):
        OperatorSettings(**wrong)
