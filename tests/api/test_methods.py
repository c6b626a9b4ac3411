"""HEAD for health checks, and browsers: closed to them by default, open to the origins that are named."""

from __future__ import annotations

import httpx
import pytest

from miniserve.config import ApiConfig
from miniserve.errors import UpstreamError
from tests.api.conftest import CHAT, Edge, StartEdge, steps

ORIGIN = "http://localhost:5173"


def ask(edge: Edge, method: str, path: str, **kwargs: object) -> httpx.Response:
    with edge.client() as client:
        return client.request(method, path, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path", ["/health", "/v1/models", "/v1/models/tiny", "/v1/models/other", "/metrics", "/version", "/nope"]
)
def test_head_answers_as_get_without_the_body(edge: Edge, path: str) -> None:
    head, get = ask(edge, "HEAD", path), ask(edge, "GET", path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["x-request-id"]
    assert head.headers.get("content-type") == get.headers.get("content-type")
    if path not in ("/metrics", "/nope"):  # one counts these very requests, the other names the method
        assert head.headers["content-length"] == get.headers["content-length"]


def test_head_tells_health_too(edge: Edge) -> None:
    edge.backend.is_ready = False
    assert ask(edge, "HEAD", "/health").status_code == 503


def preflight(edge: Edge, origin: str = ORIGIN) -> httpx.Response:
    wanted = {"access-control-request-method": "POST"}
    wanted["access-control-request-headers"] = "authorization,content-type,x-stainless-timeout"
    return ask(edge, "OPTIONS", "/v1/chat/completions", headers={"origin": origin, **wanted})


def test_browsers_are_shut_out_by_default(edge: Edge) -> None:
    assert preflight(edge).status_code == 405
    answer = ask(edge, "GET", "/v1/models", headers={"origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origins", [(ORIGIN,), ("*",), ("http://other", ORIGIN)])
def test_a_named_origin_may_call_and_read_everything(start_edge: StartEdge, origins: tuple[str, ...]) -> None:
    edge = start_edge(config=ApiConfig(cors_origins=origins, max_body_bytes=1000))
    allowed = "*" if origins == ("*",) else ORIGIN
    asked = preflight(edge)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == allowed
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert "x-stainless-timeout" in asked.headers["access-control-allow-headers"]
    headers = {"origin": ORIGIN, "content-type": "application/json"}
    url = "/v1/chat/completions"
    answers = [
        ask(edge, "GET", "/v1/models", headers=headers),
        ask(edge, "GET", "/nope", headers=headers),
        ask(edge, "POST", url, json={**CHAT, "stream": True}, headers=headers),
        ask(edge, "POST", url, json={**CHAT, "temperature": 3}, headers=headers),
        ask(edge, "POST", url, content=b" " * 1001, headers=headers),
    ]
    edge.backend.script = steps(UpstreamError("cut"))
    answers.append(ask(edge, "POST", url, json=CHAT, headers=headers))
    edge.backend.script = steps(RuntimeError("a bug"))
    answers.append(ask(edge, "POST", url, json=CHAT, headers=headers))
    assert [answer.status_code for answer in answers] == [200, 404, 200, 400, 413, 502, 500]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == allowed
        assert "x-request-id" in answer.headers["access-control-expose-headers"]


def test_other_origins_stay_shut_out(start_edge: StartEdge) -> None:
    edge = start_edge(config=ApiConfig(cors_origins=(ORIGIN,)))
    assert preflight(edge, "http://evil.example").status_code == 400
    answer = ask(edge, "GET", "/v1/models", headers={"origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
