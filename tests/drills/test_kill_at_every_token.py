"""kill -9 at a token: whichever it is, the client gets the answer of the run that nobody disturbed.

Real replica processes, real HTTP, the gateway's defaults. A killed replica is restarted by the supervisor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from drills.rig import SMALL, TOKENS, Answer, Kill, Rig, rig

pytestmark = pytest.mark.anyio

TEXT = {"prompt": "Once upon a time"}
CHAT = {"messages": [{"role": "user", "content": "Tell me a story"}]}
GREEDY: dict[str, Any] = {"temperature": 0}
SAMPLED: dict[str, Any] = {"temperature": 0.9, "top_p": 0.95, "seed": 11}
PENALISED: dict[str, Any] = {
    **SAMPLED,
    "frequency_penalty": 0.7,
    "presence_penalty": 0.3,
    "repetition_penalty": 1.1,
}
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "greedy stream": ("/v1/completions", {**TEXT, **GREEDY, "stream": True}),
    "sampled stream": ("/v1/completions", {**TEXT, **SAMPLED, "stream": True}),
    "greedy chat stream": ("/v1/chat/completions", {**CHAT, **GREEDY, "stream": True, "logprobs": True}),
    "sampled chat stream": ("/v1/chat/completions", {**CHAT, **SAMPLED, "stream": True, "logprobs": True}),
    "greedy": ("/v1/completions", {**TEXT, **GREEDY, "logprobs": 2}),
    "sampled chat": ("/v1/chat/completions", {**CHAT, **SAMPLED}),
    "penalised stream": ("/v1/completions", {**TEXT, **PENALISED, "stream": True, "logprobs": 1}),
}


@pytest.fixture(scope="module")
async def small() -> AsyncIterator[Rig]:
    async with rig(SMALL, replicas=2) as one:
        yield one


async def unbroken(one: Rig, name: str) -> Answer:
    path, body = ASKED[name]
    answer = await one.ask(path, body)
    assert answer.usage["completion_tokens"] == TOKENS
    assert answer.errors == ()
    return answer


async def check(one: Rig, name: str, at_token: int, expected: Answer) -> None:
    path, body = ASKED[name]
    await one.ready(2)
    answer, kill = await one.ask_and_kill(at_token, path, body)
    assert answer.errors == ()
    assert answer.text == expected.text
    assert answer.tokens == expected.tokens
    assert answer.finish_reason == expected.finish_reason
    assert (answer.ends, len(answer.ids)) == (1, 1)
    for field in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert answer.usage[field] == expected.usage[field], field
    details = answer.usage["prompt_tokens_details"] or {}
    assert details.get("cached_tokens", 0) <= answer.usage["prompt_tokens"]
    assert kill.broke_after is not None
    assert at_token <= kill.broke_after < TOKENS, "otherwise this proves nothing"
    assert kill.resumed_after == [kill.broke_after]


@pytest.mark.parametrize(
    ("name", "at_token"),
    [("greedy stream", 0), ("sampled chat stream", 1), ("sampled chat", 30), ("penalised stream", 59)],
)
async def test_a_replica_killed_at_a_token_is_not_noticed_by_the_client(small: Rig, name: str, at_token: int) -> None:
    await small.ready(2)
    await check(small, name, at_token, await unbroken(small, name))


@pytest.mark.full
@pytest.mark.parametrize("name", ["greedy stream", "sampled chat stream"])
async def test_a_replica_killed_at_any_token_is_not_noticed_by_the_client(
    small: Rig, name: str, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    monkeypatch.setattr("miniserve.processes.supervisor.LAST_BACKOFF_S", 0.5)  # a crash loop is what this is
    await small.ready(2)
    expected = await unbroken(small, name)
    for at_token in range(TOKENS):
        await check(small, name, at_token, expected)
    record_property("kills", TOKENS)
    record_property("ties", 0)  # a text that differs fails


@pytest.mark.full
@pytest.mark.parametrize("name", ASKED)
async def test_every_form_of_answer_survives_a_kill(small: Rig, name: str) -> None:
    await small.ready(2)
    expected = await unbroken(small, name)
    for at_token in (1, 17):
        await check(small, name, at_token, expected)


@pytest.mark.full
async def test_a_stop_string_that_stands_across_the_break_ends_the_answer_there(small: Rig) -> None:
    """Its first letters come from the replica that dies, and its last ones from the other."""
    await small.ready(2)
    path, body = ASKED["sampled stream"]
    body = {**body, "min_tokens": 0, "ignore_eos": True}
    text = (await small.ask(path, body)).text
    middle = len(text) // 2
    asked = {**body, "stop": text[middle - 2 : middle + 2]}
    expected = await small.ask(path, asked)
    assert expected.finish_reason == "stop"
    for at_token in range(max(1, expected.usage["completion_tokens"] - 3), expected.usage["completion_tokens"]):
        await small.ready(2)
        answer, _ = await small.ask_and_kill(at_token, path, asked)
        assert (answer.text, answer.finish_reason, answer.errors) == (expected.text, "stop", ())
        assert answer.usage["completion_tokens"] == expected.usage["completion_tokens"]


@pytest.mark.full
async def test_both_choices_of_an_answer_survive_a_kill(small: Rig) -> None:
    await small.ready(2)
    path, body = "/v1/completions", {**TEXT, **SAMPLED, "n": 2, "max_tokens": TOKENS, "model": small.model}
    expected = (await small.client.post(path, json=body)).json()
    small.kill_next(Kill(20))
    told = (await small.client.post(path, json=body)).json()
    assert [choice["text"] for choice in told["choices"]] == [choice["text"] for choice in expected["choices"]]
    assert told["usage"]["completion_tokens"] == expected["usage"]["completion_tokens"]
