"""Whatever a client sends: one shape of error, the right status, and a server that goes on serving."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest

from tests.api.conftest import CHAT, Edge, StartEdge

COMPLETION = {"model": "tiny", "prompt": "x"}
JSON = {"content-type": "application/json"}


def check_error(answer: Any, status: int, param: str | None, *fragments: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert list(answer.json()) == ["error"]
    error = answer.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["param"] == param
    for fragment in fragments:
        assert fragment in error["message"]
    assert "\n" not in error["message"]


# --- the cases of vLLM's transcripts: same status, same field; one sentence instead of a dump -----------------------


def test_unknown_model(edge: Edge) -> None:
    answer = edge.chat(model="nope")
    check_error(answer, 404, "model", "The model `nope` does not exist", "tiny")
    assert answer.json()["error"]["code"] == "model_not_found"


def test_negative_temperature(edge: Edge) -> None:
    check_error(edge.chat(temperature=-1.0), 400, "temperature", "temperature must be", "-1.0")


def test_missing_field(edge: Edge) -> None:
    check_error(edge.post("/v1/chat/completions", json={"model": "tiny"}), 400, "messages", "messages is required")


def test_bad_json(edge: Edge) -> None:
    answer = edge.post("/v1/chat/completions", content=b"{bad", headers=JSON)
    check_error(answer, 400, None, "not valid JSON", "line 1 column 2")


# --- bodies that are none -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "fragment"),
    [
        (b"", "empty"),
        (b"null", "JSON object"),
        (b"[1]", "JSON object"),
        (b'{"model": "tiny"', "not valid JSON"),
        (b"{\"model\": 'tiny'}", "not valid JSON"),
        (b'{"model": "\xff\xfe"}', "not valid JSON"),
        (b'{"model": "\\ud800"}', "not valid JSON"),
        (b"\x00\x01\x02", "not valid JSON"),
        (json.dumps(CHAT).encode("utf-16"), "not valid JSON"),
        (b"[" * 500_000, "not valid JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not valid JSON"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_bodies_that_are_no_request(edge: Edge, path: str, body: bytes, fragment: str) -> None:
    check_error(edge.post(path, content=body, headers=JSON), 400, None, fragment)
    assert edge.chat().status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"])
def test_wrong_content_type(edge: Edge, kind: str) -> None:
    answer = edge.post("/v1/chat/completions", content=json.dumps(CHAT), headers={"content-type": kind})
    check_error(answer, 400, None, "application/json")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"])
def test_right_content_types(edge: Edge, kind: str) -> None:
    answer = edge.post("/v1/chat/completions", content=json.dumps(CHAT), headers={"content-type": kind})
    assert answer.status_code == 200


# --- fields ---------------------------------------------------------------------------------------------------------

HUGE = 10**30


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        *[("temperature", v, None) for v in ("1", True, [], {}, 2.1, -0.1, HUGE)],
        *[("top_p", v, None) for v in (-1, 1.01, "0.5")],
        *[("top_k", v, None) for v in (-2, 1.5, "3", HUGE)],
        *[("max_tokens", v, None) for v in (0, -1, "16", 1.5, True, HUGE)],
        *[("max_completion_tokens", v, None) for v in (0, -1, "16")],
        *[("stop", v, None) for v in (5, ["a"] * 5, {"a": 1}, "")],
        ("stop", ["a", ""], "stop[1]"),
        ("stop", ["a", 1], "stop[1]"),
        *[("seed", v, None) for v in ("1", 1.5, HUGE, -HUGE)],
        *[("stream", v, None) for v in ("true", 1)],
        ("stream_options", True, None),
        ("stream_options", {"include_usage": "yes"}, "stream_options.include_usage"),
        *[("top_logprobs", v, None) for v in (-1, 21, "1")],
        ("logprobs", 1, None),
        ("ignore_eos", "no", None),
        ("user", 5, None),
        *[("priority", v, None) for v in (-1, 3, False, "high")],
        *[("model", v, None) for v in (None, 5, ["tiny"])],
        *[("messages", v, None) for v in (None, [], "hi", {})],
        ("messages", ["hi"], "messages[0]"),
        ("messages", [{"role": "user"}], "messages[0].content"),
        ("messages", [{"role": "user", "content": None}], "messages[0].content"),
        ("messages", [{"role": "user", "content": 5}], "messages[0].content"),
        ("messages", [{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
        ("messages", [{"content": "x"}], "messages[0].role"),
        ("messages", [{"role": "boss", "content": "x"}], "messages[0].role"),
        ("messages", [{"role": "assistant", "content": 5}], "messages[0].content"),
        *[("n", v, None) for v in (0, 17, 1.5, "2", True)],
        *[("frequency_penalty", v, None) for v in (2.1, -2.1, "1", True)],
        *[("presence_penalty", v, None) for v in (2.1, -2.1, [])],
        *[("repetition_penalty", v, None) for v in (0, -1, 1e-300, 1e300, "1")],
        *[("min_p", v, None) for v in (-0.1, 1.1, "0")],
        *[("min_tokens", v, None) for v in (-1, 1.5, HUGE)],
        *[("logit_bias", v, None) for v in ({"a": 1}, {"-1": 1}, {"1": 101}, {"1": "1"}, {"259": 1}, {"1\n": 1}, [1])],
        ("logit_bias", dict.fromkeys(map(str, range(1025)), 1), None),
        ("stop_token_ids", [259], None),
        ("stop_token_ids", [-1], "stop_token_ids[0]"),
        ("stop_token_ids", 5, None),
        ("bad_words", "word", None),
        ("bad_words", [""], "bad_words[0]"),
        ("bad_words", ["x" * 201], "bad_words[0]"),
    ],
)
def test_fields_of_a_chat_that_are_wrong(edge: Edge, field: str, value: object, param: str | None) -> None:
    check_error(edge.chat(**{field: value}), 400, param or field, field)
    assert edge.backend.started == 0


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["temperature", "top_p", "max_tokens"])
def test_numbers_that_are_none(edge: Edge, field: str, value: str) -> None:
    body = json.dumps({**CHAT, field: 0.5}).replace("0.5", value)
    answer = edge.post("/v1/chat/completions", content=body, headers=JSON)
    check_error(answer, 400, field, field)


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}], "tools"),
        ("functions", [{"name": "f"}], "functions"),
        ("tool_choice", "auto", "tool_choice"),
        ("tool_choice", {"type": "function"}, "tool_choice"),
        ("response_format", {"type": "json_object"}, "response_format.type"),
        ("modalities", ["text", "audio"], "modalities"),
        ("audio", {"voice": "alloy"}, "audio"),
        (
            "messages",
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            "messages[0].content[0].type",
        ),
    ],
)
def test_what_is_not_supported_is_said(edge: Edge, field: str, value: object, param: str) -> None:
    check_error(edge.chat(**{field: value}), 400, param, "not supported here")


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        *[("prompt", v, "prompt") for v in (None, "", [], 5, {}, [None], [{}], [259], [-1][:0])],
        ("prompt", [-1], "prompt[0]"),
        ("prompt", ["a", ""], "prompt[1]"),
        ("prompt", ["a", 1], "prompt[1]"),
        ("prompt", [[1], []], "prompt[1]"),
        ("prompt", [[1], [2, "x"]], "prompt[1][1]"),
        ("prompt", [[1], [300]], "prompt[1]"),
        ("prompt", ["a"] * 65, "prompt"),
        ("echo", True, "echo"),
        ("best_of", 2, "best_of"),
        ("suffix", "end", "suffix"),
        ("logprobs", True, "logprobs"),
        ("logprobs", 21, "logprobs"),
    ],
)
def test_fields_of_a_completion_that_are_wrong(edge: Edge, field: str, value: object, param: str) -> None:
    check_error(edge.post("/v1/completions", json={**COMPLETION, field: value}), 400, param, field)
    assert edge.backend.started == 0


def test_a_prompt_longer_than_the_context(edge: Edge) -> None:
    answer = edge.post("/v1/completions", json={**COMPLETION, "prompt": "x" * 1024})
    check_error(answer, 400, "prompt", "has 1024 tokens", "maximum context length is 1024 tokens")
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    check_error(edge.chat(messages=[{"role": "user", "content": "x" * 30_000}]), 400, "messages", "30008", "1024")
    assert edge.post("/v1/completions", json={**COMPLETION, "prompt": "x" * 1023}).status_code == 200


def test_a_wrong_value_is_shown_only_in_part(edge: Edge) -> None:
    message = edge.chat(temperature="x" * 10_000).json()["error"]["message"]
    assert "xxx" in message
    assert len(message) < 200


# --- routes ---------------------------------------------------------------------------------------------------------


def test_unknown_routes(edge: Edge) -> None:
    check_error(edge.get("/nope"), 404, None, "GET /nope does not exist")
    check_error(edge.get("/v1/models/other"), 404, "model", "`other`", "`tiny`")
    check_error(edge.get("/health/"), 404, None, "/health/")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/v1/chat/completions", "POST"), ("DELETE", "/v1/models", "GET"), ("HEAD", "/v1/completions", "POST")],
)
def test_wrong_methods(edge: Edge, method: str, path: str, allowed: str) -> None:
    with edge.send(f"{method} {path} HTTP/1.1\nconnection: close") as connection:
        data = b"".join(iter(lambda: connection.recv(65536), b""))
    assert data.startswith(b"HTTP/1.1 405 ")
    assert f"allow: {allowed}\r\n".encode() in data
    assert method == "HEAD" or b'"code":"method_not_allowed"' in data


def test_bytes_that_are_no_http_do_no_harm(edge: Edge) -> None:
    with edge.connect() as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00 this is not http\r\n\r\n")
        assert b"400" in connection.recv(65536)
    assert edge.chat().status_code == 200


def test_health_follows_the_backend(edge: Edge) -> None:
    assert (edge.get("/health").status_code, edge.get("/health").content) == (200, b"")
    edge.backend.is_ready = False
    answer = edge.get("/health")
    check_error(answer, 503, None, "not ready")
    assert answer.headers["retry-after"] == "1"


# --- request ids ----------------------------------------------------------------------------------------------------


def test_a_sane_request_id_is_kept_for_header_and_log(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "miniserve.access")
    answer = edge.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "abc:1/x"})
    assert answer.headers["x-request-id"] == "abc:1/x"
    edge.until(lambda: caplog.records, "a line was logged")
    line = json.loads(caplog.records[0].getMessage())
    assert line["request_id"] == "abc:1/x"
    assert line["id"] == edge.backend.requests[0].request_id
    assert edge.get("/nope", headers={"x-request-id": "err-1"}).headers["x-request-id"] == "err-1"


def test_inside_a_request_has_an_id_of_its_own_which_the_answer_tells(edge: Edge) -> None:
    headers = {"x-request-id": "abc:1/x"}
    chat = edge.post("/v1/chat/completions", json=CHAT, headers=headers).json()
    completion = edge.post("/v1/completions", json=COMPLETION, headers=headers).json()
    ids = [request.request_id for request in edge.backend.requests]
    assert [chat["id"], completion["id"]] == [f"chatcmpl-{ids[0]}", f"cmpl-{ids[1]}"]
    assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in ids)
    assert ids[0] != ids[1]


@pytest.mark.parametrize("offered", [b"", b"x" * 129, b"two words", b"caf\xc3\xa9", b"tab\tbed"])
def test_other_request_ids_are_replaced(edge: Edge, offered: bytes) -> None:
    answer = edge.post("/v1/chat/completions", json=CHAT, headers={b"x-request-id": offered})
    assert answer.headers["x-request-id"].isalnum()
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["x-request-id"] == edge.backend.requests[0].request_id, "there is no other"


# --- the request log ------------------------------------------------------------------------------------------------


def test_each_exchange_is_one_log_line_without_its_text(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "miniserve.access")
    secret = "the-secret-prompt"
    edge.post("/v1/completions", json={"model": "tiny", "prompt": secret}, headers={"x-request-id": "log-1"})
    edge.post("/v1/completions", json={"model": secret, "prompt": secret}, headers={"x-request-id": "log-2"})
    edge.get(f"/{secret}", headers={"x-request-id": "log-3"})
    edge.until(lambda: len(caplog.records) == 3, "three lines were logged")
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    served = lines[0]
    assert (served["request_id"], served["status"], served["route"]) == ("log-1", 200, "/v1/completions")
    assert (served["prompt_tokens"], served["completion_tokens"]) == (len(secret), 5)
    assert 0 <= served["ttft_s"] <= served["duration_s"]
    assert [(line["status"], line["error"]) for line in lines[1:]] == [(404, "not_found_error")] * 2
    assert lines[2]["route"] == "unmatched"
    assert secret not in caplog.text


def test_the_server_survives_all_of_it(start_edge: StartEdge) -> None:
    """Garbage of every kind at once, then an ordinary request."""
    edge = start_edge()
    garbage = [b"", b"\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n", b"GET /health HTTP/1.1\r\ncontent-length: -5\r\n\r\n"]
    garbage += [b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"]
    for data in garbage:
        with edge.connect() as connection:
            connection.sendall(data)
    assert edge.chat().json()["choices"][0]["message"]["content"] == "Hello"
