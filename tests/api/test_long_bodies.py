"""Bodies within the size limit that would take long to check or to tokenize: nobody else may have to wait for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from loop_time import loop_held
from prometheus_client import CollectorRegistry

from miniserve.api.app import create_app
from miniserve.api.bodies import SMALL_BYTES, _shown
from miniserve.api.wiring import served_model
from miniserve.errors import InvalidRequest
from miniserve.models.tokenizer import Tokenizer
from miniserve.observe.metrics import ApiMetrics
from miniserve.observe.recent import Recent
from miniserve.replica.wire import decode_request

from .conftest import HELLO, ScriptedBackend

pytestmark = pytest.mark.anyio
FOLDER = Path(__file__).parents[2] / "data" / "models" / "large"
CONTEXT, MOST_CPU_S = 5120, 0.1
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def chat(messages: str) -> bytes:
    return f'{{"model": "large", "max_tokens": 1, "messages": [{messages}]}}'.encode()


def completion(prompt: str) -> bytes:
    return f'{{"model": "large", "max_tokens": 1, "prompt": {prompt}}}'.encode()


async def post(path: str, body: bytes) -> tuple[httpx.Response, ScriptedBackend]:
    """Answer one request in this loop, and hold no callback of it for long."""
    backend, registry = ScriptedBackend(HELLO), CollectorRegistry()
    app = create_app(
        backend,
        served_model("large", FOLDER, CONTEXT),
        metrics=ApiMetrics(registry, Recent()),
        registry=registry,
    )
    assert len(body) < 1 << 20, "it must be within the limit"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as client:
        await client.get("/health")  # what is made once is made now
        with loop_held() as held:
            response = await client.post(path, content=body, headers={"content-type": "application/json"})
    assert held.longest_s < MOST_CPU_S, held.by
    return response, backend


DIGITS = "1234567890" * 100_000
TOO_LONG = {
    "340,000 messages without anything": (CHAT, chat(",".join(["{}"] * 340_000))),
    "9,000 empty messages": (CHAT, chat(",".join(['{"role": "user", "content": ""}'] * 9_000))),
    "33,000 empty messages": (CHAT, chat(",".join(['{"role":"user","content":""}'] * 33_000))),
    "a message of 1 MB of digits": (CHAT, chat(f'{{"role": "user", "content": "{DIGITS}"}}')),
    "a prompt of 1 MB of digits": (TEXT, completion(f'"{DIGITS}"')),
    "300,000 ids": (TEXT, completion(str([1] * 300_000))),
    "64 lists, the last one too long": (TEXT, completion(json.dumps([[1]] * 63 + [[1] * 100_000]))),
    "200,000 wrong ids": (TEXT, completion(json.dumps([{}] + ["a"] * 200_000))),
}
WRONG = {
    "5,000 messages without anything": (CHAT, chat(",".join(["{}"] * 5_000)), "messages[0].role"),
    "40,000 wrong parts": (
        CHAT,
        chat('{"role": "user", "content": [' + ",".join(["{}"] * 40_000) + "]}"),
        "messages[0]",
    ),
    "150,000 prompts": (TEXT, completion(json.dumps(["a"] * 150_000)), "prompt"),
    "150,000 stop strings": (TEXT, completion('"a", "stop": ' + json.dumps([1] * 150_000)), "stop"),
    "200,000 tools": (CHAT, chat("{}")[:-1] + b', "tools": ' + json.dumps([{}] * 200_000).encode() + b"}", "tools"),
    "nested a million deep": (CHAT, b"[" * 1_000_000, None),
    "nested deep inside": (TEXT, completion("[" * 400_000 + "]" * 400_000), None),
    "a million digits as a number": (TEXT, completion('"a", "seed": ' + "9" * 900_000), None),
}
FINE = {
    "500 short messages": (CHAT, chat(",".join(['{"role": "user", "content": "a"}'] * 500))),
    "35,000 empty parts": (
        CHAT,
        chat('{"role": "user", "content": [' + ",".join(['{"type":"text","text":""}'] * 35_000) + "]}"),
    ),
    "64 prompts of 4,500 characters": (TEXT, completion(json.dumps(["ab " * 1_500] * 64))),
}


@pytest.mark.parametrize("name", TOO_LONG)
async def test_what_cannot_fit_is_refused_without_holding_anybody_up(name: str) -> None:
    response, backend = await post(*TOO_LONG[name])
    assert response.status_code == 400
    if "wrong" not in name:
        assert response.json()["error"]["code"] == "context_length_exceeded"
    assert len(response.content) < 1000
    assert backend.requests == []


@pytest.mark.parametrize("name", WRONG)
async def test_what_is_wrong_in_many_places_is_refused_for_the_first(name: str) -> None:
    path, body, field = WRONG[name]
    response, backend = await post(path, body)
    assert response.status_code == 400
    assert field is None or response.json()["error"]["param"].startswith(field)
    assert len(response.content) < 1000
    assert backend.requests == []


@pytest.mark.parametrize("name", FINE)
async def test_what_is_long_and_fits_is_answered_without_holding_anybody_up(name: str) -> None:
    response, _ = await post(*FINE[name])
    assert response.status_code == 200, response.text


def test_a_replica_finds_wrong_ids_without_a_record_of_each() -> None:
    for ids in ('["a"]', "[1.5]", "[true]", '"text"', "{}", "[" + ",".join(['"a"'] * 100_000) + "]"):
        with pytest.raises(InvalidRequest, match="prompt_ids") as refused:
            decode_request(f'{{"request_id": "q", "model": "m", "prompt_ids": {ids}}}'.encode(), 0.0)
        assert len(str(refused.value)) < 200


def test_long_text_has_the_tokens_that_its_parts_have() -> None:
    """In a thread another call of the library is used, which lets the event loop run."""
    tokenizer = Tokenizer.load(FOLDER)
    text = "one two three\n" * 500
    assert tokenizer.encode(text) == [*tokenizer._fast.encode(text, add_special_tokens=False).ids]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_no_text_is_shorter_in_tokens_than_its_bytes_by_the_longest_token() -> None:
    tokenizer = Tokenizer.load(FOLDER)
    longest = tokenizer.longest_token_bytes()
    assert longest is not None
    for text in ("a" * 5000, " " * 5000, "1234567890" * 500, "the answer is " * 300):
        assert len(tokenizer.encode(text)) * longest >= len(text)


def test_of_a_long_wrong_value_only_the_beginning_is_written_out() -> None:
    class Endless(list[Any]):
        def __iter__(self) -> Any:
            while True:
                yield 1

    assert _shown(Endless([1])).endswith("...")
    assert len(_shown("x" * SMALL_BYTES)) < 100
