"""`n` answers to one prompt: numbered, counted once, each with a seed of its own, and behind one prefill."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from miniserve.types import FinishReason, Request, TokenEvent, TokenLogprob
from tests.api.conftest import CHAT, Edge, StartEdge, Step, event, events, says, steps

PATHS = {"/v1/chat/completions": CHAT, "/v1/completions": {"model": "tiny", "prompt": "abc"}}


def numbered(request: Request) -> Iterator[Step]:
    """Say the seed, one digit at a time."""
    return says(str(request.sampling.seed))(request)


def text_of(choice: dict[str, dict[str, str]]) -> object:
    return choice["message"]["content"] if "message" in choice else choice["text"]


@pytest.mark.parametrize("path", PATHS)
def test_each_choice_has_its_number_and_seed(start_edge: StartEdge, path: str) -> None:
    edge = start_edge(numbered)
    answer = edge.post(path, json={**PATHS[path], "n": 4, "seed": 10})
    choices = answer.json()["choices"]
    assert [(choice["index"], text_of(choice)) for choice in choices] == [(i, str(10 + i)) for i in range(4)]
    assert answer.headers["x-miniserve-seed"] == "10,11,12,13"
    requests = edge.backend.requests
    assert len({request.request_id for request in requests}) == 4
    assert len({request.prompt_ids for request in requests}) == 1
    usage = answer.json()["usage"]
    assert usage["prompt_tokens"] == len(requests[0].prompt_ids), "once"
    assert usage["completion_tokens"] == 8, "all of them"


@pytest.mark.parametrize("path", PATHS)
def test_streamed_choices_have_their_numbers(start_edge: StartEdge, path: str) -> None:
    edge = start_edge(numbered)
    chunks = events(
        edge.post(
            path, json={**PATHS[path], "n": 3, "seed": 10, "stream": True, "stream_options": {"include_usage": True}}
        )
    )
    texts, ends, begun = [""] * 3, [0] * 3, [0] * 3
    for chunk in chunks[:-2]:
        assert chunk["usage"] is None
        (choice,) = chunk["choices"]
        delta = choice.get("delta", {"content": choice.get("text")})
        texts[choice["index"]] += delta["content"]
        ends[choice["index"]] += choice["finish_reason"] is not None
        begun[choice["index"]] += "role" in delta
    assert texts == ["10", "11", "12"]
    assert ends == [1] * 3
    assert begun == ([1] * 3 if "chat" in path else [0] * 3), "each begins with a role"
    assert chunks[-2]["choices"] == []
    assert chunks[-2]["usage"]["completion_tokens"] == 6
    assert chunks[-1] == "[DONE]"


def test_without_a_seed_one_is_drawn_and_counted_up(edge: Edge) -> None:
    seeds = [int(seed) for seed in edge.chat(n=3).headers["x-miniserve-seed"].split(",")]
    assert seeds == [seeds[0], seeds[0] + 1, seeds[0] + 2]


def test_past_the_largest_seed_comes_the_smallest(edge: Edge) -> None:
    answer = edge.chat(n=2, seed=2**63 - 1)
    assert answer.headers["x-miniserve-seed"] == f"{2**63 - 1},{-(2**63)}"


def test_copies_wait_for_the_first_token_of_the_first(start_edge: StartEdge) -> None:
    gate = asyncio.Event()

    def script(request: Request) -> Iterator[Step]:
        first = not request.request_id.endswith(("-1", "-2"))
        return steps(*([gate] if first else []), event("x"), event("y", FinishReason.STOP))(request)

    edge = start_edge(script)
    connection = edge.send_json("/v1/chat/completions", {**CHAT, "n": 3})
    edge.until(lambda: edge.backend.started == 1, "the first has begun")
    edge.chat(model="nope")  # an exchange that comes and goes meanwhile
    assert edge.backend.started == 1
    edge.set(gate)
    edge.until(lambda: edge.backend.started == 3, "the others have begun")
    with connection:
        assert b'"index":2' in connection.recv(65536)


def test_several_prompts_with_several_choices_each(start_edge: StartEdge) -> None:
    edge = start_edge(lambda request: says(f"{bytes(request.prompt_ids).decode()}{request.sampling.seed}")(request))
    body = {"model": "tiny", "prompt": ["a", "bb"], "n": 2, "seed": 0, "best_of": 2}
    answer = edge.post("/v1/completions", json=body).json()
    assert [choice["text"] for choice in answer["choices"]] == ["a0", "a1", "bb0", "bb1"]
    assert answer["usage"]["prompt_tokens"] == 3


def test_one_call_has_only_so_many_answers_under_way(start_edge: StartEdge) -> None:
    most = 0

    def script(request: Request) -> Iterator[Step]:
        nonlocal most
        most = max(most, edge.backend.open)
        return says("x")(request)

    edge = start_edge(script)
    answer = edge.post("/v1/completions", json={"model": "tiny", "prompt": ["a"] * 64, "n": 4, "max_tokens": 1})
    assert len(answer.json()["choices"]) == 256
    assert 1 < most <= 64


def test_cached_tokens_are_those_of_the_first(start_edge: StartEdge) -> None:
    edge = start_edge(says("x", cached=2))
    usage = edge.chat(n=4).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 2


def test_greedy_choices_are_allowed(edge: Edge) -> None:
    assert len(edge.chat(n=2, temperature=0).json()["choices"]) == 2


def test_a_failing_choice_fails_the_call_and_ends_the_others(start_edge: StartEdge) -> None:
    def script(request: Request) -> Iterator[Step]:
        if request.request_id.endswith("-1"):
            return steps(RuntimeError("no"))(request)
        return steps(event("x"), asyncio.Event())(request)

    edge = start_edge(script)
    assert edge.chat(n=3).status_code == 500
    assert edge.backend.open == 0


def test_logprobs_belong_to_their_choice(start_edge: StartEdge) -> None:
    def script(request: Request) -> Iterator[Step]:
        byte = ord("a") + request.sampling.seed
        yield TokenEvent("", (byte,), FinishReason.STOP, (TokenLogprob(byte, -float(request.sampling.seed)),))

    edge = start_edge(script)
    for choice in edge.chat(n=3, seed=0, logprobs=True).json()["choices"]:
        assert choice["logprobs"]["content"][0]["logprob"] == -choice["index"]


def test_when_the_client_leaves_all_choices_end(start_edge: StartEdge) -> None:
    edge = start_edge(steps(event("x"), asyncio.Event()))
    connection = edge.send_json("/v1/chat/completions", {**CHAT, "n": 3, "stream": True})
    edge.until(lambda: edge.backend.started == 3, "all have begun")
    connection.close()
    edge.until_idle()
    assert edge.backend.closed == 3
