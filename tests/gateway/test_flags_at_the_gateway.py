"""Feature flags as clients of a whole gateway see them: the header, the version, and what a restart keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from miniserve.operations.admin import TOKEN_HEADER
from miniserve.operations.flags import FlagsPart
from tests.gateway.test_rollout_at_the_gateway import Running, started

pytestmark = pytest.mark.anyio


async def press(running: Running, **body: object) -> httpx.Response:
    return await running.client.post("/admin/flags", json=body)


async def ask(running: Running, model: str = "large", **headers: str) -> tuple[str | None, str]:
    """Return which flags the answer names, and who gave it."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    answer = await running.client.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers.get("x-miniserve-flags"), answer.headers["x-miniserve-model"]


async def test_users_of_a_flag_are_told_and_get_its_version_also_after_a_restart(
    tiny_folder: Path, tmp_path: Path
) -> None:
    async with started(tiny_folder, tmp_path, FlagsPart) as running:
        assert (await press(running, action="set", name="brief", cohorts={"beta": 1.0})).status_code == 200
        told = await press(running, action="set", name="newest", on=["ann"], serves="large@2")
        assert [flag["name"] for flag in told.json()["flags"]] == ["brief", "newest"]
        assert await ask(running, **{"x-session-id": "ann", "x-cohort": "beta"}) == ("brief,newest", "large@2")

    async with started(tiny_folder, tmp_path, FlagsPart) as running:
        for _ in range(3):
            assert await ask(running, **{"x-session-id": "ann"}) == ("newest", "large@2")
        by_body = await running.ask(user="ann")
        assert by_body.headers["x-miniserve-flags"] == "newest"
        assert await ask(running, "large@1", **{"x-session-id": "ann"}) == ("newest", "large@1")
        assert (await ask(running, **{"x-session-id": "bob"}))[0] is None
        assert (await ask(running))[0] is None
        status = (await running.client.get("/status")).json()["flags"]
        assert "ann" not in str(status)
        assert status["newest"]["on"] == 1

        kept = await press(running, action="set", name="newest", share=0.5)
        assert kept.json()["flags"][1]["on"] == ["ann"], "what a set leaves out stays"
        assert (await press(running, action="clear", name="newest")).status_code == 200
        assert (await ask(running, **{"x-session-id": "ann"}))[0] is None


async def test_a_flag_whose_version_has_no_ready_replica_costs_no_answer(tiny_folder: Path, tmp_path: Path) -> None:
    async with started(tiny_folder, tmp_path, FlagsPart) as running:
        assert (await press(running, action="set", name="newest", share=1.0, serves="large@2")).status_code == 200
        fleet = running.gateway.fleet
        (gone,) = [view.replica_id for view in fleet.view().replicas if view.version == "large@2"]
        await fleet.remove(gone)
        assert await ask(running, **{"x-session-id": "ann"}) == ("newest", "large@1")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"action": "set"}, 400, "say which flag"),
        ({"action": "set", "name": "a,b"}, 400, "name"),
        ({"action": "set", "name": "a", "share": 10}, 400, "share"),
        ({"action": "set", "name": "a", "on": ["x"], "off": ["x"]}, 400, "both on and off"),
        ({"action": "set", "name": "a", "serves": "large@9"}, 404, "large@2"),
        ({"action": "set", "name": "a", "serves": "large"}, 400, "must serve a version"),
        ({"action": "clear", "name": "a"}, 404, "there are: none"),
        ({"action": "list", "more": 1}, 400, "more"),
    ],
)
async def test_bad_input_is_told_and_changes_nothing(
    tiny_folder: Path, tmp_path: Path, body: dict[str, Any], status: int, said: str
) -> None:
    async with started(tiny_folder, tmp_path, FlagsPart) as running:
        answer = await press(running, **body)
        assert answer.status_code == status, answer.text
        assert said in answer.json()["error"]["message"]
        assert (await press(running, action="list")).json() == {"flags": []}
        without = await running.client.post("/admin/flags", json={"action": "list"}, headers={TOKEN_HEADER: "no"})
        assert without.status_code == 401


@pytest.mark.parametrize("text", ['{"flags": [{"name": "a", "sh', '{"flags": [{"name": "a", "share": 7}]}', "[1]"])
async def test_a_damaged_state_is_set_aside(tiny_folder: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "flags.json").write_text(text)
    async with started(tiny_folder, tmp_path, FlagsPart) as running:
        assert (await press(running, action="list")).json() == {"flags": []}
        assert (await ask(running))[0] is None
    assert (tmp_path / "flags.damaged").read_text() == text
