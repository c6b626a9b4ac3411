"""A step that fails, or whose logits are no numbers, costs only the requests that did it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from miniserve.config import CacheConfig, EngineConfig, SchedulerConfig
from miniserve.engine.batch import Batch
from miniserve.engine.engine import Engine, load_engine
from miniserve.engine.sampler import Sampled
from miniserve.errors import InvalidRequest
from miniserve.types import FinishReason, Request, SamplingParams

CONFIG = EngineConfig(cache=CacheConfig(num_blocks=64), scheduler=SchedulerConfig(max_running=8), threads=1)


def request(name: str, first: int = 5, tokens: int = 6) -> Request:
    sampling = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    return Request(name, "m", tuple(range(first, first + 20)), sampling)


class Touchy:
    """Computes a batch unless a request called "bad" is in it."""

    def __init__(self, engine: Engine) -> None:
        self._inner = engine.runner
        self.calls = 0
        engine.runner = self

    def execute(self, batch: Batch) -> list[Sampled | None]:
        self.calls += 1
        if any(work.seq.request_id.startswith("bad") for work in batch.works):
            raise RuntimeError("index out of range")
        return list(self._inner.execute(batch))


@pytest.fixture
def engine(tiny_folder: Path) -> Engine:
    return load_engine(tiny_folder, quant="fp32", config=CONFIG)


def finish(engine: Engine) -> tuple[dict[str, list[int]], dict[str, FinishReason]]:
    outputs: dict[str, list[int]] = {}
    reasons: dict[str, FinishReason] = {}
    while engine.has_work:
        for event in engine.step():
            outputs.setdefault(event.request_id, []).extend(event.token_ids)
            if event.finish_reason is not None:
                reasons[event.request_id] = event.finish_reason
    return outputs, reasons


def test_a_request_that_breaks_the_step_ends_alone_and_its_neighbours_get_their_tokens(
    engine: Engine, tiny_folder: Path
) -> None:
    expected = load_engine(tiny_folder, quant="fp32", config=CONFIG).run([request("a"), request("b", 40)])
    runner = Touchy(engine)
    for one in (request("a"), request("bad", 80), request("b", 40)):
        engine.add(one)
    outputs, reasons = finish(engine)
    assert {name: outputs[name] for name in ("a", "b")} == expected
    assert outputs["bad"] == []
    assert reasons == {"bad": FinishReason.ERROR, "a": FinishReason.LENGTH, "b": FinishReason.LENGTH}
    assert engine.scheduler.blocks.num_used == 0
    assert runner.calls == 1 + 3 + 5, "one by one in the first step only"


class Broken:
    """Computes nothing any more."""

    def execute(self, batch: Batch) -> list[Sampled | None]:
        raise RuntimeError("the device is lost")


def test_an_engine_that_can_compute_nothing_says_so(engine: Engine) -> None:
    engine.runner = Broken()
    for one in (request("a"), request("b", 40)):
        engine.add(one)
    with pytest.raises(RuntimeError, match="the device is lost"):
        engine.step()
    assert engine.scheduler.blocks.num_used == 0


def test_an_engine_whose_every_answer_is_no_number_fails_its_self_test(engine: Engine) -> None:
    class Blank(Broken):
        def execute(self, batch: Batch) -> list[Sampled | None]:
            return [None] if batch.works[0].seq.request_id == "self-test" else super().execute(batch)

    engine.runner = Blank()
    engine.add(request("a"))
    with pytest.raises(RuntimeError, match="the device is lost"):
        engine.step()


def test_requests_that_all_break_their_step_condemn_nobody(engine: Engine, tiny_folder: Path) -> None:
    """Alone or together, as often as they like: each ends, and the next good one gets its tokens."""
    expected = load_engine(tiny_folder, quant="fp32", config=CONFIG).run([request("a")])
    Touchy(engine)
    for names in (("bad1",), ("bad2", "bad3"), ("bad4",), ("bad5",)):
        for name in names:
            engine.add(request(name, 40))
        _, reasons = finish(engine)
        assert reasons == dict.fromkeys(names, FinishReason.ERROR)
        assert engine.scheduler.blocks.num_used == 0
    assert engine.run([request("a")]) == expected
    assert engine.scheduler.counters.generated_tokens == len(expected["a"]), "the self-test is in no count"


def test_where_the_pool_is_full_the_self_test_waits_for_a_block(engine: Engine) -> None:
    """Blocks of the failed are free by then; should others hold all, the requests are to blame until there is room."""
    Touchy(engine)
    engine.add(request("bad", 40))
    held = engine.scheduler.blocks.take(engine.scheduler.blocks.num_free - 2)
    _, reasons = finish(engine)
    assert reasons == {"bad": FinishReason.ERROR}
    assert engine.scheduler.blocks.num_free == engine.scheduler.blocks.num_blocks - len(held)


def test_logits_that_are_no_numbers_end_their_request_and_no_other(engine: Engine, tiny_folder: Path) -> None:
    expected = load_engine(tiny_folder, quant="fp32", config=CONFIG).run([request("a"), request("b", 100)])
    model = engine.runner.model  # type: ignore[attr-defined]
    model.embedding = model.embedding.clone()
    model.embedding[70] = torch.nan  # a token that only one prompt has
    for one in (request("a"), request("nan", 60), request("b", 100)):
        engine.add(one)
    outputs, reasons = finish(engine)
    assert {name: outputs[name] for name in ("a", "b")} == expected
    assert (outputs["nan"], reasons["nan"]) == ([], FinishReason.ERROR)
    assert engine.scheduler.blocks.num_used == 0


@pytest.mark.parametrize("token", [273, 10**6, -1])
def test_a_token_outside_the_embedding_is_refused_with_its_request(engine: Engine, token: int) -> None:
    with pytest.raises(InvalidRequest, match=r"not in the model's vocabulary \(0 to 272\)"):
        engine.add(Request("q", "m", (1, token), SamplingParams(max_tokens=2)))
    assert not engine.has_work
