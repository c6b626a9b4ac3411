"""What a client asks for, through a real engine: each parameter acts, and gateway and replica answer alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from miniserve.api.wiring import api_app, served_model
from miniserve.clock import monotonic
from miniserve.config import ApiConfig
from miniserve.engine.engine import load_engine
from miniserve.gateway.fleet import Fleet
from miniserve.models.tokenizer import Tokenizer
from miniserve.processes.backends import connect
from miniserve.processes.http_server import HttpServer, bind
from miniserve.processes.stack import GatewayOptions, running_gateway
from miniserve.replica.local import LocalReplica
from miniserve.replica.server import add_internal_routes, reporter

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def both(folder: Path) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Yield a client of a gateway, and one of the replica behind it."""
    engine = load_engine(folder, quant="fp32", attention="torch")  # nothing to compile first
    replica = LocalReplica(engine)
    app = api_app(replica, served_model("tiny", folder, engine.max_model_len), config=ApiConfig())
    add_internal_routes(app, replica, reporter(replica, monotonic, model="tiny", max_model_len=engine.max_model_len))
    replica.start()
    async with HttpServer(app, bind(0), graceful_s=1.0) as server, Fleet(monotonic) as fleet:
        await connect(fleet, [server.url], 20.0)
        with bind(0) as sock:
            async with running_gateway(GatewayOptions("tiny", folder), fleet, sock) as gateway:
                urls = (gateway.url, server.url)
                clients = [httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) for url in urls]
                try:
                    yield clients
                finally:
                    for client in clients:
                        await client.aclose()
        await replica.close()


async def complete(clients: list[httpx.AsyncClient], **fields: Any) -> Any:
    """Return what both answer: the body without its id and time."""
    body = {"model": "tiny", "prompt": "the other", "max_tokens": 24, "temperature": 0, **fields}
    answers = [(await client.post("/v1/completions", json=body)).json() for client in clients]
    for answer in answers:
        answer.pop("id", None)
        answer.pop("created", None)
        if "usage" in answer:
            answer["usage"].pop("prompt_tokens_details")
    assert answers[0] == answers[1], fields
    return answers[0]


async def test_each_parameter_acts(tiny_folder: Path) -> None:
    tokenizer = Tokenizer.load(tiny_folder)
    async with both(tiny_folder) as clients:
        plain = await complete(clients, logprobs=0)
        text = plain["choices"][0]["text"]
        first = tokenizer.encode(text)[0]
        assert plain["choices"][0]["logprobs"]["tokens"][0] == tokenizer.decode([first])
        for fields in (
            {"logit_bias": {str(first): -100}},
            {"logit_bias": {"97": 100}},
            {"frequency_penalty": 2.0},
            {"presence_penalty": 2.0},
            {"repetition_penalty": 2.0},
            {"stop_token_ids": [first]},
            {"bad_words": [tokenizer.decode([first])]},
        ):
            changed = await complete(clients, logprobs=0, **fields)
            assert changed["choices"] != plain["choices"], fields
        for fields in ({"logit_bias": {}}, {"frequency_penalty": 0}, {"min_p": 0.2}, {"bad_words": []}, {"top_p": 0}):
            assert await complete(clients, logprobs=0, **fields) == plain, fields
        stopped = await complete(clients, stop_token_ids=[first])
        assert (stopped["choices"][0]["text"], stopped["choices"][0]["finish_reason"]) == ("", "stop")
        later = await complete(clients, stop_token_ids=[first], min_tokens=5)
        assert later["usage"]["completion_tokens"] >= 5
        error = (await complete(clients, logit_bias={"100000": 5}))["error"]
        assert (error["param"], error["type"]) == ("logit_bias", "invalid_request_error")


@pytest.mark.parametrize("top_p", [1, 0.9])
async def test_a_temperature_near_zero_gives_the_greedy_text(tiny_folder: Path, top_p: float) -> None:
    async with both(tiny_folder) as clients:
        greedy = await complete(clients, logprobs=1, seed=7, top_p=top_p)
        for temperature in (1e-5, 1e-100, 1e-300, 1e-307, 1e-310, 5e-324):
            got = await complete(clients, logprobs=1, seed=7, top_p=top_p, temperature=temperature)
            assert got == greedy


async def test_each_place_has_as_many_names_as_were_asked_for(tiny_folder: Path) -> None:
    async with both(tiny_folder) as clients:
        fields = {"max_tokens": 200, "temperature": 2, "ignore_eos": True, "logprobs": 20}
        for seed in range(2):
            answer = await complete(clients, prompt="abc", seed=seed, **fields)
            lists = answer["choices"][0]["logprobs"]
            assert [len(top) for top in lists["top_logprobs"]] == [20] * 200
            for top, name, value in zip(lists["top_logprobs"], lists["tokens"], lists["token_logprobs"], strict=True):
                assert top.get(name, value) == value
                assert name in top or value <= min(top.values())


async def test_copies_find_their_prompt_in_the_cache(tiny_folder: Path) -> None:
    async with both(tiny_folder) as clients:
        prompt = "a prompt of more than one block, and so one that can be found again " * 2
        body = {"model": "tiny", "prompt": prompt, "max_tokens": 4, "seed": 5, "n": 4}
        before = clients[1], await _hits(clients[1])
        answer = (await clients[0].post("/v1/completions", json=body)).json()
        after = await _hits(before[0])
        assert len({choice["text"] for choice in answer["choices"]}) > 1, "each has a seed of its own"
        count = answer["usage"]["prompt_tokens"]
        assert answer["usage"]["total_tokens"] == count + answer["usage"]["completion_tokens"]
        assert after - before[1] >= 3 * (count - 16), "three copies find all but the last block"
        alone = (await clients[0].post("/v1/completions", json={**body, "n": 1, "seed": 7})).json()
        assert alone["choices"][0]["text"] == answer["choices"][2]["text"]


async def _hits(replica: httpx.AsyncClient) -> int:
    stats = (await replica.get("/internal/stats")).json()
    hits: int = stats["stats"]["counters"]["prefix_hit_tokens"]
    return hits


async def test_a_prompt_of_about_the_context(tiny_folder: Path) -> None:
    async with both(tiny_folder) as clients:
        n = (await clients[0].get("/v1/models")).json()["data"][0]["max_model_len"]
        table = [(n - 1, None, 1), (n - 1, n + 1, 1), (n, 1, None), (n + 1, 1, None), (n - 4, n, 4)]
        for size, max_tokens, expected in table:
            answer = await complete(clients, prompt=[5] * size, max_tokens=max_tokens, ignore_eos=True)
            if expected is None:
                assert answer["error"]["code"] == "context_length_exceeded"
                assert f"maximum context length is {n} tokens" in answer["error"]["message"]
                assert f"has {size} tokens" in answer["error"]["message"]
            else:
                assert answer["usage"]["completion_tokens"] == expected
                assert answer["choices"][0]["finish_reason"] == "length"
