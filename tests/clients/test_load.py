"""Open-loop load: sends at its times whatever the answers do, and counts from the intended time."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from miniserve.__main__ import main
from miniserve.clients.answer import Answer
from miniserve.clients.load import Habits, LoadResult, LoadRun, first_model, prompt_text
from miniserve.clock import monotonic
from miniserve.errors import UpstreamError
from miniserve.policies.recovery.retry import Backoff, NaiveRetry
from miniserve.policies.recovery.retry_budget import TokenThrottle
from miniserve.processes.http_server import HttpServer, bind
from miniserve.types import Priority, Request, SamplingParams

pytestmark = pytest.mark.anyio

Handler = Callable[[dict[str, Any], Callable[[str], Awaitable[None]]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]
TOKEN = json.dumps({"choices": [{"text": " a", "finish_reason": None}]})
DONE = "[DONE]"


def requests(count: int, *, every_s: float = 0.0, **fields: Any) -> list[Request]:
    return [
        Request(f"q{i}", "m", range(5), SamplingParams(max_tokens=3), arrived_s=i * every_s, **fields)
        for i in range(count)
    ]


@asynccontextmanager
async def server(
    handle: Handler, status: int = 200, *, heard: list[dict[str, str]] | None = None, more: Headers = ()
) -> AsyncIterator[str]:
    """An OpenAI-compatible server whose answers are a script: `handle(body, write)` writes events.

    `heard` collects the headers of requests; `more` are headers of the answers.
    """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/v1/models":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b'{"data": [{"id": "scripted"}]}'})
            return
        if heard is not None:
            heard.append({name.decode(): value.decode() for name, value in scope["headers"]})
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]

        async def write(data: str) -> None:
            event = f"data: {data}\n\n".encode()
            await send({"type": "http.response.body", "body": event, "more_body": True})

        await send({"type": "http.response.start", "status": status, "headers": list(more)})
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


async def run(url: str, sent: list[Request], model: str = "m", habits: Habits | None = None) -> LoadResult:
    async with asyncio.timeout(20.0):
        return await LoadRun(url, model, monotonic, habits=habits).run(sent)


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


async def test_what_leaves_within_the_warm_up_is_sent_and_in_no_figure() -> None:
    """The first two are refused, and the others are answered: only these count."""
    asked = itertools.count()

    async def refuse_two(body: dict[str, Any], write: Callable[[str], Awaitable[None]]) -> None:
        if next(asked) < 2:
            await write(json.dumps({"error": {"message": "cold", "type": "overloaded_error"}}))
        else:
            await answer(body, write)

    progress: list[tuple[int, int]] = []
    async with server(refuse_two) as url, asyncio.timeout(20.0):
        load = LoadRun(url, "m", monotonic, warmup_s=0.15, on_progress=lambda *counts: progress.append(counts))
        result = await load.run(requests(5, every_s=0.1))
    assert max(progress) == (5, 5), "a progress bar shows them all"
    assert list(result.outcomes.arrived_s) == [0.2, pytest.approx(0.3), 0.4]
    assert result.outcomes.by_status() == {200: 3}
    assert (len(result.lag_s), len(result.itl_s), result.reasons) == (3, 6, {})


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


# --- what a request says about itself ----------------------------------------------------------------------------


async def test_who_asks_is_in_the_headers() -> None:
    heard: list[dict[str, str]] = []
    fields = {"tenant": "acme", "session_key": "s7", "region": "eu", "feature": "search", "priority": Priority.BATCH}
    async with server(answer, heard=heard) as url:
        await run(url, requests(1, deadline_s=9.0, **fields))
        await run(url, requests(1))
    said = {name: heard[0].get(f"x-{name}") for name in ("tenant-id", "session-id", "region", "feature", "priority")}
    assert list(said.values()) == ["acme", "s7", "eu", "search", "batch"]
    assert 8.0 < float(heard[0]["x-request-timeout-s"]) <= 9.0
    assert not {"x-tenant-id", "x-region", "x-feature", "x-request-timeout-s"} & heard[1].keys()


async def test_what_does_not_fit_ascii_is_sent_all_the_same() -> None:
    heard: list[dict[str, str]] = []
    async with server(answer, heard=heard) as url:
        result = await run(url, requests(1, tenant="Käserei 🧀"))
    assert result.outcomes.by_status() == {200: 1}
    assert heard[0]["x-tenant-id"] == "Käserei 🧀"


# --- clients that ask again --------------------------------------------------------------------------------------


async def test_a_failed_request_is_asked_again_under_another_name() -> None:
    heard: list[dict[str, str]] = []
    async with server(answer, 503, heard=heard) as url:
        result = await run(url, requests(1), habits=Habits(retry=NaiveRetry(max_attempts=3)))
    assert result.outcomes.by_status() == {503: 1}
    assert list(result.outcomes.attempts) == [3]
    assert [one["x-request-id"] for one in heard] == ["q0", "q0~1", "q0~2"]


async def test_the_budget_of_all_clients_ends_a_storm() -> None:
    heard: list[dict[str, str]] = []
    async with server(answer, 503, heard=heard) as url:
        habits = Habits(retry=NaiveRetry(max_attempts=100), budget=TokenThrottle())
        result = await run(url, requests(20), habits=habits)
    assert result.outcomes.by_status() == {503: 20}
    assert 20 <= len(heard) < 40


async def test_a_try_that_takes_too_long_is_given_up_and_repeated() -> None:
    """The first try hangs after a token; the second is served. Latency counts from the intended time."""
    tries, over = itertools.count(), asyncio.Event()

    async def slow_at_first(body: dict[str, Any], write: Callable[[str], Awaitable[None]]) -> None:
        if next(tries) == 0:
            await write(TOKEN)
            await over.wait()
        await answer(body, write)

    async with server(slow_at_first) as url:
        habits = Habits(timeout_s=0.2, retry=NaiveRetry(max_attempts=2))
        result = await run(url, requests(1), habits=habits)
        over.set()
    assert result.outcomes.by_status() == {200: 1}
    assert list(result.outcomes.attempts) == [2]
    assert result.outcomes.e2e_s[0] >= 0.2


async def test_what_cannot_be_mended_is_not_repeated_and_push_back_is_obeyed() -> None:
    heard: list[dict[str, str]] = []
    async with server(answer, 400, heard=heard) as url:
        await run(url, requests(1), habits=Habits(retry=Backoff()))
        assert len(heard) == 1
    async with server(answer, 429, heard=heard, more=[(b"retry-after", b"3600")]) as url:
        await run(url, requests(1, deadline_s=60.0), habits=Habits(retry=Backoff()))
    assert len(heard) == 2, "an hour is past the deadline"


def test_an_answers_tokens_are_timed_as_they_come() -> None:
    read = Answer()
    two = f"data: {TOKEN}\n\n" * 2
    read.feed(f"data: {TOKEN}\n\n".encode(), 1.0)
    read.feed(two.encode(), 1.5)
    read.feed(f"data: {DONE}\n\n".encode(), 9.0)
    assert (read.status, read.first_token_s, read.gaps_s, read.ended_s) == (200, 1.0, [0.25, 0.25], 9.0)


@pytest.mark.parametrize(("said", "status"), [({"type": "timeout_error"}, 504), ({"type": "odd"}, 502), ("text", 502)])
async def test_an_error_inside_the_stream_has_its_status(said: object, status: int) -> None:
    async def broken(body: dict[str, Any], write: Callable[[str], Awaitable[None]]) -> None:
        await write(TOKEN)
        await write(json.dumps({"error": said}))

    async with server(broken) as url:
        result = await run(url, requests(1))
    assert list(result.outcomes.status) == [status]


# --- the command ---------------------------------------------------------------------------------------------------

SCENARIO = """
[run]
requests = 20
[workload]
arrivals = { kind = "poisson", rate_per_s = 500 }
output = { kind = "constant", tokens = 3 }
prompt = { kind = "constant", tokens = 4 }
"""


def extend(scenario: Path, tables: str) -> None:
    scenario.write_text(SCENARIO + tables)


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


async def test_the_command_leaves_out_the_scenarios_warm_up(
    scenario: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    async with server(answer) as url:
        words = ["load", url, "--scenario", str(scenario), "--set", "run.warmup_s=0.02", "--out", str(out)]
        assert await asyncio.to_thread(main, words) == 0
    record = json.loads(out.read_text())
    assert 0 < record["figures"]["requests"] < 20
    assert f"{record['figures']['requests']} requests left" in record["lag"]
    assert "warmup_s 0.02" in capsys.readouterr().out


async def test_the_command_judges_by_the_scenarios_goals(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = scenario.with_suffix(".json")
    extend(scenario, "[slo]\nttft_s = 1e-9\ne2e_s = 100.0\n")
    command = ["load", "--scenario", str(scenario), "--out", str(out)]
    async with server(answer) as url:
        assert await asyncio.to_thread(main, [*command, url]) == 1
        shown = capsys.readouterr().out
        assert await asyncio.to_thread(main, [*command, url, "--set", "slo.ttft_s=100.0"]) == 0
        assert "missed" not in capsys.readouterr().out
    assert "missed: TTFT <= 1e-09 s: 0.0% of requests kept it, 95.0% are wanted; p95 of those served was" in shown
    assert "E2E <= 100 s:" not in shown
    for word in ("p90", "p99.9", "ITL", "TPOT"):
        assert word in shown
    record = json.loads(out.read_text())
    assert (record["figures"]["requests"], record["by_status"], record["missed"]) == (20, {"200": 20}, [])
    assert record["figures"]["itl_p50_s"] >= 0


async def test_the_command_retries_as_the_scenarios_clients_do(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[dict[str, str]] = []
    clients = '[clients]\ntimeout_s = 5.0\nretry = { kind = "naive", max_attempts = 2 }\n'
    extend(scenario, clients + "[slo]\ne2e_s = 100.0\n")
    async with server(answer, 503, heard=heard) as url:
        assert await asyncio.to_thread(main, ["load", url, "--scenario", str(scenario)]) == 1
    assert len(heard) == 40
    assert "none was served" in capsys.readouterr().out


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
