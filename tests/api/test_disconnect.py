"""A client that leaves takes its generation with it, whatever it was waiting for."""

from __future__ import annotations

import json

import pytest

from tests.api.conftest import CHAT, Edge, StartEdge, endless, silent

COMPLETION = {"model": "tiny", "prompt": ["one", "two", "three"]}


def gone(edge: Edge, route: str) -> float:
    return edge.sample("miniserve_http_requests_total", route=route, method="POST", status="499")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", [silent, endless])
@pytest.mark.parametrize(
    ("route", "body", "generations"), [("/v1/chat/completions", CHAT, 1), ("/v1/completions", COMPLETION, 3)]
)
def test_a_client_that_leaves_ends_its_generations(
    start_edge: StartEdge, stream: bool, script: object, route: str, body: dict[str, object], generations: int
) -> None:
    edge = start_edge(script)
    connection = edge.send_json(route, {**body, "stream": stream})
    edge.until(lambda: edge.backend.open == generations, "the generations have begun")
    connection.close()
    edge.until_idle()
    assert (edge.backend.started, edge.backend.closed) == (generations, generations)
    edge.until(lambda: gone(edge, route) == 1, "the log says 499")
    assert edge.sample("miniserve_generations_finished_total", reason="abort") == generations
    assert edge.sample("miniserve_http_requests_in_flight") == 0


def test_a_client_that_leaves_in_the_middle_of_its_body_starts_nothing(start_edge: StartEdge) -> None:
    edge = start_edge()
    head = "POST /v1/chat/completions HTTP/1.1\ncontent-type: application/json\ncontent-length: 1000"
    edge.send(head, json.dumps(CHAT).encode()).close()
    edge.until(lambda: gone(edge, "/v1/chat/completions") == 1, "the log says 499")
    assert edge.backend.started == 0
    assert edge.chat().status_code == 200


def test_one_client_leaving_does_not_disturb_another(start_edge: StartEdge) -> None:
    edge = start_edge(silent)
    leaving = edge.send_json("/v1/chat/completions", CHAT)
    staying = edge.send_json("/v1/chat/completions", CHAT)
    edge.until(lambda: edge.backend.open == 2, "both have begun")
    leaving.close()
    edge.until(lambda: edge.backend.open == 1, "one has ended")
    assert edge.backend.closed == 1
    staying.close()
