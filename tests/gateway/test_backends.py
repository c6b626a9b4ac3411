"""Two foreign servers behind the gateway at its defaults, over real HTTP: what may go wrong there, and who notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway.fake_openai import FakeOpenAI, two_fakes

from miniserve.clock import monotonic
from miniserve.errors import SetupError
from miniserve.gateway.fleet import Fleet
from miniserve.models.tokenizer import Tokenizer
from miniserve.processes.backends import BackendOptions, connect_backends
from miniserve.processes.http_server import bind
from miniserve.processes.stack import Gateway, GatewayOptions, running_gateway

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Tokenizer:
    return Tokenizer.load(tiny_folder)


@dataclass
class Stage:
    """A gateway in front of two fakes, and a client."""

    gateway: Gateway
    client: httpx.AsyncClient
    fakes: tuple[FakeOpenAI, ...]

    async def ask(self, prompt: str = "Hello", max_tokens: int = 8, **body: Any) -> httpx.Response:
        fields = {"model": "tiny", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, **body}
        return await self.client.post("/v1/completions", json=fields)

    async def stream(self, prompt: str = "Hello", max_tokens: int = 60) -> list[Any]:
        """Return the data of a stream's events; `[DONE]` as itself."""
        answer = await self.ask(prompt, max_tokens, stream=True, stream_options={"include_usage": True})
        data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
        return [one if one == "[DONE]" else json.loads(one) for one in data]

    def text(self, prompt: str, max_tokens: int) -> str:
        fake = self.fakes[0]
        ids = fake._tokenizer.encode(prompt)
        return fake.text(fake.answer(ids if fake.ids else prompt, max_tokens))


@asynccontextmanager
async def stage_of(folder: Path, *fakes: FakeOpenAI, first_token_s: float | None = None) -> AsyncIterator[Stage]:
    """At the gateway's defaults, but for what a short test of a long wait needs."""
    options = GatewayOptions("tiny", folder)
    if first_token_s is not None:
        options = replace(options, policies=replace(options.policies, first_token_s=first_token_s))
    async with Fleet(monotonic) as fleet:
        await connect_backends(fleet, "tiny", folder, BackendOptions(tuple(fake.url for fake in fakes)))
        async with (
            running_gateway(options, fleet, bind(0)) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=120.0, trust_env=False) as client,
        ):
            yield Stage(gateway, client, fakes)


def text_of(events: list[Any]) -> str:
    return "".join(c["text"] for event in events if event != "[DONE]" for c in event.get("choices", ()))


def admitted(gateway: Gateway) -> list[str]:
    """Return the replicas that the policies would send a request to."""
    replicas = gateway.fleet.view().ready()
    policies, now_s = gateway.backend.policies, monotonic()
    assert policies.ejector is not None
    assert policies.progress is not None
    return [view.replica_id for view in policies.progress.admitted(policies.ejector.admitted(replicas, now_s), now_s)]


@pytest.mark.parametrize("ids", [True, False])
async def test_two_backends_share_the_work_and_answer_alike(ids: bool, tiny_folder: Path, tokenizer: Tokenizer) -> None:
    async with two_fakes(tokenizer, ids=ids) as fakes, stage_of(tiny_folder, *fakes) as stage:
        answers = await asyncio.gather(*(stage.ask(f"Question {i}") for i in range(10)))
        for i, answer in enumerate(answers):
            assert answer.json()["choices"][0]["text"] == stage.text(f"Question {i}", 8)
        assert answers[0].json()["usage"]["completion_tokens"] == 8
        assert min(len(fake.asked) for fake in fakes) >= 3


async def test_a_chat_reaches_a_backend_as_the_tokens_of_its_template(tiny_folder: Path, tokenizer: Tokenizer) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    async with FakeOpenAI(tokenizer) as fake, stage_of(tiny_folder, fake) as stage:
        body = {"model": "tiny", "messages": messages, "max_tokens": 5, "temperature": 0}
        answer = (await stage.client.post("/v1/chat/completions", json=body)).json()
        prompt = tokenizer.encode_chat(messages)
        assert fake.asked[-1]["prompt"] == prompt
        assert answer["choices"][0]["message"]["content"] == fake.text(fake.answer(prompt, 5))
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 3


async def test_poison_ejects_nobody_and_the_innocent_are_served(tiny_folder: Path, tokenizer: Tokenizer) -> None:
    """Both servers fail one certain request with a 500, again and again; nothing else goes wrong."""
    async with two_fakes(tokenizer) as fakes, stage_of(tiny_folder, *fakes) as stage:
        for fake in fakes:
            fake.poison = "poison"
        for _ in range(10):
            poisoned = await stage.ask("some poison")
            assert poisoned.status_code == 500
            assert "the backend answered 500: the engine broke" in poisoned.text
        assert admitted(stage.gateway) == ["b0", "b1"]
        before = [len(fake.asked) for fake in fakes]
        answers = await asyncio.gather(*(stage.ask(f"Question {i}") for i in range(20)))
        assert [answer.status_code for answer in answers] == [200] * 20
        assert all(len(fake.asked) > count for fake, count in zip(fakes, before, strict=True)), "both still work"


async def test_one_backend_that_always_fails_a_request_is_not_blamed_for_it(
    tiny_folder: Path, tokenizer: Tokenizer
) -> None:
    """The other one serves it, so this one is to blame, but once is not enough to be ejected."""
    async with two_fakes(tokenizer) as fakes, stage_of(tiny_folder, *fakes) as stage:
        fakes[0].poison = "poison"
        answers = [await stage.ask("some poison") for _ in range(3)]
        innocent = await asyncio.gather(*(stage.ask(f"Question {i}") for i in range(20)))
        assert [answer.status_code for answer in (*answers, *innocent)] == [200] * 23


async def test_a_client_that_leaves_stops_the_tokens_within_two(
    tiny_folder: Path, tokenizer: Tokenizer, until: Any
) -> None:
    """Tokens are made one at a time, each after the gateway has answered something else: its clock in this test."""
    permits = asyncio.Semaphore(0)
    async with FakeOpenAI(tokenizer) as fake, stage_of(tiny_folder, fake) as stage:
        fake.before_token = lambda i: permits.acquire()
        body = {"model": "tiny", "prompt": "Hello", "max_tokens": 500, "stream": True}
        async with stage.client.stream("POST", "/v1/completions", json=body) as response:
            for _ in range(3):
                permits.release()
            await anext(response.aiter_raw())
            await until(lambda: fake.produced == 3)
        for _ in range(10):
            await stage.client.get("/health")
            permits.release()
        await until(lambda: fake.running == 0)
        assert fake.produced <= 3 + 2


@pytest.mark.parametrize("index", [1, 30, 59])
async def test_a_backend_of_token_ids_that_dies_is_continued_by_the_other(
    index: int, tiny_folder: Path, tokenizer: Tokenizer
) -> None:
    async with two_fakes(tokenizer) as fakes, stage_of(tiny_folder, *fakes) as stage:
        fakes[0].deaths = fakes[1].deaths = [index]
        events = await stage.stream()
        asked = [fake.asked[0]["max_tokens"] for fake in fakes]
        assert sorted(asked) == [60 - index, 60], "the rest was asked of the other one"
        assert text_of(events) == stage.text("Hello", 60)
        assert (events[-1], events[-2]["usage"]["completion_tokens"]) == ("[DONE]", 60)
        assert len({event["id"] for event in events[:-1]}) == 1


@pytest.mark.full
@pytest.mark.parametrize("index", range(60))
async def test_a_death_at_every_token_leaves_the_text_whole(
    index: int, tiny_folder: Path, tokenizer: Tokenizer
) -> None:
    async with two_fakes(tokenizer) as fakes, stage_of(tiny_folder, *fakes) as stage:
        fakes[0].deaths = fakes[1].deaths = [index]
        assert text_of(await stage.stream()) == stage.text("Hello", 60)


async def test_a_backend_of_text_that_dies_ends_its_stream_with_an_error(
    tiny_folder: Path, tokenizer: Tokenizer
) -> None:
    async with two_fakes(tokenizer, ids=False) as fakes, stage_of(tiny_folder, *fakes) as stage:
        fakes[0].deaths = fakes[1].deaths = [5]
        events = await stage.stream()
        assert "complete" in events[-1]["error"]["message"]
        assert "[DONE]" not in events
        assert text_of(events) == stage.text("Hello", 5)
        assert len(fakes[0].asked) + len(fakes[1].asked) == 1, "nobody else was asked"
        assert (await stage.ask()).status_code == 200


async def test_a_backend_of_text_that_dies_before_its_first_word_is_replaced(
    tiny_folder: Path, tokenizer: Tokenizer
) -> None:
    async with two_fakes(tokenizer, ids=False) as fakes, stage_of(tiny_folder, *fakes) as stage:
        fakes[0].deaths = fakes[1].deaths = [0]
        events = await stage.stream()
        assert (text_of(events), events[-1]) == (stage.text("Hello", 60), "[DONE]")


@pytest.mark.parametrize("first_token_s", [2.0, pytest.param(None, marks=pytest.mark.full)])
async def test_a_backend_that_hangs_while_its_health_answers_loses_its_traffic(
    first_token_s: float | None, tiny_folder: Path, tokenizer: Tokenizer
) -> None:
    """At default limits half a minute passes until those whom it keeps waiting are answered elsewhere."""
    async with two_fakes(tokenizer) as fakes, stage_of(tiny_folder, *fakes, first_token_s=first_token_s) as stage:
        fakes[0].hangs = True
        answers = await asyncio.gather(*(stage.ask(f"Question {i}") for i in range(20)), return_exceptions=True)
        good = [one for one in answers if isinstance(one, httpx.Response) and one.status_code == 200]
        assert len(good) >= 18
        assert admitted(stage.gateway) == ["b1"]
        before = len(fakes[0].asked)
        for i in range(5):
            assert (await stage.ask(f"Later question {i}")).status_code == 200
        assert len(fakes[0].asked) - before <= 1, "a trial now and then"


# --- before the gateway opens ----------------------------------------------------------------------------------------


async def test_a_gateway_without_a_usable_backend_says_why(tiny_folder: Path, tokenizer: Tokenizer) -> None:
    async with FakeOpenAI(tokenizer, "qwen") as fake, Fleet(monotonic) as fleet:
        urls = (fake.url, "http://127.0.0.1:1")
        with pytest.raises(SetupError, match=r"serves qwen, and not tiny.*127\.0\.0\.1:1: no report from the backend"):
            await connect_backends(fleet, "tiny", tiny_folder, BackendOptions(urls))


async def test_one_that_cannot_be_used_is_passed_over_and_named(
    tiny_folder: Path, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeOpenAI(tokenizer, "qwen") as one, FakeOpenAI(tokenizer) as other, Fleet(monotonic) as fleet:
        await connect_backends(fleet, "tiny", tiny_folder, BackendOptions((one.url, other.url)))
        assert [view.replica_id for view in fleet.view().ready()] == ["b1"]
    assert f"backend {one.url} cannot be used for now" in caplog.text
