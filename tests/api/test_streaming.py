"""Streams, byte by byte: the format, the pace, and every way in which one can end."""

from __future__ import annotations

import asyncio
import json
import socket

import httpx
import pytest

from miniserve.config import ApiConfig
from miniserve.errors import DeadlineExceeded, InvalidRequest, Overloaded, RateLimited, UpstreamError
from miniserve.types import FinishReason, TokenEvent
from tests.api.conftest import CHAT, StartEdge, endless, event, events, says, silent, steps


def contents(response: httpx.Response) -> list[str]:
    chunks = [e for e in events(response) if e != "[DONE]" and e.get("choices")]
    return [c["choices"][0]["delta"]["content"] for c in chunks]


HEAD = '"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1700000123,"model":"tiny"'
TAIL = '"system_fingerprint":"miniserve-0.1.0"'


def chunk(delta: str, finish: str = "null") -> str:
    choice = f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}'
    return f'data: {{{HEAD},"choices":[{choice}],"usage":null,{TAIL}}}\n\n'


def test_a_chat_stream_byte_by_byte(start_edge: StartEdge) -> None:
    edge = start_edge(says("Hö", finish=FinishReason.LENGTH, cached=2))
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}, "seed": 5}
    answer = edge.post("/v1/chat/completions", json=body, headers={"x-request-id": "abc-1"})
    counts = '"prompt_tokens":10,"completion_tokens":3,"total_tokens":13'
    usage = f'"usage":{{{counts},"prompt_tokens_details":{{"cached_tokens":2}}}}'
    (request,) = edge.backend.requests
    assert answer.text.replace(request.request_id, "ID") == (
        chunk('{"role":"assistant","content":""}')
        + chunk('{"content":"H"}')
        + chunk('{"content":"ö"}', '"length"')
        + f'data: {{{HEAD},"choices":[],{usage},{TAIL}}}\n\n'
        + "data: [DONE]\n\n"
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-request-id"] == "abc-1"
    assert answer.headers["x-miniserve-seed"] == "5"
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_usage_is_null_until_the_end_where_asked_for_and_absent_elsewhere(start_edge: StartEdge, path: str) -> None:
    edge = start_edge(says("abc"))
    prompt = {"messages": CHAT["messages"]} if "chat" in path else {"prompt": ["a", "b"]}
    body = {"model": "tiny", "stream": True, **prompt}
    *chunks, last, done = events(edge.post(path, json={**body, "stream_options": {"include_usage": True}}))
    assert len(chunks) > 2
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks)
    assert (last["choices"], done) == ([], "[DONE]")
    assert last["usage"]["completion_tokens"] == (3 if "chat" in path else 6)
    for options in (None, {}, {"include_usage": False}):
        *chunks, done = events(edge.post(path, json={**body, "stream_options": options}))
        assert all("usage" not in chunk for chunk in chunks)


def test_stream_options_without_a_stream_have_no_effect(start_edge: StartEdge) -> None:
    answer = start_edge().chat(stream_options={"include_usage": True})
    assert answer.json()["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_an_event_is_one_line_for_every_reader_of_lines(start_edge: StartEdge, path: str) -> None:
    """httpx's `iter_lines` cuts wherever `str.splitlines` does, and would cut an event in two."""
    hostile = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei\rj\nk"
    edge = start_edge(says(hostile, size=len(hostile.encode())))
    body = {"model": "tiny", "stream": True, "prompt": "a", "messages": CHAT["messages"]}
    lines = [line for line in edge.post(path, json=body).text.splitlines() if line]
    assert [line[:6] for line in lines] == ["data: "] * len(lines)
    choices = [json.loads(line[6:])["choices"][0] for line in lines[:-1]]
    assert "".join(choice.get("text", choice.get("delta", {}).get("content")) for choice in choices) == hostile


def test_an_error_inside_a_stream_is_one_line_too(start_edge: StartEdge) -> None:
    edge = start_edge(steps(event("a"), UpstreamError("x\u2028y")))
    *_, last = [line for line in edge.chat(stream=True).text.splitlines() if line]
    assert json.loads(last[6:])["error"]["message"] == "x\u2028y"


def test_a_completion_stream_has_one_chunk_per_event(start_edge: StartEdge) -> None:
    edge = start_edge(says("abcd", size=2))
    answer = edge.post("/v1/completions", json={"model": "tiny", "prompt": "x", "stream": True})
    first, second, done = events(answer)
    assert first["choices"] == [{"index": 0, "text": "ab", "logprobs": None, "finish_reason": None}]
    assert second["choices"] == [{"index": 0, "text": "cd", "logprobs": None, "finish_reason": "stop"}]
    assert (first["object"], done) == ("text_completion", "[DONE]")


def test_characters_are_never_split(start_edge: StartEdge) -> None:
    text = "é🙂日本 ok 👩‍👩‍👧"
    edge = start_edge(says(text))
    assert contents(edge.chat(stream=True)) == ["", *text]


@pytest.mark.parametrize("size", range(1, 8))
def test_a_stop_string_ends_the_text_and_the_generation(start_edge: StartEdge, size: int) -> None:
    before, stop = "Grüße ", "END"
    edge = start_edge(says(f"{before}{stop} and much more, never read", size=size))
    answer = edge.chat(stream=True, stop=["nothing", stop], stream_options={"include_usage": True})
    *_, last, usage, done = events(answer)
    assert "".join(contents(answer)) == before
    assert (last["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")
    assert usage["usage"]["completion_tokens"] == len((before + stop).encode())
    edge.until(lambda: edge.backend.open == 0, "the generation is over")
    assert edge.backend.closed == 1, "the backend would have gone on"
    whole = edge.chat(stop=stop).json()
    assert whole["choices"][0]["message"]["content"] == before
    assert whole["usage"]["completion_tokens"] == len((before + stop).encode())


def test_text_that_only_looked_like_a_stop_string_is_given_out(start_edge: StartEdge) -> None:
    edge = start_edge(says("a ENDLESS E"))
    assert "".join(contents(edge.chat(stream=True, stop="ENDING"))) == "a ENDLESS E"
    assert edge.chat(stop="E!").json()["choices"][0]["message"]["content"] == "a ENDLESS E"


def test_a_generation_that_ends_by_itself_is_not_aborted(start_edge: StartEdge) -> None:
    edge = start_edge(says("done"))
    assert edge.chat(stream=True).status_code == 200
    assert edge.chat().status_code == 200
    assert (edge.backend.started, edge.backend.closed, edge.backend.open) == (2, 0, 0)


def test_control_tokens_and_empty_events_make_no_chunk(start_edge: StartEdge) -> None:
    edge = start_edge(steps(event(), TokenEvent("", (256,)), event("a"), event("", FinishReason.STOP)))
    assert contents(edge.chat(stream=True)) == ["", "a", ""]


def test_a_backend_that_speaks_text_is_streamed_too(start_edge: StartEdge) -> None:
    edge = start_edge(steps(TokenEvent("", text="Hel"), TokenEvent("", (), FinishReason.STOP, text="lo ST")))
    assert contents(edge.chat(stream=True, stop="STOP")) == ["", "Hel", "lo ST"]
    assert edge.chat().json()["usage"]["completion_tokens"] == 2


# --- errors before and inside the stream ----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest("the prompt is too long", "messages"), 400, "invalid_request_error"),
        (RateLimited("slowly", retry_after_s=2.0), 429, "rate_limit_error"),
        (UpstreamError("no replica answered"), 502, "upstream_error"),
        (Overloaded("the queue is full"), 503, "overloaded_error"),
        (DeadlineExceeded("too late"), 504, "timeout_error"),
    ],
)
def test_an_error_before_the_first_event_has_its_status(
    start_edge: StartEdge, stream: bool, error: Exception, status: int, kind: str
) -> None:
    answer = start_edge(steps(error)).chat(stream=stream)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["type"] == kind
    assert answer.json()["error"]["message"] == str(error)
    assert ("retry-after" in answer.headers) == (status in (429, 503))


@pytest.mark.parametrize("stream", [False, True])
def test_a_bug_tells_nothing_but_the_request_id(
    start_edge: StartEdge, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    edge = start_edge(steps(RuntimeError("secret path /etc/x")))
    answer = edge.chat(stream=stream)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert any(r.exc_info and "secret" in str(r.exc_info[1]) for r in caplog.records), "the log has the cause"


@pytest.mark.parametrize(
    ("error", "message"),
    [(UpstreamError("the replica broke off"), "the replica broke off"), (RuntimeError("secret"), "internal error")],
)
def test_an_error_inside_the_stream_is_its_last_event(start_edge: StartEdge, error: Exception, message: str) -> None:
    answer = start_edge(steps(event("a"), error)).chat(stream=True)
    assert answer.status_code == 200
    assert contents(answer)[:2] == ["", "a"]
    assert message in events(answer)[-1]["error"]["message"]
    assert "[DONE]" not in answer.text
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("last", "status"),
    [
        ((), 502),  # the backend ended without a word
        ((event("", FinishReason.ERROR),), 500),
        ((event("", FinishReason.ABORT),), 502),
    ],
)
def test_a_generation_without_a_proper_end_is_an_error(
    start_edge: StartEdge, last: tuple[TokenEvent, ...], status: int
) -> None:
    edge = start_edge(steps(event("a"), *last))
    assert edge.chat().status_code == status
    assert "error" in events(edge.chat(stream=True))[-1]


# --- silence, slowness, shutdown ------------------------------------------------------------------------------------


def read_until(connection: socket.socket, count: int, mark: bytes, data: bytes = b"") -> bytes:
    while data.count(mark) < count:
        received = connection.recv(65536)
        assert received, f"the connection ended after {data!r}"
        data += received
    return data


@pytest.mark.parametrize("first", [(), (event("a"),)])
def test_silence_is_broken_by_comments(start_edge: StartEdge, first: tuple[TokenEvent, ...]) -> None:
    """Also before the first event: the response starts without it, so that no proxy loses patience."""
    gate = asyncio.Event()
    edge = start_edge(steps(*first, gate, event("b", FinishReason.STOP)), config=ApiConfig(heartbeat_s=0.02))
    with edge.send_json("/v1/chat/completions", {**CHAT, "stream": True}) as connection:
        data = read_until(connection, 3, b": keep-alive\n\n")
        assert data.startswith(b"HTTP/1.1 200 OK")
        assert (b'"content":"a"' in data) == bool(first)
        edge.set(gate)
        assert b'"content":"b"' in read_until(connection, 1, b"[DONE]", data)


def test_an_error_after_a_heartbeat_comes_inside_the_stream(start_edge: StartEdge) -> None:
    gate = asyncio.Event()
    edge = start_edge(steps(gate, Overloaded("the queue is full")), config=ApiConfig(heartbeat_s=0.02))
    with edge.send_json("/v1/chat/completions", {**CHAT, "stream": True}) as connection:
        data = read_until(connection, 1, b": keep-alive\n\n")
        edge.set(gate)
        data = read_until(connection, 1, b"0\r\n\r\n", data)  # the last chunk of the body
        assert b'data: {"error":{"message":"the queue is full"' in data
        assert b"[DONE]" not in data


def test_a_reader_that_stalls_is_given_up(start_edge: StartEdge) -> None:
    edge = start_edge(endless, config=ApiConfig(send_timeout_s=0.2))
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with connection:
        connection.connect(("127.0.0.1", edge.port))
        body = json.dumps({**CHAT, "stream": True, "max_tokens": 1024}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        connection.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        edge.until(lambda: edge.backend.started == 1, "the generation has begun")
        edge.until(lambda: edge.backend.closed == 1, "the generation was closed")
        labels = {"route": "/v1/chat/completions", "method": "POST", "status": "499"}
        edge.until(lambda: edge.sample("miniserve_http_requests_total", **labels) == 1, "it counts as a client gone")


def test_shutdown_closes_open_streams(start_edge: StartEdge) -> None:
    edge = start_edge(silent)
    with edge.send_json("/v1/chat/completions", {**CHAT, "stream": True}):
        edge.until(lambda: edge.backend.open == 1, "the generation has begun")
        edge.stop()
        edge.until(lambda: edge.backend.open == 0, "the generation was closed")
    assert edge.backend.closed == 1


def test_many_streams_at_once_keep_apart(start_edge: StartEdge) -> None:
    edge = start_edge(lambda request: says("".join(map(chr, request.prompt_ids)), size=3)(request))

    async def talk() -> list[str]:
        async with httpx.AsyncClient(base_url=edge.url) as client:
            bodies = [{"model": "tiny", "prompt": f"number {i} " * 20, "stream": True} for i in range(30)]
            answers = await asyncio.gather(*(client.post("/v1/completions", json=body) for body in bodies))
        return ["".join(e["choices"][0]["text"] for e in events(a) if e != "[DONE]") for a in answers]

    assert asyncio.run(talk()) == [f"number {i} " * 20 for i in range(30)]
