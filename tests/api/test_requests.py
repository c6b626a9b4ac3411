"""What the engine is asked when a client says this or that; several choices; log-probabilities."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest

from miniserve.clock import monotonic
from miniserve.errors import UpstreamError
from miniserve.observe.recent import WINDOW_S
from miniserve.types import FinishReason, Priority, SamplingParams, TokenEvent, TokenLogprob
from tests.api.conftest import CHAT, END, START, Edge, StartEdge, event, events, says, steps

COMPLETION = {"model": "tiny", "prompt": "abc"}


def asked(edge: Edge, path: str = "/v1/chat/completions", **fields: object) -> SamplingParams:
    base = CHAT if "chat" in path else COMPLETION
    assert edge.post(path, json={**base, **fields}).status_code == 200
    return edge.backend.requests[-1].sampling


def test_all_parameters_reach_the_engine(edge: Edge) -> None:
    sampling = asked(
        edge, max_tokens=9, temperature=0, top_p=0.5, top_k=7, stop=["x", "y"], seed=-3, ignore_eos=True, logprobs=True
    )
    assert sampling == SamplingParams(
        max_tokens=9, temperature=0.0, top_p=0.5, top_k=7, stop=("x", "y"), seed=-3, ignore_eos=True, logprobs=0
    )
    edge.chat(priority=0, user="someone")
    request = edge.backend.requests[-1]
    assert (request.priority, request.session_key, request.model) == (Priority.INTERACTIVE, "someone", "tiny")


def test_what_is_absent_or_null_has_its_default(edge: Edge) -> None:
    nulls = dict.fromkeys(["max_tokens", "temperature", "top_p", "top_k", "stop", "ignore_eos", "logprobs"])
    for fields in ({}, nulls):
        sampling = asked(edge, seed=1, **fields)
        assert sampling == SamplingParams(max_tokens=256, seed=1)
    assert edge.backend.requests[-1].priority is Priority.STANDARD


def test_numbers_may_be_written_in_the_other_way(edge: Edge) -> None:
    """JSON knows one kind of number."""
    sampling = asked(edge, temperature=1, top_k=3.0, max_tokens=5.0)
    assert (sampling.temperature, sampling.top_k, sampling.max_tokens) == (1.0, 3, 5)
    assert asked(edge, top_k=-1).top_k == 0


def test_the_newer_name_of_max_tokens_wins(edge: Edge) -> None:
    assert asked(edge, max_tokens=5, max_completion_tokens=6).max_tokens == 6


def test_max_tokens_is_cut_to_what_the_context_leaves(edge: Edge) -> None:
    room = 1024 - 10
    for tokens in (room, room + 1, 1024, 5000, 2**63 - 1):
        assert asked(edge, max_tokens=tokens).max_tokens == room
        assert asked(edge, max_completion_tokens=tokens).max_tokens == room
    assert asked(edge, "/v1/completions", prompt="x" * 1000).max_tokens == 24
    assert asked(edge, "/v1/completions", prompt="x" * 1000, max_tokens=20).max_tokens == 20


def test_a_chat_is_written_by_the_template(edge: Edge) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    edge.chat(messages=[{"role": "developer", "content": "be brief", "name": "x"}, {"role": "user", "content": parts}])
    ids = [START, *b"system\nbe brief", END, START, *b"user\nab", END, START]
    assert edge.backend.requests[-1].prompt_ids == tuple(ids)


def test_a_seed_is_drawn_where_none_is_named_and_told(start_edge: StartEdge) -> None:
    edge, twin = start_edge(seed=1), start_edge(seed=1)
    seeds = [int(edge.chat().headers["x-miniserve-seed"]) for _ in range(3)]
    assert seeds == [request.sampling.seed for request in edge.backend.requests]
    assert len(set(seeds)) == 3
    assert seeds == [int(twin.chat().headers["x-miniserve-seed"]) for _ in range(3)], "the generator is injected"
    assert edge.chat(seed=0).headers["x-miniserve-seed"] == "0"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("ab", [b"ab"]),
        (["ab", "c"], [b"ab", b"c"]),
        ([97, 98.0], [b"ab"]),
        ([[97, 98], [99]], [b"ab", b"c"]),
        ("<|im_end|>", [b"<|im_end|>"]),
    ],
)
def test_the_four_kinds_of_prompt(edge: Edge, prompt: object, expected: list[bytes]) -> None:
    answer = edge.post("/v1/completions", json={"model": "tiny", "prompt": prompt}).json()
    assert [request.prompt_ids for request in edge.backend.requests] == [tuple(ids) for ids in expected]
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(expected)))


def test_several_prompts_are_several_choices_in_order(start_edge: StartEdge) -> None:
    """The first prompt's answer is the last to come."""
    edge = start_edge(lambda request: says("".join(map(chr, request.prompt_ids)))(request))
    prompts = ["a long answer", "short", "x"]
    answer = edge.post("/v1/completions", json={"model": "tiny", "prompt": prompts}, headers={"x-request-id": "m"})
    assert [choice["text"] for choice in answer.json()["choices"]] == prompts
    assert answer.json()["usage"]["completion_tokens"] == sum(map(len, prompts))
    assert answer.headers["x-request-id"] == "m"
    own = answer.json()["id"].removeprefix("cmpl-")
    assert [request.request_id for request in edge.backend.requests] == [own, f"{own}-1", f"{own}-2"]
    assert len(set(answer.headers["x-miniserve-seed"].split(","))) == 3


def test_one_choice_that_fails_fails_the_call_and_ends_the_others(start_edge: StartEdge) -> None:
    def script(request):  # type: ignore[no-untyped-def]
        return steps(RuntimeError("no") if request.prompt_ids == (98,) else asyncio.Event())(request)

    edge = start_edge(script)
    assert edge.post("/v1/completions", json={"model": "tiny", "prompt": ["a", "b", "c"]}).status_code == 500
    assert (edge.backend.started, edge.backend.open) == (3, 0)


def test_two_requests_with_one_id_stay_apart(start_edge: StartEdge) -> None:
    gate = asyncio.Event()
    edge = start_edge(steps(gate, event("x", FinishReason.STOP)))
    answers = []

    def ask() -> None:
        answers.append(edge.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "same"}))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    edge.until(lambda: edge.backend.open == 3, "all have begun")
    edge.set(gate)
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer.headers["x-request-id"] for answer in answers] == ["same"] * 3
    assert [answer.json()["choices"][0]["message"]["content"] for answer in answers] == ["x"] * 3
    ids = {request.request_id for request in edge.backend.requests}
    assert len(ids) == 3
    assert {answer.json()["id"] for answer in answers} == {f"chatcmpl-{request_id}" for request_id in ids}


# --- what a person sees of it ----------------------------------------------------------------------------------------


def test_what_clients_got_of_late_is_counted(start_edge: StartEdge) -> None:
    gate, started_s = asyncio.Event(), monotonic()
    edge = start_edge(steps(event("0123456789", FinishReason.STOP)))
    assert edge.chat().status_code == 200
    edge.backend.script = steps(event("0123456789"), UpstreamError("cut"))
    assert edge.chat().status_code == 502
    edge.backend.script = steps(gate, event("x", FinishReason.STOP))
    asking = threading.Thread(target=edge.chat)
    asking.start()
    edge.until(lambda: edge.backend.open, "the third has begun")
    assert (edge.recent.requests, edge.recent.failed, edge.recent.in_flight) == (3, 1, 1)
    assert edge.recent.tokens_per_s(started_s) == 20 / WINDOW_S
    assert len(edge.recent.ttft_s) == 2
    edge.set(gate)
    asking.join()
    edge.until(lambda: edge.recent.in_flight == 0, "nobody is inside")
    assert (edge.recent.requests, edge.recent.failed) == (3, 1)


# --- log-probabilities ----------------------------------------------------------------------------------------------


def token(byte: int, finish: FinishReason | None = None) -> TokenEvent:
    entry = TokenLogprob(byte, -0.5, ((byte, -0.5), (120, -math.inf)))
    return TokenEvent("", (byte,), finish, (entry,))


EURO = [token(byte) for byte in b"a\xe2\x82\xac"] + [token(98, FinishReason.STOP)]


def test_logprobs_of_a_chat(start_edge: StartEdge) -> None:
    edge = start_edge(steps(*EURO))
    content = edge.chat(logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]["content"]
    assert edge.backend.requests[-1].sampling.logprobs == 2
    assert [entry["bytes"] for entry in content] == [[97], [0xE2], [0x82], [0xAC], [98]]
    assert content[0] == {
        "token": "a",
        "logprob": -0.5,
        "bytes": [97],
        "top_logprobs": [
            {"token": "a", "logprob": -0.5, "bytes": [97]},
            {"token": "x", "logprob": -9999.0, "bytes": [120]},
        ],
    }
    assert edge.chat(top_logprobs=2).json()["choices"][0]["logprobs"] is None


def test_streamed_logprobs_come_with_their_text(start_edge: StartEdge) -> None:
    chunks = events(start_edge(steps(*EURO)).chat(stream=True, logprobs=True))[:-1]
    parts = [(c["choices"][0]["delta"]["content"], c["choices"][0]["logprobs"]) for c in chunks[1:]]
    assert [(text, len(logprobs["content"])) for text, logprobs in parts] == [("a", 1), ("€", 3), ("b", 1)]


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_of_a_completion(start_edge: StartEdge, stream: bool) -> None:
    edge = start_edge(steps(*EURO))
    answer = edge.post("/v1/completions", json={**COMPLETION, "logprobs": 2, "stream": stream})
    chunks = events(answer)[:-1] if stream else [answer.json()]
    lists = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    joined = {key: [item for one in lists for item in one[key]] for key in lists[0]}
    assert joined["tokens"] == ["a", "bytes:\\xe2", "bytes:\\x82", "bytes:\\xac", "b"]
    assert joined["token_logprobs"] == [-0.5] * 5
    assert joined["top_logprobs"][0] == {"a": -0.5, "x": -9999.0}
    assert joined["text_offset"] == [0, 1, 1, 1, 2]


def test_logprobs_cover_the_tokens_that_count(start_edge: StartEdge) -> None:
    both = TokenEvent("", (97, 98, 99), None, tuple(TokenLogprob(i, -1.0) for i in (97, 98, 99)))
    answer = start_edge(steps(both)).chat(stop="b", logprobs=True).json()
    assert answer["usage"]["completion_tokens"] == 2
    assert len(answer["choices"][0]["logprobs"]["content"]) == 2
