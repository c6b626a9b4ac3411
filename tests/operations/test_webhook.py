"""A webhook that works, fails, hangs: alerts arrive where they can, and nothing waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from miniserve.operations.webhook import QUEUED, TRIES, Webhook

Until = Callable[..., Any]
pytestmark = pytest.mark.anyio


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[Any]]:
    """Let all posts go to a function instead of the network; returns the bodies that came."""

    def listen(answer: Any) -> list[Any]:
        came: list[Any] = []

        async def handle(request: httpx.Request) -> httpx.Response:
            came.append(request.read())
            return await answer(len(came))

        class Client(httpx.AsyncClient):
            def __init__(self, **options: Any) -> None:
                super().__init__(transport=httpx.MockTransport(handle), **options)

        monkeypatch.setattr("miniserve.operations.webhook.httpx.AsyncClient", Client)
        return came

    return listen


def statuses(*codes: int) -> Any:
    async def answer(number: int) -> httpx.Response:
        return httpx.Response(codes[min(number, len(codes)) - 1])

    return answer


async def test_a_message_is_tried_again_until_it_is_taken(receiver: Any, until: Until) -> None:
    came, troubles = receiver(statuses(503, 500, 200)), list[str]()
    hook = Webhook("http://127.0.0.1:9/x", troubles.append, first_wait_s=0.0)
    hook.send({"name": "a"})
    await until(lambda: len(came) == 3)
    await hook.close()

    assert came == [b'{"name":"a"}'] * 3
    assert troubles == []


async def test_trouble_is_said_once_until_it_is_over(receiver: Any, until: Until) -> None:
    came, troubles = receiver(statuses(404, 404, 200, 404)), list[str]()
    hook = Webhook("http://127.0.0.1:9/x", troubles.append, first_wait_s=0.0)
    for number in range(4):
        hook.send({"number": number})
    await until(lambda: len(came) == 4 and len(troubles) == 2)
    await hook.close()

    assert troubles == ["the webhook for alerts does not take them: it answers 404"] * 2


async def test_one_that_is_not_there_is_given_up(receiver: Any, until: Until) -> None:
    async def refuse(_: int) -> httpx.Response:
        raise httpx.ConnectError("refused")

    came, troubles = receiver(refuse), list[str]()
    hook = Webhook("http://127.0.0.1:9/x", troubles.append, first_wait_s=0.0)
    hook.send({})
    await until(lambda: troubles)
    await hook.close()

    assert len(came) == TRIES
    assert "ConnectError" in troubles[0]


async def test_one_that_hangs_holds_nobody_up_and_costs_bounded_memory(receiver: Any, until: Until) -> None:
    async def hang(_: int) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    came = receiver(hang)
    hook = Webhook("http://127.0.0.1:9/x", lambda text: None)
    for number in range(10 * QUEUED):
        hook.send({"number": number})
    await until(lambda: came)
    assert len(hook._queue) <= QUEUED  # the bound itself
    await hook.close()
