"""Feedback finds the answer that it is about, counts once, and is refused in a sentence where there is none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from miniserve.api.answered import AnsweredCall
from miniserve.operations.feedback import FeedbackPart
from miniserve.operations.part import DeskPart
from miniserve.operations.workplace import Workplace

pytestmark = pytest.mark.anyio


class Listening(DeskPart):
    name = "listening"

    def __init__(self, _: Workplace) -> None:
        self.heard: list[tuple[AnsweredCall, bool]] = []

    def judged(self, call: AnsweredCall, good: bool) -> None:
        self.heard.append((call, good))


async def ask(client: Any, **headers: str) -> str:
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    answer = await client.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200
    return str(answer.json()["id"])


@pytest.mark.parametrize(
    ("verdict", "good"), [({"rating": "up"}, True), ({"rating": "down"}, False), ({"score": 0.5}, True)]
)
async def test_a_verdict_reaches_every_part_once_and_without_a_text(
    gateway_of: Any, verdict: dict[str, Any], good: bool
) -> None:
    async with gateway_of(parts=(FeedbackPart, Listening)) as (client, gateway):
        answer_id = await ask(client, **{"x-session-id": "ann"})
        answers = [await client.post("/v1/feedback", json={"id": answer_id, **verdict}) for _ in range(2)]
        status = (await client.get("/status")).json()["feedback"]

    assert [answer.json() for answer in answers] == [
        {"id": answer_id, "counted": True},
        {"id": answer_id, "counted": False},
    ]
    ((call, was_good),) = gateway.desk.part("listening").heard
    assert (was_good, call.model, call.user) == (good, "tiny", "ann")
    assert (call.text, len(call.request.prompt_ids)) == ("", 0)
    assert status == {"tiny": {"judged": 1, "good": int(good)}}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"id": "chatcmpl-nobody", "rating": "up"}, 404, "there is no answer 'chatcmpl-nobody'"),
        ({"id": "chatcmpl-x"}, 400, "either `rating`"),
        ({"id": "chatcmpl-x", "rating": "up", "score": 1}, 400, "either `rating`"),
        ({"id": "chatcmpl-x", "rating": "great"}, 400, "rating"),
        ({"id": "chatcmpl-x", "score": 7}, 400, "score"),
        ({"rating": "up"}, 400, "id is required"),
        ([], 400, "JSON object"),
    ],
)
async def test_what_is_no_feedback_is_refused_in_a_sentence(
    gateway_of: Any, body: object, status: int, said: str
) -> None:
    async with gateway_of(parts=(FeedbackPart,)) as (client, _):
        answer = await client.post("/v1/feedback", json=body)

    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


async def test_the_oldest_answers_are_forgotten_first(gateway_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miniserve.operations.feedback.REMEMBERED", 2)
    async with gateway_of(parts=(FeedbackPart,)) as (client, _):
        ids = [await ask(client) for _ in range(3)]
        answers = [await client.post("/v1/feedback", json={"id": each, "rating": "up"}) for each in ids]

    assert [answer.status_code for answer in answers] == [404, 200, 200]


async def test_the_route_is_described_and_the_counts_survive_a_restart(gateway_of: Any, tmp_path: Any) -> None:
    for times in (1, 2):
        async with gateway_of(parts=(FeedbackPart,), state_dir=tmp_path) as (client, _):
            await client.post("/v1/feedback", json={"id": await ask(client), "rating": "up"})
            described = (await client.get("/openapi.json")).json()["paths"]["/v1/feedback"]["post"]
            status = (await client.get("/status")).json()["feedback"]

        assert status == {"tiny": {"judged": times, "good": times}}
        assert set(described["responses"]) >= {"200", "400", "404"}
        assert "score" in described["requestBody"]["content"]["application/json"]["schema"]["properties"]


async def test_a_verdict_that_comes_before_its_answer_is_written_down_waits_for_it(gateway_of: Any) -> None:
    async with gateway_of(parts=(FeedbackPart, Listening)) as (client, gateway):
        part = gateway.desk.part("feedback")
        answer_id = await ask(client)
        remembered = part._answers.pop(answer_id.partition("-")[2])
        asking = asyncio.create_task(client.post("/v1/feedback", json={"id": answer_id, "rating": "up"}))
        async with asyncio.timeout(20.0):
            while not part._awaited:  # noqa: ASYNC110 -- the other side of a socket
                await asyncio.sleep(0.001)
        part.answered(remembered.call)
        answer = await asking

    assert answer.json() == {"id": answer_id, "counted": True}
    assert part._awaited == {}
