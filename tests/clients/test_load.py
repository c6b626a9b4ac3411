"""Open-loop load: sends at its times whatever the answers do, and counts from the intended time."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from miniserve.__main__ import main
from miniserve.clients.load import LoadResult, LoadRun, first_model, prompt_text
from miniserve.clock import monotonic
from miniserve.errors import UpstreamError
from miniserve.processes.http_server import HttpServer, bind
from miniserve.types import Request, SamplingParams

pytestmark = pytest.mark.anyio

Handler = Callable[[dict[str, Any], Callable[[str], Awaitable[None]]], Awaitable[None]]
TOKEN = json.dumps({"choices": [{"text": " a", "finish_reason": None}]})
DONE = "[DONE]"


def requests(count: int, *, every_s: float = 0.0, **fields: Any) -> list[Request]:
    return [
        Request(f"q{i}", "m", range(5), SamplingParams(max_tokens=3), arrived_s=i * every_s, **fields)
        for i in range(count)
    ]


@asynccontextmanager
async def server(handle: Handler, status: int = 200) -> AsyncIterator[str]:
    """An OpenAI-compatible server whose answers are a script: `handle(body, write)` writes events."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/v1/models":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b'{"data": [{"id": "scripted"}]}'})
            return
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]

        async def write(data: str) -> None:
            event = f"data: {data}\n\n".encode()
            await send({"type": "http.response.body", "body": event, "more_body": True})

        await send({"type": "http.response.start", "status": status, "headers": []})
        await handle(json.loads(body), write)
        await send({"type": "http.response.body", "body": b""})

    async with HttpServer(app, bind(0)) as running:
        yield running.url


async def answer(body: dict[str, Any], write: Callable[[str], Awaitable[None]]) -> None:
    for _ in range(body["max_tokens"]):
        await write(TOKEN)
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
    await write(json.dumps({"choices": [], "usage": usage}))
    await write(DONE)


async def run(url: str, sent: list[Request], model: str = "m") -> LoadResult:
    async with asyncio.timeout(20.0):
        return await LoadRun(url, model, monotonic).run(sent)


async def test_every_answer_is_recorded_in_columns() -> None:
    async with server(answer) as url:
        result = await run(url, requests(5, tenant="t"))
    summary = result.outcomes.summary()
    assert (summary.requests, summary.served) == (5, 5)
    assert set(result.outcomes.prompt_tokens) == {7}
    assert set(result.outcomes.output_tokens) == {3}
    assert set(result.outcomes.cached_tokens) == {2}
    assert result.outcomes.tenants == ("t",)
    assert summary.ttft is not None
    assert len(result.lag_s) == 5
    assert result.stopped is None
    assert "5 requests left" in result.lag_line()


async def test_it_never_waits_for_answers() -> None:
    """No answer comes before all requests are there: a client that waits for one would wait for ever."""
    arrived, everybody = itertools.count(1), asyncio.Event()

    async def hold(body: dict[str, Any], write: Callable[[str], Awaitable[None]]) -> None:
        if next(arrived) == 30:
            everybody.set()
        await everybody.wait()
        await answer(body, write)

    async with server(hold) as url:
        result = await run(url, requests(30, every_s=0.001))
    assert result.outcomes.summary().served == 30


async def test_latency_counts_from_the_intended_time_and_the_lag_is_told() -> None:
    """On a clock that moves a second whenever it is read, every request leaves late."""
    ticks = itertools.count()
    async with server(answer) as url:
        load = LoadRun(url, "m", lambda: float(next(ticks)))
        async with asyncio.timeout(20.0):
            result = await load.run(requests(3))
    assert min(result.lag_s) >= 1.0
    assert set(result.outcomes.arrived_s) == {0.0}
    assert all(result.outcomes.ttft_s > min(result.lag_s))


async def test_each_kind_of_failure_has_its_status() -> None:
    async def broken(body: dict[str, Any], write: Callable[[str], Awaitable[None]]) -> None:
        await write(TOKEN)

    async def error_inside(body: dict[str, Any], write: Callable[[str], Awaitable[None]]) -> None:
        await write(json.dumps({"error": {"message": "x"}}))

    async def nonsense(body: dict[str, Any], write: Callable[[str], Awaitable[None]]) -> None:
        await write("{")

    over = asyncio.Event()

    async def never(body: dict[str, Any], write: Callable[[str], Awaitable[None]]) -> None:
        await write(TOKEN)
        await over.wait()

    async def status_of(handle: Handler, status: int = 200, **fields: Any) -> int:
        async with server(handle, status) as url:
            result = await run(url, requests(1, **fields))
            if handle is never:
                over.set()
            return int(result.outcomes.status[0])

    assert await status_of(broken) == 502
    assert await status_of(error_inside) == 502
    assert await status_of(nonsense) == 502
    assert await status_of(answer, 503) == 503
    assert await status_of(never, deadline_s=0.05) == 499
    unused = bind(0)
    port = unused.getsockname()[1]
    unused.close()
    refused = await run(f"http://127.0.0.1:{port}", requests(1))
    assert list(refused.outcomes.status) == [502]
    assert refused.reasons[502].startswith("ConnectError: ")


async def test_what_the_server_said_is_told(replica_url: str) -> None:
    """The model's context is 512 tokens."""
    long = Request("q", "tiny", range(2000), SamplingParams(max_tokens=3))
    result = await run(replica_url, [long], model="tiny")
    assert list(result.outcomes.status) == [400]
    assert "512" in result.reasons[400]


async def test_breaking_off_keeps_what_is_there() -> None:
    answered, over = asyncio.Event(), asyncio.Event()

    async def only_the_first(body: dict[str, Any], write: Callable[[str], Awaitable[None]]) -> None:
        if body["max_tokens"] == 1:
            await answer(body, write)
        else:
            await over.wait()

    sent = requests(3)
    sent[0] = Request("q0", "m", range(5), SamplingParams(max_tokens=1))
    async with server(only_the_first) as url:
        load = LoadRun(url, "m", monotonic, on_progress=lambda sent, done: answered.set() if done else None)
        task = asyncio.create_task(load.run(sent))
        async with asyncio.timeout(20.0):
            await answered.wait()
            task.cancel()
            result = await task
        over.set()
    assert result.stopped is not None
    assert (len(result.outcomes), result.unanswered) == (1, 2)


async def test_a_follow_up_begins_with_the_same_words() -> None:
    first, longer = prompt_text(range(100, 150)), prompt_text(range(100, 180))
    assert longer.startswith(first)
    assert len(first.split()) == 50
    assert prompt_text(range(1 << 20, (1 << 20) + 50)) != first
    assert len(set(first.split())) > 20


def test_unrelated_chats_share_not_even_the_first_block_of_words() -> None:
    """A server's prefix cache would find what no two of them have in common."""
    beginnings = {prompt_text(range(chat << 20, (chat << 20) + 16)) for chat in range(3000)}
    assert len(beginnings) == 3000


async def test_the_servers_model_is_found_or_its_absence_told() -> None:
    async with server(answer) as url:
        assert await first_model(url) == await first_model(url + "/v1") == "scripted"
    with pytest.raises(UpstreamError, match="does not answer"):
        await first_model(url)


async def test_a_real_edge_understands_it(replica_url: str) -> None:
    result = await run(replica_url, requests(4), model="tiny")
    assert result.outcomes.by_status() == {200: 4}
    assert set(result.outcomes.output_tokens) == {3}


# --- the command ---------------------------------------------------------------------------------------------------

SCENARIO = """
[run]
requests = 20
[workload]
arrivals = { kind = "poisson", rate_per_s = 500 }
output = { kind = "constant", tokens = 3 }
prompt = { kind = "constant", tokens = 4 }
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "s.toml"
    path.write_text(SCENARIO)
    return path


async def test_the_command_shows_what_clients_saw(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with server(answer) as url:
        plot = scenario.with_suffix(".png")
        code = await asyncio.to_thread(main, ["load", url, "--scenario", str(scenario), "--plot", str(plot)])
    out = capsys.readouterr().out
    assert code == 0
    assert "20 requests in" in out
    assert "latencies count from the intended time" in out
    assert plot.stat().st_size > 1000


async def test_the_command_says_when_nobody_is_there(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with server(answer) as url:
        pass
    assert await asyncio.to_thread(main, ["load", url, "--scenario", str(scenario)]) == 2
    assert "/v1/models does not answer" in capsys.readouterr().err


def test_the_command_refuses_a_bad_scenario_first(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario.write_text(SCENARIO.replace("rate_per_s", "rate"))
    assert main(["load", "http://127.0.0.1:1", "--scenario", str(scenario)]) == 2
    assert "s.toml:5: workload.arrivals.rate: unknown key" in capsys.readouterr().err


async def test_httpx_is_told_to_keep_no_limit_on_connections() -> None:
    """A pool of 100 connections would make the hundred-and-first request wait: a closed loop by the back door."""
    load = LoadRun("http://127.0.0.1:1", "m", monotonic)
    pool = load._client._transport._pool  # type: ignore[attr-defined]
    assert pool._max_connections > 1_000_000
    await load._client.aclose()
    assert isinstance(load._client, httpx.AsyncClient)
