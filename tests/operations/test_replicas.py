"""A person interferes with a replica: over HTTP, and on real processes that do nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from miniserve.errors import Conflict, NotFound
from miniserve.operations.admin import TOKEN_HEADER
from miniserve.operations.events import EventLog
from miniserve.operations.replicas import say_size
from miniserve.processes.child import Child, ChildSpec, spawn
from miniserve.processes.hands import ProcessHands

pytestmark = pytest.mark.anyio


class NotingHands:
    def __init__(self) -> None:
        self.done: list[tuple[object, ...]] = []

    def kill(self, replica_id: str) -> None:
        if replica_id != "tiny-0":
            raise NotFound(f"there is no replica process {replica_id!r}; there are tiny-0")
        self.done.append(("kill", replica_id))

    def hang(self, replica_id: str, seconds: float) -> None:
        self.done.append(("hang", replica_id, seconds))


async def test_buttons_reach_the_hands_and_are_said(gateway_of: Any) -> None:
    hands = NotingHands()
    async with gateway_of(hands=hands) as (client, gateway):
        client.headers[TOKEN_HEADER] = gateway.desk.door.token
        killed = await client.post("/admin/replicas/tiny-0", json={"action": "kill"})
        hung = await client.post("/admin/replicas/tiny-0", json={"action": "hang", "seconds": 3})
        said = [event.text for event in gateway.events.after() if event.kind == "person"]
    assert (killed.status_code, hung.status_code) == (200, 200)
    assert hands.done == [("kill", "tiny-0"), ("hang", "tiny-0", 3.0)]
    assert said == [killed.json()["done"], hung.json()["done"]]
    assert "tiny-0" in said[0]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("other", {"action": "kill"}, 404, "there are tiny-0"),
        ("tiny-0", {"action": "tickle"}, 400, '"kill" or "hang"'),
        ("tiny-0", {}, 400, '"kill" or "hang"'),
        ("tiny-0", {"action": "hang", "seconds": 0}, 400, "above 0"),
        ("tiny-0", {"action": "hang", "seconds": "long"}, 400, "above 0"),
        ("tiny-0", {"action": "hang", "seconds": True}, 400, "above 0"),
        ("tiny-0", {"action": "hang", "seconds": 1e9}, 400, "at most 120"),
        ("tiny-0", [], 400, "JSON object"),
        ("tiny-0", "x" * 70_000, 413, "at most"),
    ],
)
async def test_what_cannot_be_done_is_said(gateway_of: Any, path: str, body: object, status: int, message: str) -> None:
    hands = NotingHands()
    async with gateway_of(hands=hands) as (client, gateway):
        headers = {TOKEN_HEADER: gateway.desk.door.token}
        answer = await client.post(f"/admin/replicas/{path}", content=json.dumps(body), headers=headers)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]
    assert hands.done == []


async def test_foreign_pages_and_foreign_replicas_are_left_alone(gateway_of: Any) -> None:
    hands = NotingHands()
    async with gateway_of(hands=hands) as (client, gateway):
        token = {TOKEN_HEADER: gateway.desk.door.token}
        answers = [
            await client.post("/admin/replicas/tiny-0", json={"action": "kill"}, headers=headers)
            for headers in ({}, {**token, "origin": "https://evil.example"}, {**token, "host": "evil.example"})
        ]
    assert [answer.status_code for answer in answers] == [401, 403, 403]
    assert hands.done == []
    async with gateway_of() as (client, gateway):
        headers = {TOKEN_HEADER: gateway.desk.door.token}
        answer = await client.post("/admin/replicas/tiny-0", json={"action": "kill"}, headers=headers)
    assert answer.status_code == 409
    assert "run elsewhere" in answer.json()["error"]["message"]


# ---- hands ----

TICKING = "import sys, time\nwhile True:\n    print('tick', flush=True)\n    time.sleep(0.01)"


class OneChild:
    """As much of a supervisor as hands see."""

    def __init__(self, *children: Child) -> None:
        self.children = children


async def started() -> tuple[Child, asyncio.StreamReader]:
    child = Child(ChildSpec("r0", (sys.executable, "-c", TICKING)))
    child.process = await spawn(child.spec)
    assert child.process.stdout is not None
    await child.process.stdout.readline()
    return child, child.process.stdout


def is_stopped(child: Child) -> bool:
    """Whether the system shows the process as stopped."""
    return Path(f"/proc/{child.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the state of a process from /proc")
async def test_a_frozen_process_goes_on_after_its_time_and_at_the_end_of_the_block(until: Any) -> None:
    child, lines = await started()
    assert child.process is not None
    async with ProcessHands(OneChild(child)) as hands:  # type: ignore[arg-type]
        hands.hang("r0", 0.3)
        await until(lambda: is_stopped(child))
        await until(lambda: not is_stopped(child))
        assert await lines.readline() == b"tick\n"
        hands.hang("r0", 1_000.0)
        await until(lambda: is_stopped(child))
    await until(lambda: not is_stopped(child))
    hands.kill("r0")
    assert await child.process.wait() == -signal.SIGKILL
    with pytest.raises(Conflict, match="no process just now"):
        hands.kill("r0")
    with pytest.raises(NotFound, match="there are r0"):
        hands.hang("r1", 1.0)
    await lines.read()


def test_an_autoscaler_is_told_in_words() -> None:
    events = EventLog(lambda: 0.0)
    say_size(events, "large@1", 2, 3, 6.25)
    say_size(events, "large@1", 3, 1, 0.0)

    assert [event.text for event in events.after()] == [
        "The autoscaler adds a replica of large@1: 3 instead of 2 (load: 6.2 requests for each that is ready).",
        "The autoscaler takes away 2 replicas of large@1: 1 instead of 3 (load: 0.0 requests for each that is ready).",
    ]
