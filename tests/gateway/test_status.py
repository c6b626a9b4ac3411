"""What a gateway says about itself: `GET /status`, `/metrics`, and the command that shows it to a person."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from parity.paced import PacedReplica
from requirements_probe import require_program

from miniserve.__main__ import main
from miniserve.clock import monotonic
from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.gateway.fleet import Fleet
from miniserve.gateway.status import ProcessFacts
from miniserve.processes.http_server import bind
from miniserve.processes.stack import Gateway, GatewayOptions, running_gateway

pytestmark = pytest.mark.anyio

FACTS = {"r0": ProcessFacts(4711, 2, {"weights": 1.5, "ready": 0.5}), "r1": ProcessFacts()}
LATENCIES = ("ttft_s", "itl_s", "e2e_s")


@asynccontextmanager
async def gateway(folder: Path, **options: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Gateway]]:
    """A gateway in front of two replicas that compute nothing, each known to a supervisor."""
    instant = StepTimeModel(0.0, 0.0, 0.0, 0.0, 0.0)
    async with Fleet(monotonic) as fleet:
        replicas = [
            PacedReplica(SchedulerConfig(), CacheConfig(), instant, max_model_len=512, version="tiny") for _ in range(2)
        ]
        for i, replica in enumerate(replicas):
            await fleet.put(f"r{i}", replica)
        options_ = GatewayOptions("tiny", folder, **options)
        async with (
            running_gateway(options_, fleet, bind(0), processes=lambda: FACTS) as running,
            httpx.AsyncClient(base_url=running.url, timeout=20.0, trust_env=False) as client,
        ):
            yield client, running
        for replica in replicas:
            await replica.close()


async def ask(client: httpx.AsyncClient, count: int = 6, **fields: Any) -> None:
    for i in range(count):
        body = {"model": "tiny", "prompt": f"Hello {i}", "max_tokens": 4, "ignore_eos": True, **fields}
        assert (await client.post("/v1/completions", json=body)).status_code == 200


async def test_before_any_request_there_are_replicas_and_no_latencies(tiny_folder: Path) -> None:
    async with gateway(tiny_folder) as (client, running):
        status = (await client.get("/status")).json()
    assert (status["url"], status["ready"], status["models"]) == (running.url, True, ["tiny"])
    assert [status["requests"][name] for name in LATENCIES] == [None] * 3
    first, second = status["replicas"]
    assert (first["replica_id"], first["state"], first["model"], first["outstanding"]) == ("r0", "ready", "tiny", 0)
    assert (first["pid"], first["restarts"], first["cold_start_s"]) == (4711, 2, {"weights": 1.5, "ready": 0.5})
    assert (second["restarts"], second["paced"], second["overrun_fraction"]) == (0, False, None)


async def test_what_clients_got_is_in_it(tiny_folder: Path) -> None:
    async with gateway(tiny_folder) as (client, _):
        await ask(client)
        refused = await client.post("/v1/completions", json={"model": "tiny", "prompt": "a", "max_tokens": -1})
        assert refused.status_code == 400
        status = (await client.get("/status")).json()
    requests = status["requests"]
    assert (requests["total"], requests["in_flight"], requests["failed"]) == (6, 0, 0), (
        "a refused body is no generation"
    )
    assert requests["attempts"] == sum(replica["attempts"] for replica in status["replicas"]) == 6
    for name in LATENCIES:
        values = [requests[name][p] for p in ("p50", "p90", "p99", "p99.9")]
        assert values == sorted(values)
        assert values[0] > 0
    assert requests["e2e_s"]["p50"] >= requests["ttft_s"]["p50"]


def promtool(text: str) -> subprocess.CompletedProcess[str]:
    program = require_program("promtool")
    return subprocess.run([program, "check", "metrics"], input=text, capture_output=True, text=True, check=False)


async def metrics_of(client: httpx.AsyncClient) -> str:
    return (await client.get("/metrics")).text


async def test_each_replica_has_its_series_and_the_whole_is_lint_clean(tiny_folder: Path) -> None:
    async with gateway(tiny_folder) as (client, _):
        await ask(client, stream=True)
        text = await metrics_of(client)
    attempts = [line for line in text.splitlines() if line.startswith("miniserve_replica_attempts_total{")]
    assert sum(float(line.split()[-1]) for line in attempts) == 6
    assert 'miniserve_replica_state{model="tiny",replica="r1",state="ready"} 1.0' in text
    assert 'miniserve_replica_restarts_total{replica="r0"} 2.0' in text
    assert 'miniserve_replica_cold_start_seconds{replica="r0",stage="weights"} 1.5' in text
    assert 'miniserve_calls_total{endpoint="completions",model="tiny",stream="true"} 6.0' in text
    assert "vllm:" not in text
    lint = promtool(text)
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")


async def test_vllms_names_are_repeated_for_each_replica_when_asked_for(tiny_folder: Path) -> None:
    async with gateway(tiny_folder, vllm_metrics=True) as (client, _):
        await ask(client)
        text = await metrics_of(client)
    assert text.count("# TYPE vllm:num_requests_running gauge") == 1
    for replica in ("r0", "r1"):
        assert f'vllm:num_requests_running{{engine="{replica}",model_name="tiny"}} 0.0' in text
    assert 'vllm:e2e_request_latency_seconds_count{model_name="tiny"} 6.0' in text
    assert 'vllm:time_to_first_token_seconds_bucket{le="0.0005",model_name="tiny"}' in text
    checked = promtool(text)
    assert "error while linting" not in checked.stderr  # the colon in vLLM's names is the only thing that it minds
    assert all("vllm:" in line for line in checked.stderr.splitlines())


# --- the command ---------------------------------------------------------------------------------------------------


async def command(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["status", *arguments])


async def test_a_person_gets_a_table_and_a_script_gets_json(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    async with gateway(tiny_folder) as (client, running):
        await ask(client)
        assert await command("--url", running.url) == 0
        table = capsys.readouterr().out
        assert await command("--url", f"{running.url}/v1/", "--json") == 0
        status = json.loads(capsys.readouterr().out)
    for word in ("r0", "r1", "ready", "4711", "p99.9", "TTFT", "ITL", "end to end", "6 requests", "weights 1.5"):
        assert word in table
    assert status["requests"]["total"] == 6


async def test_nobody_there_and_somebody_else_there_are_told_apart(
    replica_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with bind(0) as unused:
        port = unused.getsockname()[1]
    assert await command("--url", f"http://127.0.0.1:{port}") == 2
    assert "no gateway answers at" in capsys.readouterr().err
    assert await command("--url", "http://") == 2
    assert "no gateway answers at" in capsys.readouterr().err
    assert await command("--url", replica_url) == 2
    assert "answers, but not as a miniserve gateway" in capsys.readouterr().err
