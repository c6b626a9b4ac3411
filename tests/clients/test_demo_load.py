"""The demo's crowd, in virtual time, before a gateway that is a script."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import httpx
import pytest
from parity import virtual_time

from miniserve.clients.demo_load import FEATURES, PATIENCE_S, DemoLoad, GradedQuestion, visitor, wavy_rate

RATE = 10.0


class ScriptedGateway:
    """Answers every chat with "right", after `takes_s`; keeps what it was sent."""

    def __init__(self, text: str = "right", *, finish_reason: str = "stop", takes_s: float = 0.2) -> None:
        self.text, self.finish_reason, self.takes_s = text, finish_reason, takes_s
        self.status, self.feedback_status, self.is_cut = 200, 200, False
        self.asked: list[tuple[float, dict[str, Any], httpx.Headers]] = []
        self.judged: list[dict[str, str]] = []
        self.open = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if request.url.path == "/v1/feedback":
            self.judged.append(body)
            return httpx.Response(self.feedback_status, json={"counted": True})
        assert request.url.path == "/v1/chat/completions"
        self.asked.append((asyncio.get_running_loop().time(), body, request.headers))
        answer_id = f"chatcmpl-{len(self.asked)}"
        self.open += 1
        await asyncio.sleep(self.takes_s)
        self.open -= 1
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "no"}})
        return self._stream(answer_id) if body["stream"] else self._whole(answer_id)

    def _whole(self, answer_id: str) -> httpx.Response:
        choice = {"message": {"content": self.text}, "finish_reason": self.finish_reason}
        return httpx.Response(200, json={"id": answer_id, "choices": [choice]})

    def _stream(self, answer_id: str) -> httpx.Response:
        pieces: list[tuple[str | None, str | None]] = [(self.text[:2], None), (self.text[2:], self.finish_reason)]
        events = [
            json.dumps({"id": answer_id, "choices": [{"delta": {"content": text}, "finish_reason": reason}]})
            for text, reason in pieces
        ] + ([] if self.is_cut else ["[DONE]"])
        return httpx.Response(200, content="".join(f"data: {event}\n\n" for event in events).encode())


def drive(
    gateway: ScriptedGateway, seconds: float, meanwhile: Callable[[DemoLoad], Awaitable[None]] | None = None
) -> DemoLoad:
    """Let the crowd ask `gateway` for so long, and wait for the last answers."""

    async def main() -> DemoLoad:
        load = DemoLoad(
            "http://gateway/v1",
            {"small": 1, "large": 3},
            (GradedQuestion("string", f"question {number}", "right") for number in itertools.count()),
            asyncio.get_running_loop().time,
            Random(1),
            mean_per_s=RATE,
            transport=httpx.MockTransport(gateway),
        )
        running = asyncio.create_task(load.run())
        await (asyncio.sleep(seconds) if meanwhile is None else meanwhile(load))
        load.stop.set()
        await running
        return load

    return virtual_time.run(main())


def test_questions_leave_at_the_rate_whatever_becomes_of_the_answers() -> None:
    quick, slow = ScriptedGateway(), ScriptedGateway(takes_s=25.0)
    for gateway in (quick, slow):
        load = drive(gateway, 240.0)
        assert load.counts.sent == len(gateway.asked) == pytest.approx(240 * RATE, rel=0.06), "five deviations are 10 %"
    at_s = [[time_s for time_s, _, _ in gateway.asked] for gateway in (quick, slow)]
    assert at_s[0] == at_s[1]


def test_the_rate_goes_up_and_down_and_keeps_its_mean() -> None:
    rates = [wavy_rate(seconds, RATE) for seconds in range(240 * 67)]
    assert sum(rates) / len(rates) == pytest.approx(RATE, rel=1e-3)
    assert min(rates) == pytest.approx(0.65 * RATE, rel=0.01)
    assert max(rates) == pytest.approx(1.35 * RATE, rel=0.01)


def test_a_factor_counts_from_the_moment_it_is_given() -> None:
    gateway = ScriptedGateway()

    async def turn(load: DemoLoad) -> None:
        for factor in (1.0, 2.0, 0.0, 0.5):
            load.turn(factor)
            await asyncio.sleep(240.0)
            assert load.counts.rate_per_s == pytest.approx(wavy_rate(0, RATE) * factor, rel=0.15)

    drive(gateway, 0.0, turn)
    by_quarter = Counter(int(time_s // 240) for time_s, _, _ in gateway.asked)
    assert by_quarter[2] <= 6, "those that were on their way to ask again, and what left within a quarter of a second"
    for quarter, factor in ((0, 1.0), (1, 2.0), (3, 0.5)):
        assert by_quarter[quarter] == pytest.approx(240 * RATE * factor, rel=0.1)


@pytest.mark.parametrize(
    ("text", "finish_reason", "is_right"),
    [("right", "stop", True), ("wrong", "stop", False), ("right", "length", False)],
)
def test_every_answer_is_graded_and_the_gateway_is_told(text: str, finish_reason: str, is_right: bool) -> None:
    gateway = ScriptedGateway(text, finish_reason=finish_reason)
    counts = drive(gateway, 30.0).counts
    assert (counts.failed, counts.answered) == (0, counts.sent)
    assert counts.graded == len(gateway.judged) == counts.sent
    assert counts.good == (counts.sent if is_right else 0)
    assert {judgement["rating"] for judgement in gateway.judged} == {"up" if is_right else "down"}
    assert sorted(judgement["id"] for judgement in gateway.judged) == sorted(
        f"chatcmpl-{number + 1}" for number in range(counts.sent)
    )
    assert {body["stream"] for _, body, _ in gateway.asked} == {True, False}


def test_people_often_ask_again_after_a_wrong_answer_and_never_after_a_right_one() -> None:
    for text, share in (("right", 0.0), ("wrong", 0.3)):
        gateway = ScriptedGateway(text)
        drive(gateway, 200.0)
        asked = Counter((headers["x-session-id"], body["messages"][0]["content"]) for _, body, headers in gateway.asked)
        assert max(asked.values()) == (1 if share == 0 else 2)
        assert sum(count - 1 for count in asked.values()) / len(asked) == pytest.approx(share, abs=0.06)


def test_people_keep_their_names_and_ask_all_models() -> None:
    gateway = ScriptedGateway()
    drive(gateway, 300.0)
    facts = ("x-tenant-id", "x-region", "x-priority")
    known = {headers["x-session-id"]: tuple(headers[name] for name in facts) for _, _, headers in gateway.asked}
    for _, body, headers in gateway.asked:
        assert known[headers["x-session-id"]] == tuple(headers[name] for name in facts)
        assert headers["x-feature"] == FEATURES["string"]
        assert body["temperature"] == 0
    assert len(known) > 200
    assert len({visitor(number) for number in range(240)}) == 240
    models = Counter(body["model"] for _, body, _ in gateway.asked)
    assert models["large"] / models["small"] == pytest.approx(3, rel=0.2)


def test_a_failure_is_counted_and_costs_the_rest_nothing() -> None:
    refusing, hanging, cutting = ScriptedGateway(), ScriptedGateway(takes_s=10 * PATIENCE_S), ScriptedGateway()
    refusing.status, cutting.is_cut = 503, True
    for gateway in (refusing, hanging):
        counts = drive(gateway, 20.0).counts
        assert (counts.failed, counts.answered, counts.good) == (counts.sent, 0, 0)
        assert gateway.judged == []
    counts = drive(cutting, 20.0).counts
    assert counts.failed == sum(body["stream"] for _, body, _ in cutting.asked) > 0
    assert counts.answered == counts.sent - counts.failed > 0


def test_a_gateway_without_feedback_is_no_failure() -> None:
    gateway = ScriptedGateway()
    gateway.feedback_status = 404
    counts = drive(gateway, 10.0).counts
    assert (counts.graded, counts.failed, counts.good) == (0, 0, counts.sent)


def test_stopping_waits_for_the_answers_and_asks_nothing_more() -> None:
    gateway = ScriptedGateway("wrong", takes_s=5.0)
    load = drive(gateway, 20.0)
    assert gateway.open == 0
    assert load.counts.answered == load.counts.sent
    assert max(time_s for time_s, _, _ in gateway.asked) <= 20.0
    assert load.counts.rate_per_s == 0.0
