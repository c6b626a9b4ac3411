"""The ladder at the gateway: what it takes away, from whom, and that it always says so."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
from api.conftest import ByteTokenizer
from prometheus_client import CollectorRegistry

from miniserve.api.app import create_app
from miniserve.api.backend import ServedModel
from miniserve.api.catalogue import Catalogue, ModelNames
from miniserve.config import ApiConfig
from miniserve.control.degrade import Degradation, Rung
from miniserve.errors import Overloaded, SetupError
from miniserve.gateway.degraded import DegradingBackend
from miniserve.observe.metrics import ApiMetrics
from miniserve.scenario import load
from miniserve.types import (
    FinishReason,
    FleetView,
    Priority,
    ReplicaState,
    ReplicaView,
    Request,
    SamplingParams,
    Served,
    TokenEvent,
)

pytestmark = pytest.mark.anyio
QUICKSTART = Path(__file__).resolve().parents[2] / "data" / "scenarios" / "quickstart.toml"


class OtherTokenizer(ByteTokenizer):
    eos_ids = (257,)


SMALL = ServedModel("small", ByteTokenizer(), 100, 0)
LARGE = ServedModel("large", ByteTokenizer(), 512, 0, versions=("1", "2"))
OTHER = ServedModel("other", OtherTokenizer(), 512, 0)
CATALOGUE = Catalogue([LARGE, SMALL, OTHER], ModelNames(aliases={"default": "large"}))
SETTINGS = Degradation(capacity=10, smaller={"large": "small"}, max_tokens=8, hold_s=0)


@dataclass
class Echo:
    """Answers with as many tokens as it is asked for, under the name that it is asked by."""

    asked: list[Request] = field(default_factory=list)

    def ready(self) -> bool:
        return True

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        self.asked.append(request)
        served: Served | None = Served(request.model)
        for at in range(request.sampling.max_tokens):
            last = FinishReason.LENGTH if at == request.sampling.max_tokens - 1 else None
            yield TokenEvent(request.request_id, (120,), last, served=served)
            served = None


def at(load: float, *, small: ReplicaState = ReplicaState.READY) -> FleetView:
    """Return a fleet whose ready replicas have `load` times what they should hold."""
    large = [ReplicaView(name, version="large@1", outstanding=round(10 * load)) for name in "ab"]
    return FleetView((*large, ReplicaView("s", small, outstanding=round(10 * load), version="small")))


def ladder(load: float, *, small: ReplicaState = ReplicaState.READY) -> tuple[DegradingBackend, Echo]:
    echo = Echo()
    backend = DegradingBackend(echo, SETTINGS, CATALOGUE)
    backend.tick(0.0, at(load, small=small))
    return backend, echo


async def test_a_promise_that_is_not_kept_takes_something_away_and_says_so() -> None:
    told: list[str] = []
    backend = DegradingBackend(Echo(), SETTINGS, CATALOGUE, is_burning=lambda: True, on_change=told.append)
    backend.tick(0.0, at(0.1))

    assert backend.rung == Rung.SMALL_MODEL
    assert (await served(backend, request())).model == "small"
    assert told == ["Answers come from smaller models where there are any: a promise is not being kept."]


def request(model: str = "large", priority: Priority = Priority.STANDARD, tokens: int = 20) -> Request:
    return Request("q", model, (1, 2), SamplingParams(max_tokens=tokens), priority=priority)


async def served(backend: DegradingBackend, asked: Request) -> Served:
    events = [event async for event in backend.generate(asked)]
    assert all(event.served is None for event in events[1:])
    assert events[0].served is not None
    return events[0].served


@pytest.mark.parametrize(
    ("load", "model", "tokens", "measures"),
    [
        (0.5, "large", 20, ()),
        (1.0, "small", 20, ("small-model",)),
        (1.3, "small", 8, ("small-model", "short-answer")),
        (1.6, "small", 8, ("small-model", "short-answer")),
        (2.5, "small", 8, ("small-model", "short-answer")),
    ],
)
async def test_each_rung_takes_a_little_more_and_says_so(
    load: float, model: str, tokens: int, measures: tuple[str, ...]
) -> None:
    backend, echo = ladder(load)
    assert await served(backend, request()) == Served(model, measures)
    assert (echo.asked[0].model, echo.asked[0].sampling.max_tokens) == (model, tokens)


async def test_what_asks_for_little_loses_nothing() -> None:
    backend, echo = ladder(1.3)
    assert await served(backend, request("small", tokens=8)) == Served("small")
    assert echo.asked == [request("small", tokens=8)]


@pytest.mark.parametrize("name", ["large@2", "other"])
async def test_a_pin_keeps_its_version_and_a_model_without_a_smaller_one_itself(name: str) -> None:
    backend, echo = ladder(1.0)
    assert (await served(backend, request(name))).degraded == ()
    assert echo.asked[0].model == name


async def test_nobody_is_sent_to_a_model_that_is_not_there_or_has_no_room() -> None:
    backend, _ = ladder(1.0, small=ReplicaState.STARTING)
    assert (await served(backend, request())).model == "large"
    backend, _ = ladder(1.0)
    assert (await served(backend, request(tokens=99))).model == "large", "99 and the prompt's 2 are more than 100"
    assert (await served(backend, request(tokens=98))).model == "small"


async def test_lower_classes_are_shed_first_with_a_time_to_come_back() -> None:
    for height, refused in ((2.5, {Priority.BATCH}), (3.5, {Priority.BATCH, Priority.STANDARD})):
        backend, echo = ladder(height)
        for priority in Priority:
            if priority in refused:
                with pytest.raises(Overloaded, match=priority.name.lower()) as error:
                    await served(backend, request(priority=priority))
                assert error.value.retry_after_s == 5.0
            else:
                await served(backend, request(priority=priority))
        assert len(echo.asked) == len(Priority) - len(refused)


async def test_it_comes_down_again_and_an_outage_is_not_overload(caplog: pytest.LogCaptureFixture) -> None:
    backend, _ = ladder(1.3)
    down = FleetView((ReplicaView("a", ReplicaState.DOWN, version="large@1"),))
    backend.tick(1.0, down)
    assert backend.rung is Rung.SHORT_ANSWER, "no replica is no load: nothing is known"
    for now_s in (2.0, 3.0):
        backend.tick(now_s, at(0.1))
    assert backend.rung is Rung.NORMAL
    assert (await served(backend, request())) == Served("large")
    told = [record.message for record in caplog.records if record.name == "miniserve.gateway.degraded"]
    assert told[0] == "degradation: short answer at load 1.30"


# --- what the client sees ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_header_log_and_metric_tell_what_was_taken(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "miniserve.access")
    registry = CollectorRegistry()
    backend, _ = ladder(1.3)
    app = create_app(backend, CATALOGUE, config=ApiConfig(), metrics=ApiMetrics(registry), registry=registry)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        body = {"prompt": "x", "max_tokens": 20, "stream": stream}
        answer = await client.post("/v1/completions", json=body)
        plain = await client.post("/v1/completions", json={**body, "model": "small", "max_tokens": 5})
    assert answer.headers["x-miniserve-degraded"] == "small-model,short-answer"
    assert answer.headers["x-miniserve-model"] == "small"
    assert "x-miniserve-degraded" not in plain.headers
    lines = [json.loads(message) for message in caplog.messages if message.startswith("{")]
    assert [line.get("degraded") for line in lines] == ["small-model,short-answer", None]
    for measure in ("small-model", "short-answer"):
        assert registry.get_sample_value("miniserve_degraded_generations_total", {"measure": measure}) == 1


# --- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("smaller", "message"),
    [
        ({"large": "huge"}, "there is no model 'huge'; there are large, large@1, large@2, small, other"),
        ({"default": "small"}, "there is no model 'default'"),
        ({"large": "other"}, "other cannot stand in for large: another tokenizer"),
    ],
)
def test_a_smaller_model_must_exist_and_read_the_same_tokens(smaller: dict[str, str], message: str) -> None:
    with pytest.raises(SetupError) as refused:
        DegradingBackend(Echo(), replace(SETTINGS, smaller=smaller), CATALOGUE)
    assert message in str(refused.value)


def test_a_file_has_a_table_for_it_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"

    def loaded(table: str) -> Degradation | None:
        path.write_text(f"{QUICKSTART.read_text(encoding='utf-8')}\n[degradation]\n{table}\n", encoding="utf-8")
        return load(path).degradation

    assert load(QUICKSTART).degradation is None, "off unless asked for"
    assert loaded('capacity = 4\nsmaller = {large = "small"}\nmax_tokens = 32') == Degradation(
        capacity=4, smaller={"large": "small"}, max_tokens=32
    )
    for table, message in [
        ("max_tokens = 3", "`capacity` is missing"),
        ("capacity = 0", "degradation.capacity: capacity (0"),
        ("capacity = 1\nmax_tokens = 0", "degradation.max_tokens: max_tokens (0)"),
        ('capacity = 1\nsmaller = {"large@1" = "small"}', "large@1 is a version"),
        ("capacity = 1\nretry_after_s = -1", "degradation.retry_after_s"),
        ("capacity = 1\nspeed = 1", "degradation.speed: unknown key"),
    ]:
        with pytest.raises(SetupError) as refused:
            loaded(table)
        assert message in str(refused.value), table
