"""Several models and versions behind one gateway: who may answer whom, and what is said when nobody can."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from api.conftest import ByteTokenizer

from miniserve.api.backend import ServedModel
from miniserve.api.catalogue import Catalogue, ModelNames
from miniserve.api.wiring import api_app
from miniserve.clock import ManualClock
from miniserve.config import ApiConfig
from miniserve.engine.stats import EngineStats
from miniserve.errors import broke_off
from miniserve.gateway.drive import FleetBackend
from miniserve.gateway.fleet import Fleet
from miniserve.policies.bundle import Policies, by_model
from miniserve.policies.routing.router import Router, VersionPin
from miniserve.replica.wire import ReplicaReport
from miniserve.types import FinishReason, ReplicaState, ReplicaView, Request, TokenEvent

pytestmark = pytest.mark.anyio
SMALL = ServedModel("small", ByteTokenizer(), 512, 0)
LARGE = ServedModel("large", ByteTokenizer(), 512, 0, versions=("1", "2"))
NAMES = ModelNames(aliases={"default": "large"}, deprecated={"large@1": 1_700_000_000})


@dataclass
class Named:
    """A replica that answers with the name it reports, from where the request stands."""

    model: str
    state: ReplicaState = ReplicaState.READY
    dies_after: int | None = None  # tokens, and once only
    asked: list[Request] = field(default_factory=list)

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        self.asked.append(request)
        text = f"this is {self.model}".encode()
        left, self.dies_after = self.dies_after, None
        for at in range(len(request.resume_ids), len(text)):
            if left == 0:
                raise broke_off()
            left = None if left is None else left - 1
            yield TokenEvent(request.request_id, (text[at],), FinishReason.STOP if at == len(text) - 1 else None)

    async def report(self, timeout_s: float) -> ReplicaReport:
        return ReplicaReport(1, self.model, self.state, 1.0, 1, 512, EngineStats())

    async def close(self) -> None: ...


class First:
    """Takes the first that is offered."""

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        return replicas[0].replica_id if replicas else None


@dataclass
class ModelGateway:
    """A gateway's client and its fleet."""

    client: httpx.AsyncClient
    fleet: Fleet

    async def ask(self, model: str | None = None, user: str | None = None, **fields: object) -> httpx.Response:
        said = {key: value for key, value in {"model": model, "user": user}.items() if value is not None}
        return await self.client.post("/v1/completions", json={**said, "prompt": "who?", "max_tokens": 40, **fields})

    async def text(self, model: str | None = None, user: str | None = None) -> str:
        answer = await self.ask(model, user)
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["choices"][0]["text"]
        assert answer.headers["x-miniserve-model"] == text.removeprefix("this is "), "the header tells the truth"
        return text.removeprefix("this is ")


@asynccontextmanager
async def gateway(replicas: Mapping[str, Named], router: Router | None = None) -> AsyncIterator[ModelGateway]:
    async with Fleet(ManualClock(5.0), probe_interval_s=60.0) as fleet:
        for name, replica in replicas.items():
            await fleet.put(name, replica)
        backend = FleetBackend(fleet, by_model(Policies(First(), router=router, resume=True)))
        app = api_app(backend, Catalogue([SMALL, LARGE], NAMES), config=ApiConfig())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            yield ModelGateway(client, fleet)


def pools() -> dict[str, Named]:
    return {name: Named(name[:-2]) for name in ("small-a", "large@1-a", "large@1-b", "large@2-a", "large@2-b")}


async def test_each_model_and_each_pin_is_answered_by_its_own_replicas() -> None:
    async with gateway(pools()) as there:
        for _ in range(5):
            assert await there.text("small") == "small"
            assert await there.text("large@1") == "large@1"
            assert await there.text("large@2") == "large@2"
            assert (await there.text("large")).startswith("large@")
            assert (await there.text()).startswith("large@"), "the default"


async def test_a_pinned_client_keeps_its_version_while_weights_move() -> None:
    pin = VersionPin(shares={"large@2": 0.0, "large@1": 1.0})
    users = [f"user-{n}" for n in range(30)]
    async with gateway(pools(), pin) as there:
        moved: set[str] = set()
        for share in (0.0, 0.2, 0.6, 1.0):
            pin.set_shares({"large@2": share, "large@1": 1 - share})
            answers = {user: await there.text("large", user) for user in users}
            now = {user for user in users if answers[user] == "large@2"}
            assert moved <= now, "a user who saw the new version keeps it"
            moved = now
            for user in users[:5]:
                assert await there.text("large@1", user) == "large@1"
                assert await there.text("large@2", user) == "large@2"
                assert await there.text("small", user) == "small"
        assert moved == set(users)


@pytest.mark.parametrize("state", [ReplicaState.STARTING, ReplicaState.DRAINING, ReplicaState.DOWN])
async def test_a_pin_that_nobody_can_serve_now_is_told_so_and_when_to_come_back(state: ReplicaState) -> None:
    replicas = {"a": Named("large@1"), "b": Named("large@2", state)}
    async with gateway(replicas) as there:
        answer = await there.ask("large@2")
        assert await there.text("large") == "large@1", "who is not pinned is served"
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], answer.headers["retry-after"]) == (503, "no_replica_ready", "1")
    assert error["message"] == "no replica of large@2 is ready (0 of 1); try again in 1 s"
    assert replicas["b"].asked == []


async def test_a_version_that_does_not_exist_is_not_found() -> None:
    async with gateway(pools()) as there:
        answer = await there.ask("large@3")
    assert answer.status_code == 404
    assert "`large@2`" in answer.json()["error"]["message"]


async def test_a_deprecated_version_says_so_at_the_gateway_too() -> None:
    async with gateway(pools()) as there:
        assert (await there.ask("large@1")).headers["deprecation"] == "@1700000000"
        assert "deprecation" not in (await there.ask("large")).headers


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_one_version_began_is_never_ended_by_another(stream: bool) -> None:
    replicas = {"a": Named("large@1", dies_after=9), "b": Named("large@2"), "c": Named("large@1")}
    async with gateway(replicas) as there:
        answer = await there.ask("large", stream=stream)
    assert {name: len(replica.asked) for name, replica in replicas.items()} == {"a": 1, "b": 0, "c": 1}
    assert bytes(replicas["c"].asked[0].resume_ids) == b"this is l"
    assert "error" not in answer.text


async def test_without_another_replica_of_its_version_a_broken_answer_ends_with_an_error() -> None:
    replicas = {"a": Named("large@1", dies_after=9), "b": Named("large@2")}
    async with gateway(replicas) as there:
        answer = await there.ask("large")
    assert answer.status_code == 502
    assert replicas["b"].asked == []


async def test_before_the_first_token_another_version_may_serve_instead() -> None:
    async with gateway({"a": Named("large@1", dies_after=0), "b": Named("large@2")}) as there:
        assert await there.text("large") == "large@2"
