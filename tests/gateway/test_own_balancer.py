"""A user's own balancer decides in a live gateway; when it breaks, its request fails and the gateway goes on."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from parity.paced import PacedReplica

from miniserve.__main__ import main
from miniserve.clock import monotonic
from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.gateway.fleet import Fleet
from miniserve.plugins.load import load_object
from miniserve.policies.bundle import Policies
from miniserve.policies.routing.balancer import Balancer
from miniserve.processes.http_server import bind
from miniserve.processes.stack import GatewayOptions, running_gateway

pytestmark = pytest.mark.anyio

FAVOURITE = """
class Mine:
    def choose(self, request, replicas):
        return {what}
"""


@asynccontextmanager
async def gateway(folder: Path, file: Path) -> AsyncIterator[tuple[httpx.AsyncClient, list[PacedReplica]]]:
    """A gateway whose balancer is `file`'s, in front of two replicas that compute nothing."""
    options = GatewayOptions("tiny", folder, policies=Policies(load_object(f"{file}:Mine", Balancer)))
    instant = StepTimeModel(0.0, 0.0, 0.0, 0.0, 0.0)
    async with Fleet(monotonic) as fleet:
        replicas = [
            PacedReplica(SchedulerConfig(), CacheConfig(), instant, max_model_len=512, version="tiny") for _ in range(2)
        ]
        for i, replica in enumerate(replicas):
            await fleet.put(f"r{i}", replica)
        await fleet.answered.wait()
        async with (
            running_gateway(options, fleet, bind(0)) as running,
            httpx.AsyncClient(base_url=running.url, timeout=20.0, trust_env=False) as client,
        ):
            yield client, replicas
        for replica in replicas:
            await replica.close()


def body(i: int = 0) -> dict[str, object]:
    return {"model": "tiny", "prompt": f"Hello {i}", "max_tokens": 3, "ignore_eos": True}


async def test_it_decides(tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FAVOURITE.format(what="'r1'"))
    async with gateway(tiny_folder, file) as (client, replicas):
        for i in range(5):
            assert (await client.post("/v1/completions", json=body(i))).status_code == 200
        assert [replica.scheduler.counters.finished["length"] for replica in replicas] == [0, 5]


async def test_when_it_breaks_its_request_fails_and_the_log_names_it(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FAVOURITE.format(what="'nobody'"))
    with caplog.at_level(logging.ERROR):
        async with gateway(tiny_folder, file) as (client, _):
            for i in range(2):
                answer = await client.post("/v1/completions", json=body(i))
                assert answer.status_code == 500
                assert "nobody" not in answer.text
    assert "Mine" in caplog.text
    assert "'nobody'" in caplog.text


@pytest.mark.parametrize("command", [["demo"], ["serve", "--replica", "http://127.0.0.1:1"]])
def test_what_cannot_be_loaded_is_one_line_before_anything_starts(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--port", "0", "--balancer", "no.py:Mine"]) == 2
    assert "no.py does not exist" in capsys.readouterr().err
    assert main([*command, "--port", "0", "--balancer", "p3c"]) == 2
    assert """--balancer p3c: policies.balancer: there is no "p3c"; did you mean `p2c`?""" in capsys.readouterr().err
