"""Bill and quality of a stack of real processes: all of its time is booked, and a bad version is named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miniserve.processes.stack import Stack
from tests.processes.graded import questions, until_true
from tests.processes.test_rollout import COLD_S, PROMISED_S, large_stack

pytestmark = pytest.mark.anyio
Record = Callable[[str, object], None]


def part_of(stack: Stack, name: str) -> Any:
    return stack.gateway.desk.part(name)


@pytest.mark.parametrize("seconds", [8.0, pytest.param(600.0, marks=pytest.mark.full)])
async def test_every_replica_second_is_on_the_bill_once(
    tmp_path: Path, seconds: float, record_property: Record
) -> None:
    """One replica is killed in the middle, and started anew by its supervisor."""
    async with large_stack(tmp_path) as (stack, client), questions(stack, 12.0, seed=1) as graded:
        await asyncio.sleep(seconds / 2)  # the load goes on meanwhile
        killed = stack.supervisor.children[0]
        answer = await client.post(f"/admin/replicas/{killed.replica_id}", json={"action": "kill"})
        assert answer.status_code == 200, answer.text
        await until_true(lambda: killed.restarts == 1 and len(stack.gateway.fleet.view().ready()) == 2, COLD_S)
        await asyncio.sleep(seconds / 2)
        ledger, uptime_s = part_of(stack, "cost").ledger, (await client.get("/status")).json()["uptime_s"]

    accounts = {line.name: line.seconds for line in ledger.by("account")}
    assert graded.failed == []
    assert ledger.seconds == pytest.approx(ledger.billed_s)
    assert ledger.billed_s == pytest.approx(2 * uptime_s, abs=2.5), "two replicas, but for the first and the last turn"
    assert accounts["prompt"] > 0
    assert accounts["output"] > 0
    assert sum(entry.answers for entry in ledger.entries) <= graded.served.total()
    record_property("billed_replica_seconds", round(ledger.billed_s, 3))
    record_property("booked_replica_seconds", round(ledger.seconds, 3))
    record_property("by_account", {name: round(seconds, 3) for name, seconds in accounts.items()})
    record_property("answers", graded.served.total())


@pytest.mark.full
@pytest.mark.parametrize(("version", "is_bad"), [("large@bad", True), ("large@2", False)])
async def test_the_monitor_names_a_bad_version_and_no_other(
    tmp_path: Path, version: str, is_bad: bool, record_property: Record
) -> None:
    """Half of the users get it for as long as the monitor needs, with no guardrail that would act sooner."""
    async with large_stack(tmp_path) as (stack, client), questions(stack, 20.0, seed=3) as graded:
        await until_true(lambda: graded.served["large", "large@1"] >= 400, PROMISED_S)
        body = {"action": "start", "variants": ["large@1", version], "name": "quality"}
        started = await client.post("/admin/experiment", json=body)
        assert started.status_code == 200, started.text
        quality, alerts = part_of(stack, "quality"), part_of(stack, "alerts")
        await until_true(lambda: quality.status()["verdicts"].get(version), PROMISED_S)
        firing = [alert.name for alert in alerts.firing if alert.name.startswith("quality-")]
        verdict = quality.status()["verdicts"][version]

    assert graded.failed == []
    assert firing == ([f"quality-{version}"] if is_bad else [])
    assert graded.served["large", version] <= 500
    record_property("graded_answers_of_it", graded.served["large", version])
    record_property("verdict", verdict)
