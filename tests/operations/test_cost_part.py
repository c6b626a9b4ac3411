"""The bill of a live gateway: complete, in the right accounts, and in Prometheus' terms."""

from __future__ import annotations

from typing import Any

import pytest

from miniserve.operations.cost import CostPart
from miniserve.operations.settings import OperatorSettings

pytestmark = pytest.mark.anyio
PRICED = OperatorSettings(usd_per_replica_hour=36.0)


async def ask(client: Any, **more: Any) -> Any:
    body = {"prompt": "Hello there", "max_tokens": 6, "ignore_eos": True, **more}
    answer = await client.post("/v1/completions", json=body, headers={"x-feature": "greeting", "x-tenant-id": "acme"})
    assert answer.status_code == 200
    return answer.json()


async def settled(client: Any, until: Any, answers: int) -> dict[str, Any]:
    """Return the section once so many answers are in it."""
    found: dict[str, Any] = {}

    async def enough() -> bool:
        found.update((await client.get("/status")).json()["cost"])
        return bool(found["answers"] == answers)

    for _ in range(500):
        if await enough():
            return found
    raise AssertionError(found)


async def test_answers_are_on_the_bill_of_who_asked(gateway_of: Any, until: Any) -> None:
    async with gateway_of(parts=(CostPart,), settings=PRICED) as (client, gateway):
        for number in range(3):
            await ask(client, prompt=f"Hello {number}")
        cost = await settled(client, until, 3)
        text = (await client.get("/metrics")).text
        ledger = gateway.desk.part("cost").ledger

    assert cost["by_tenant"]["acme"]["tokens"] == 18
    assert cost["by_feature"]["greeting"]["answers"] == 3
    assert set(cost["by_account"]) <= {"prompt", "output", "idle", "cached"}
    assert ledger.usd == pytest.approx(ledger.seconds * 0.01)
    assert cost["replica_s"] == pytest.approx(cost["billed_s"])
    assert ledger.seconds == pytest.approx(ledger.billed_s)
    assert 'miniserve_replica_seconds_total{account="output",model="tiny"}' in text


async def test_an_answer_that_a_stop_string_ends_is_an_answer(gateway_of: Any, until: Any) -> None:
    async with gateway_of(parts=(CostPart,), settings=PRICED) as (client, _):
        text = (await ask(client, max_tokens=20))["choices"][0]["text"]
        await ask(client, max_tokens=20, stop=text[3:5])
        cost = await settled(client, until, 2)

    assert "left" not in cost["by_account"]
    assert "hedge" not in cost["by_account"]


async def test_what_nobody_waited_for_is_booked_as_left(gateway_of: Any, until: Any) -> None:
    async with gateway_of(parts=(CostPart,), settings=PRICED) as (client, gateway):
        body = {"prompt": "Hello", "max_tokens": 400, "ignore_eos": True, "stream": True}
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            async for _ in answer.aiter_bytes():
                break
        part = gateway.desk.part("cost")
        await until(lambda: any(entry.account == "left" for entry in part.ledger.entries))
        ledger = part.ledger

    assert ledger.seconds == pytest.approx(ledger.billed_s)
    assert not any(entry.answers for entry in ledger.entries)


async def test_the_bill_goes_on_after_a_restart(gateway_of: Any, until: Any, tmp_path: Any) -> None:
    for answers in (1, 2):
        async with gateway_of(parts=(CostPart,), settings=PRICED, state_dir=tmp_path) as (client, gateway):
            await ask(client)
            cost = await settled(client, until, answers)
            gateway.desk.part("cost")._kept_s = -100.0  # do not wait for the next time that it is written

    assert cost["by_tenant"]["acme"]["answers"] == 2
