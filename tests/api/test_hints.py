"""What a client says beside the body reaches the request; what cannot be understood is refused by its header's name."""

from __future__ import annotations

import pytest

from miniserve.api.hints import MOST_TIMEOUT_S, Hints, read_hints
from miniserve.errors import InvalidRequest
from miniserve.types import LOCAL_TENANT, Priority, Request
from tests.api.conftest import Edge, StartEdge

HEADERS = {
    "x-tenant-id": "acme",
    "x-session-id": "chat-7",
    "x-region": "eu",
    "x-feature": "search/ask",
    "x-priority": "batch",
    "x-request-timeout-s": "12.5",
}


def asked(edge: Edge, headers: dict[str, str] | None = None, **fields: object) -> Request:
    """Return the request that the backend got, with its deadline as seconds from its arrival."""
    body = {"model": "tiny", "prompt": "hi", "max_tokens": 4, **fields}
    answer = edge.post("/v1/completions", json=body, headers=headers or {})
    assert answer.status_code == 200, answer.text
    return edge.backend.requests[-1]


def left_s(request: Request) -> float | None:
    return None if request.deadline_s is None else request.deadline_s - request.arrived_s


def test_every_header_reaches_the_request(start_edge: StartEdge) -> None:
    request = asked(start_edge(), HEADERS)
    assert (request.tenant, request.session_key, request.region) == ("acme", "chat-7", "eu")
    assert (request.feature, request.priority) == ("search/ask", Priority.BATCH)
    assert left_s(request) == pytest.approx(12.5)


def test_who_says_nothing_is_local_and_has_no_deadline(start_edge: StartEdge) -> None:
    request = asked(start_edge())
    assert (request.tenant, request.session_key, request.region, request.feature) == (LOCAL_TENANT, None, None, "")
    assert request.priority is Priority.STANDARD
    assert request.deadline_s is None


def test_the_body_and_the_headers_together(start_edge: StartEdge) -> None:
    """The body's priority wins, the header's session, and of two time limits the smaller one."""
    edge = start_edge()
    request = asked(edge, HEADERS, priority=0, user="somebody", timeout=3)
    assert (request.priority, request.session_key) == (Priority.INTERACTIVE, "chat-7")
    assert left_s(request) == pytest.approx(3.0)
    assert left_s(asked(edge, HEADERS, timeout=99)) == pytest.approx(12.5)
    assert asked(edge, user="somebody").session_key == "somebody"


def test_every_choice_has_them(start_edge: StartEdge) -> None:
    edge = start_edge()
    asked(edge, HEADERS, n=3)
    assert {(request.tenant, request.priority) for request in edge.backend.requests} == {("acme", Priority.BATCH)}
    assert len({request.deadline_s for request in edge.backend.requests}) == 1


@pytest.mark.parametrize("text", ["interactive", "Interactive", "0", " 0 "])
def test_a_priority_is_a_word_or_a_number(text: str) -> None:
    assert read_hints({"x-priority": text}).priority is Priority.INTERACTIVE


def test_empty_headers_say_nothing() -> None:
    assert read_hints(dict.fromkeys(HEADERS, "")) == Hints()


TIMEOUTS = ["0", "-1", "nan", "inf", "-inf", "1e300", "1e999", "0x10", "1_000", "soon", "٣", "5, 6", "1" * 5000]


@pytest.mark.parametrize(
    ("header", "value"),
    [("x-request-timeout-s", value) for value in TIMEOUTS]
    + [("x-priority", value) for value in ("3", "-1", "high", "0.0", "batch, batch")]
    + [("x-tenant-id", value) for value in ("a b", "a\u00e9", "x" * 129, "a,b")]
    + [("x-session-id", "a b"), ("x-region", "eu;us"), ("x-feature", "a\tb")],
)
def test_what_cannot_be_understood_is_refused_by_name(header: str, value: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{header} must be ") as refused:
        read_hints({header: value})
    assert refused.value.param == header
    assert len(str(refused.value)) < 300


def test_the_largest_timeout_is_named() -> None:
    with pytest.raises(InvalidRequest, match="at most 86400, got '1e300'"):
        read_hints({"x-request-timeout-s": "1e300"})
    assert read_hints({"x-request-timeout-s": str(MOST_TIMEOUT_S)}).timeout_s == MOST_TIMEOUT_S


@pytest.mark.parametrize("value", [0, -3, 1e300, "5", True, [1]])
def test_a_body_is_as_strict(start_edge: StartEdge, value: object) -> None:
    edge = start_edge()
    answer = edge.post("/v1/completions", json={"model": "tiny", "prompt": "hi", "timeout": value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "timeout"
    assert edge.backend.requests == []


def test_over_http_a_wrong_header_is_a_400(start_edge: StartEdge) -> None:
    edge = start_edge()
    for header, value in (("x-request-timeout-s", "1e300"), ("x-priority", "urgent"), ("x-tenant-id", "a b")):
        answer = edge.post("/v1/completions", json={"model": "tiny", "prompt": "hi"}, headers={header: value})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == header
    twice = [("x-priority", "batch"), ("x-priority", "interactive")]
    answer = edge.post("/v1/completions", json={"model": "tiny", "prompt": "hi"}, headers=twice)
    assert answer.json()["error"]["param"] == "x-priority", "which of the two is meant nobody knows"
    assert edge.backend.requests == []
