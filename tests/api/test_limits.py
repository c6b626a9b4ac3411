"""Bodies that are too large or too slow are refused early, politely, and without memory."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator

import pytest

from miniserve.config import ApiConfig
from miniserve.types import FinishReason
from tests.api.conftest import CHAT, Edge, StartEdge, event, steps

POST = "POST /v1/chat/completions HTTP/1.1\ncontent-type: application/json"


def read_all(connection: socket.socket) -> tuple[bytes, dict[str, str | None]]:
    """Return the head and the error of an answer, read until the server closes the connection."""
    data = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    return head, json.loads(body)["error"]


@pytest.fixture
def small(start_edge: StartEdge) -> Edge:
    return start_edge(config=ApiConfig(max_body_bytes=1000, body_timeout_s=0.2))


def test_a_body_announced_too_long_is_refused_before_it_is_sent(edge: Edge) -> None:
    with edge.send(f"{POST}\ncontent-length: 10000000") as connection:
        head, error = read_all(connection)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in head
    assert "10000000 bytes" in str(error["message"])
    assert "1048576" in str(error["message"])
    assert edge.chat().status_code == 200


@pytest.mark.parametrize("path", ["/v1/completions", "/nope", "/health"])
def test_a_client_that_sends_ten_megabytes_reads_its_413(edge: Edge, path: str) -> None:
    answer = edge.post(path, content=b"x" * 10_000_000)
    assert answer.status_code == 413
    assert answer.headers["x-request-id"]


def test_a_body_without_length_is_counted(small: Edge) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"model": "tiny", "messages": [{"role": "user", "content": "'
        for _ in range(200):
            yield b"x" * 100
        yield b'"}]}'

    answer = small.post("/v1/chat/completions", content=body(), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert "1000" in answer.json()["error"]["message"]
    assert small.backend.started == 0


def test_a_body_up_to_the_limit_is_read_in_pieces(small: Edge) -> None:
    data = json.dumps(CHAT).encode()
    data += b" " * (1000 - len(data))
    headers = {"content-type": "application/json"}
    answer = small.post("/v1/chat/completions", content=iter([data[:7], data[7:500], data[500:]]), headers=headers)
    assert answer.status_code == 200
    assert small.post("/v1/chat/completions", content=data + b" ", headers=headers).status_code == 413


@pytest.mark.parametrize("sent", [b"", b'{"model"'])
def test_half_a_body_is_waited_for_only_so_long(small: Edge, sent: bytes) -> None:
    with small.send(f"{POST}\ncontent-length: 100", sent) as connection:
        head, error = read_all(connection)
    assert head.startswith(b"HTTP/1.1 408 ")
    assert error["type"] == "timeout_error"
    assert "0.2 s" in str(error["message"])
    assert small.backend.started == 0
    assert small.chat().status_code == 200


def test_a_body_that_trickles_is_cut_off_by_the_total_time(small: Edge) -> None:
    """Each byte comes in time, the whole does not: the limit is on the whole."""
    with small.send(f"{POST}\ncontent-length: 100000") as connection:
        assert b"413" in connection.recv(65536)
    with small.send(f"{POST}\ncontent-length: 900") as connection:
        connection.settimeout(0.01)
        answer = b""
        while not answer:
            try:
                connection.sendall(b" ")
                answer = connection.recv(65536)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_the_time_limit_does_not_apply_to_the_answer(start_edge: StartEdge) -> None:
    """A generation that takes longer than a body may is not a slow body."""
    gate = asyncio.Event()
    config = ApiConfig(body_timeout_s=0.05, heartbeat_s=0.02)
    edge = start_edge(steps(gate, event("late", FinishReason.STOP)), config=config)
    body = {**CHAT, "stream": True}
    with edge.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as answer:
        pieces = answer.iter_bytes()
        data = b""
        while data.count(b"keep-alive") < 8:  # 8 heartbeats are three times the body's limit
            data += next(pieces)
        edge.set(gate)
        data += b"".join(pieces)
    assert b"late" in data
    assert b"[DONE]" in data
