"""A cascade at the gateway: the small model's answer if it was sure, else the large model's; one answer, one bill."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from api.conftest import ByteTokenizer
from prometheus_client import CollectorRegistry

from miniserve.api.app import create_app
from miniserve.api.backend import ServedModel
from miniserve.api.catalogue import Catalogue, ModelNames
from miniserve.config import ApiConfig
from miniserve.errors import InvalidRequest, Overloaded, RequestError
from miniserve.gateway.model_choice import CascadeBackend
from miniserve.observe.metrics import ApiMetrics
from miniserve.policies.routing.model_router import Cascade
from miniserve.types import FinishReason, Request, SamplingParams, Served, TokenEvent, TokenLogprob

pytestmark = pytest.mark.anyio
CATALOGUE = Catalogue(
    [ServedModel("small", ByteTokenizer(), 512, 0), ServedModel("large", ByteTokenizer(), 512, 0, versions=("1",))],
    ModelNames(cascades={"careful": ("small", "large")}),
)
CASCADES = {"careful": Cascade("small", "large", threshold=-0.5)}
TEXTS = {"small": "small talk", "large": "large words"}


@dataclass
class TwoModels:
    """Says a text in the name of the model asked for, each token with the same log-probability."""

    logprob: float = -0.1  # of the small model's tokens
    error: RequestError | None = None  # the small model's, after two tokens
    asked: list[Request] = field(default_factory=list)
    said: int = 0  # tokens
    open: int = 0

    def ready(self) -> bool:
        return True

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        self.asked.append(request)
        self.open += 1
        try:
            data = TEXTS[request.model].encode()[: request.sampling.max_tokens]
            for at, byte in enumerate(data):
                if self.error is not None and request.model == "small" and at == 2:
                    raise self.error
                wanted = request.sampling.logprobs is not None
                logprobs = (TokenLogprob(byte, self.logprob if request.model == "small" else -3.0),) if wanted else ()
                served = Served(f"{request.model}@1" if request.model == "large" else "small") if at == 0 else None
                last = FinishReason.STOP if at == len(data) - 1 else None
                self.said += 1
                yield TokenEvent(request.request_id, (byte,), last, logprobs, served=served)
        finally:
            self.open -= 1

    def names(self) -> list[str]:
        return [request.model for request in self.asked]


def request(model: str = "careful", **sampling: Any) -> Request:
    return Request("q", model, (1, 2), SamplingParams(**{"max_tokens": 100, **sampling}))


async def events(models: TwoModels, asked: Request) -> list[TokenEvent]:
    return [event async for event in CascadeBackend(models, CASCADES, CATALOGUE).generate(asked)]


def text_of(events: list[TokenEvent]) -> str:
    return bytes(token for event in events for token in event.token_ids).decode()


@pytest.mark.parametrize(("logprob", "kept"), [(-0.1, True), (-0.5, True), (-0.51, False), (-9.0, False)])
async def test_what_the_small_model_is_sure_of_is_kept_and_the_rest_is_asked_again(logprob: float, kept: bool) -> None:
    models = TwoModels(logprob)
    told = await events(models, request())
    assert text_of(told) == TEXTS["small" if kept else "large"]
    assert models.names() == ["small"] if kept else ["small", "large"]
    assert all(not event.logprobs for event in told), "nobody asked for them"
    first = told[0].served
    assert first is not None
    assert (first.model, first.discarded_tokens) == (("small", 0) if kept else ("large@1", len(TEXTS["small"])))
    assert all(event.served is None for event in told[1:])


async def test_log_probabilities_are_passed_on_where_they_were_asked_for() -> None:
    models = TwoModels()
    told = await events(models, request(logprobs=0))
    assert [entry.logprob for event in told for entry in event.logprobs] == [-0.1] * len(TEXTS["small"])
    models = TwoModels()
    await events(models, request(logprobs=5))
    assert models.asked[0].sampling.logprobs == 5


async def test_other_names_pass_as_they_are() -> None:
    models = TwoModels(logprob=-9)
    assert text_of(await events(models, request("small"))) == TEXTS["small"]
    assert models.asked == [request("small")]


async def test_a_draft_ends_at_the_stop_string() -> None:
    models = TwoModels()
    assert text_of(await events(models, request(stop=("ll",)))) == "small"
    assert (models.said, models.open) == (5, 0)


async def test_the_two_attempts_differ_in_id_and_in_nothing_else() -> None:
    models = TwoModels(logprob=-9)
    await events(models, request(seed=5, temperature=0.5))
    small, large = models.asked
    assert (small.request_id, large.request_id) == ("q-small", "q")
    assert (small.prompt_ids, small.sampling.seed, large.sampling) == (
        (1, 2),
        5,
        request(seed=5, temperature=0.5).sampling,
    )


async def test_where_the_small_model_cannot_answer_the_large_one_does() -> None:
    models = TwoModels(error=Overloaded("full"))
    told = await events(models, request())
    assert text_of(told) == TEXTS["large"]
    assert told[0].served is not None
    assert told[0].served.discarded_tokens == 2


async def test_what_is_the_requests_own_fault_is_not_asked_twice() -> None:
    models = TwoModels(error=InvalidRequest("no"))
    with pytest.raises(InvalidRequest):
        await events(models, request())
    assert models.names() == ["small"]


@pytest.mark.parametrize("logprob", [-0.1, -9.0])
async def test_a_client_that_leaves_closes_whatever_runs(logprob: float) -> None:
    models = TwoModels(logprob)
    async with aclosing(CascadeBackend(models, CASCADES, CATALOGUE).generate(request())) as answer:
        await anext(answer)
    assert models.open == 0


# --- what the client sees ------------------------------------------------------------------------------------------


async def ask(models: TwoModels, **fields: object) -> tuple[httpx.Response, CollectorRegistry]:
    registry = CollectorRegistry()
    backend = CascadeBackend(models, CASCADES, CATALOGUE)
    app = create_app(backend, CATALOGUE, config=ApiConfig(), metrics=ApiMetrics(registry), registry=registry)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        body = {"model": "careful", "prompt": "who?", "max_tokens": 100, **fields}
        return await client.post("/v1/completions", json=body), registry


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("logprob", "by", "discarded"), [(-0.1, "small", 0), (-9.0, "large@1", 10)])
async def test_usage_counts_what_the_client_got_and_the_rest_is_told_elsewhere(
    stream: bool, logprob: float, by: str, discarded: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "miniserve.access")
    answer, registry = await ask(TwoModels(logprob), stream=stream, stream_options={"include_usage": True})
    assert answer.headers["x-miniserve-model"] == by
    pieces = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    usage = json.loads(pieces[-1])["usage"] if stream else answer.json()["usage"]
    assert usage["completion_tokens"] == len(TEXTS[by.removesuffix("@1")])
    assert registry.get_sample_value("miniserve_cascade_discarded_tokens_total") == discarded
    line = json.loads(caplog.messages[-1])
    assert (line["model"], line.get("discarded_tokens", 0)) == (by, discarded)


async def test_each_choice_is_decided_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    models = TwoModels()
    sure: Callable[[Cascade, Any], bool] = lambda _, logprobs: len(models.asked) > 1  # noqa: E731
    monkeypatch.setattr(Cascade, "keeps", sure)
    answer, _ = await ask(models, n=2)
    assert sorted(choice["text"] for choice in answer.json()["choices"]) == ["large words", "small talk"]
    assert sorted(answer.headers["x-miniserve-model"].split(",")) == ["large@1", "small"]
