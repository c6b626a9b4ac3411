"""The official client, unmodified, in all its ways."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest

from miniserve.errors import Overloaded, UpstreamError
from tests.api.conftest import CHAT, Edge, StartEdge, event, says, steps

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture
def server(start_edge: StartEdge) -> Edge:
    return start_edge(says("Grüße!", cached=4))


@pytest.fixture
def client(server: Edge) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_chat_in_one_piece(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=MESSAGES, temperature=0)
    assert answer.choices[0].message.content == "Grüße!"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len("Grüße!".encode())
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 4


def test_chat_as_a_stream_with_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="tiny", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Grüße!"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len("Grüße!".encode())


def test_the_stream_helper_puts_the_same_answer_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="tiny", messages=MESSAGES) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Grüße!"


def test_completions_both_ways(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="tiny", prompt="Once", max_tokens=3)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("Gr\ufffd", "length")
    chunks = list(client.completions.create(model="tiny", prompt="Once", stream=True))
    assert "".join(c.choices[0].text for c in chunks) == "Grüße!"


def test_the_async_client(server: Edge) -> None:
    async def talk() -> tuple[str | None, str, str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            chat = await client.chat.completions.create(model="tiny", messages=MESSAGES)
            stream = await client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
            streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            completion = await client.completions.create(model="tiny", prompt="x")
            return chat.choices[0].message.content, streamed, completion.choices[0].text

    assert asyncio.run(talk()) == ("Grüße!", "Grüße!", "Grüße!")


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "miniserve"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("org/other")


def test_errors_become_the_clients_own(client: openai.OpenAI, server: Edge) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nope", messages=MESSAGES)
    assert (unknown.value.param, unknown.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="tiny", messages=MESSAGES, temperature=-1)
    server.backend.script = steps(Overloaded("too busy", retry_after_s=3.2))
    with pytest.raises(openai.InternalServerError) as busy:
        client.chat.completions.create(model="tiny", messages=MESSAGES)
    assert (busy.value.status_code, busy.value.response.headers["retry-after"]) == (503, "4")


def test_an_error_inside_a_stream_reaches_the_client(client: openai.OpenAI, server: Edge) -> None:
    server.backend.script = steps(event("ab"), UpstreamError("the replica broke off"))
    stream = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError, match="the replica broke off"):
        list(stream)


def test_leaving_a_stream_early_stops_the_generation(client: openai.OpenAI, server: Edge) -> None:
    server.backend.script = says("x" * 100_000)
    with client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True, max_tokens=1024) as stream:
        next(iter(stream))
    server.until(lambda: server.backend.open == 0, "the generation is over")


def test_the_client_retries_what_may_be_retried_and_nothing_else(server: Edge) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=2) as client:
        server.backend.script = steps(RuntimeError("a bug"))
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="tiny", messages=MESSAGES)
        assert server.backend.started == 1, "our own bug would only happen again"
        server.backend.script = steps(UpstreamError("gone"))
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="tiny", messages=MESSAGES)
        assert server.backend.started == 1 + 3


def test_fields_that_other_clients_send_are_accepted(server: Edge) -> None:
    more = {
        "repetition_penalty": 1.1,
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "store": False,
        "presence_penalty": 0.0,
        "logit_bias": {"1": 1},
        "parallel_tool_calls": True,
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "n": 1,
        "stop": None,
        "seed": None,
        "user": None,
    }
    assert server.post("/v1/chat/completions", json={**CHAT, **more}).status_code == 200
