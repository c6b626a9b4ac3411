"""Rollouts on real processes: a bad version goes back, a good one takes over, and a restart changes neither."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from miniserve.models.store import resolve_model
from miniserve.operations.admin import TOKEN_HEADER, kept_token
from miniserve.operations.standard import STANDARD_PARTS
from miniserve.processes.http_server import bind
from miniserve.processes.pools import Pool
from miniserve.processes.stack import GatewayOptions, Stack, running_pools
from tests.processes.graded import Graded, questions, until_true

pytestmark = pytest.mark.anyio

Record = Callable[[str, object], None]
ARGUMENTS = ("--offline", "--threads", "1", "--log-level", "warning")
COLD_S = 170.0  # for what includes cold starts, on a machine that may have much else to do
PROMISED_S = 180.0  # within which harm is rolled back
RATE_PER_S = 20.0


@asynccontextmanager
async def stack_of(pool: Pool, state: Path) -> AsyncIterator[tuple[Stack, httpx.AsyncClient]]:
    options = GatewayOptions(pool.served_name, pool.folder, drain_timeout_s=20.0, parts=STANDARD_PARTS, state_dir=state)
    headers = {TOKEN_HEADER: kept_token(state)}
    async with (
        running_pools(options, [pool], bind(0)) as stack,
        httpx.AsyncClient(base_url=stack.url, timeout=120.0, trust_env=False, headers=headers) as client,
    ):
        yield stack, client


async def press(client: httpx.AsyncClient, action: str, **fields: object) -> None:
    answer = await client.post("/admin/rollout", json={"action": action, **fields})
    assert answer.status_code == 200, answer.text


def told(stack: Stack) -> dict[str, Any]:
    part: Any = stack.gateway.desk.part("rollout")
    return part.status() or {}


# --- with the tiny model: starts, switches, and a folder that cannot be served ---------------------------------------


class Client:
    """Asks without a pause, once for the model and once for the old version, and remembers who answered."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.served: list[tuple[str, str]] = []
        self.is_asking = True

    async def ask(self, model: str) -> str:
        body = {"model": model, "prompt": "Once", "temperature": 0, "max_tokens": 3, "ignore_eos": True}
        answer = await self.client.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-miniserve-model"]

    async def keep_asking(self, model: str) -> None:
        while self.is_asking:
            self.served.append((model, await self.ask(model)))


async def test_a_switch_costs_no_request_and_a_restart_serves_what_was_promoted(
    tiny_folder: Path, tmp_path: Path, record_property: Record
) -> None:
    pool = Pool("tiny", tiny_folder, "1", arguments=ARGUMENTS)
    async with stack_of(pool, tmp_path) as (stack, client):
        asking = Client(client)
        callers = [asyncio.create_task(asking.keep_asking(model)) for model in ("tiny", "tiny", "tiny@1")]
        switch = {"new": "tiny@2", "source": str(tiny_folder), "strategy": "blue-green", "without_eval": True}
        await press(client, "start", **switch)
        await until_true(lambda: told(stack)["phase"] == "warm", COLD_S)
        assert await asking.ask("tiny") == await asking.ask("tiny@2") == "tiny@2"
        switched_after_s = told(stack)["switched_after_s"]

        await press(client, "rollback")
        assert await asking.ask("tiny") == "tiny@1", "at once"
        await until_true(lambda: len(stack.supervisor.children) == 1, COLD_S)
        record_property("switched_after_s_with_a_cold_start", switched_after_s)
        record_property("back_after_s", told(stack)["back_after_s"])

        await press(client, "start", **switch)
        await until_true(lambda: told(stack)["phase"] == "warm", COLD_S)
        asking.is_asking = False
        await asyncio.gather(*callers)
        assert {served for model, served in asking.served if model == "tiny@1"} == {"tiny@1"}, "a pin is a promise"
        assert {served for model, served in asking.served if model == "tiny"} == {"tiny@1", "tiny@2"}
        record_property("requests_during_the_switches", len(asking.served))
        await press(client, "promote")
        await until_true(lambda: len(stack.supervisor.children) == 1, COLD_S)
    async with stack_of(pool, tmp_path) as (stack, client):
        assert [child.replica_id for child in stack.supervisor.children] == ["tiny@2-0"]
        assert await Client(client).ask("tiny") == "tiny@2"
        assert told(stack)["phase"] == "done"


async def test_a_version_that_does_not_load_fails_alone(tiny_folder: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_folder, tmp_path / "broken")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    async with stack_of(Pool("tiny", tiny_folder, "1", arguments=ARGUMENTS), tmp_path) as (stack, client):
        refused = await client.post("/admin/rollout", json={"action": "start", "new": "tiny@2", "without_eval": True})
        assert refused.status_code == 400
        assert "there is no model 'tiny@2'" in refused.json()["error"]["message"]
        await press(client, "start", new="tiny@2", source=str(folder), without_eval=True)
        await until_true(lambda: told(stack)["phase"] == "failed", COLD_S)
        assert "model.norm.weight holds nan" in told(stack)["reason"]
        assert await Client(client).ask("tiny") == "tiny@1"
        assert [child.replica_id for child in stack.supervisor.children] == ["tiny@1-0"]
        assert (await client.post("/v1/completions", json={"model": "tiny@2", "prompt": "x"})).status_code == 404


async def test_a_killed_gateway_goes_on_with_its_rollout(tiny_folder: Path, tmp_path: Path) -> None:
    """SIGKILL to the gateway's process, whose replicas die with it; the next one has their versions and the figures."""
    async with gateway_process(tiny_folder, tmp_path) as (process, client):
        start = {"new": "tiny@2", "source": str(tiny_folder), "shares": [0.5, 1.0], "min_answers": 10_000}
        await press(client, "start", without_eval=True, **start)
        before = await section(client, lambda told: told["phase"] == "running")
        for _ in range(20):
            await Client(client).ask("tiny")
        before = await section(client, lambda told: told["answers_in_stage"] > 0)
        await asyncio.sleep(0)
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    async with gateway_process(tiny_folder, tmp_path) as (_, client):
        after = await section(client, lambda told: True)
        for key in ("phase", "stage", "share", "old", "new", "min_answers", "without_eval"):
            assert after[key] == before[key], key
        assert after["answers_in_stage"] >= before["answers_in_stage"] > 0
        assert await Client(client).ask("tiny@2") == "tiny@2"
        asking = Client(client)
        assert {await asking.ask("tiny") for _ in range(30)} == {"tiny@1", "tiny@2"}
        await press(client, "rollback")
        assert {await asking.ask("tiny") for _ in range(10)} == {"tiny@1"}


@asynccontextmanager
async def gateway_process(
    folder: Path, state: Path
) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx.AsyncClient]]:
    """Run `miniserve demo` with one replica of tiny@1, and the state in `state`."""
    command = [sys.executable, "-m", "miniserve", "demo", "--model", str(folder), "--served-name", "tiny@1"]
    command += ["--replicas", "1", "--offline", "--port", "0", "--no-table", "--no-load", "--state", str(state)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(COLD_S):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("ready: "), line
        url = line.split()[1]
        headers = {TOKEN_HEADER: kept_token(state)}
        async with httpx.AsyncClient(base_url=url, timeout=60.0, trust_env=False, headers=headers) as client:
            yield process, client
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def section(client: httpx.AsyncClient, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the rollout's section of the status once it `fits`."""
    async with asyncio.timeout(COLD_S):
        while not fits(told := (await client.get("/status")).json()["rollout"]):  # noqa: ASYNC110 -- another process's
            await asyncio.sleep(0.05)
    return dict(told)


# --- with the models that the project ships, whose answers can be graded ---------------------------------------------


@asynccontextmanager
async def large_stack(state: Path) -> AsyncIterator[tuple[Stack, httpx.AsyncClient]]:
    folder = resolve_model("large", Path(), offline=True)
    async with stack_of(Pool("large", folder, "1", 2, "default", arguments=ARGUMENTS), state) as running:
        yield running


async def roll_out(stack: Stack, client: httpx.AsyncClient, new: str, shares: list[float], seed: int) -> Graded:
    """Let a rollout run to its verdict under graded questions, and bring the stack back to where it was."""
    await press(client, "start", new=new, shares=shares, without_eval=new == "large@bad")
    await until_true(lambda: told(stack)["phase"] == "running", COLD_S)
    async with questions(stack, RATE_PER_S, seed=seed, pinned="large@1") as graded:
        try:
            await until_true(lambda: told(stack)["phase"] != "running", 20 * 60.0)
        finally:
            assert graded.failed == []
    return graded


async def back_to_one_version(stack: Stack, client: httpx.AsyncClient) -> None:
    if told(stack)["phase"] == "warm":
        await press(client, "rollback")
    await until_true(lambda: len(stack.supervisor.children) == 2, COLD_S)
    await press(client, "clear")


@pytest.mark.parametrize(
    ("runs", "shares"), [(1, [0.5, 1.0]), pytest.param(10, [0.1, 0.5, 1.0], marks=pytest.mark.full)]
)
async def test_a_bad_version_is_rolled_back_before_its_first_stage_ends(
    tmp_path: Path, runs: int, shares: list[float], record_property: Record
) -> None:
    after_s, exposed, reasons = [], [], []
    async with large_stack(tmp_path) as (stack, client):
        refused = await client.post("/admin/rollout", json={"action": "start", "new": "large@bad"})
        assert refused.status_code == 409
        assert "large@bad scored 73.4% in its recorded eval and large@1 94.4%" in refused.json()["error"]["message"]
        for run in range(runs):
            graded = await roll_out(stack, client, "large@bad", shares, seed=run)
            end = told(stack)
            assert (end["phase"], end["stage"]) == ("rolled_back", 0), end
            after_s.append(end["rolled_back_after_s"])
            exposed.append(end["exposed_share"])
            reasons.append(end["reason"].partition(":")[0])
            assert {served for asked, served in graded.served if asked == "large@1"} == {"large@1"}
            await back_to_one_version(stack, client)
    record_property("rolled_back_after_s", sorted(after_s))
    record_property("exposed_share", sorted(exposed))
    record_property("guardrails", sorted(reasons))
    assert max(after_s) < PROMISED_S


@pytest.mark.full
async def test_a_good_version_is_promoted(tmp_path: Path, record_property: Record) -> None:
    runs, promoted, reasons = 10, 0, []
    async with large_stack(tmp_path) as (stack, client):
        for run in range(runs):
            graded = await roll_out(stack, client, "large@2", [0.1, 0.5, 1.0], seed=100 + run)
            end = told(stack)
            promoted += end["phase"] == "warm"
            reasons += [end["reason"]] if end["reason"] else []
            assert {served for asked, served in graded.served if asked == "large@1"} == {"large@1"}
            await back_to_one_version(stack, client)
    record_property("promoted_of_runs", [promoted, runs])
    record_property("rolled_back_by", reasons)
    assert promoted >= 9
