"""A foreign OpenAI-compatible server as a replica: both ways of speaking, and whatever such a server may send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway.fake_openai import CONTEXT, FakeOpenAI, event

from miniserve.clock import ManualClock
from miniserve.errors import (
    InternalError,
    InvalidRequest,
    Overloaded,
    RequestError,
    SetupError,
    Unreachable,
    UpstreamError,
)
from miniserve.gateway.openai_replica import BackendWaits, OpenAIReplica, Speech
from miniserve.gateway.openai_wire import read_chunk, read_figures, read_models, refusal
from miniserve.models.tokenizer import Tokenizer
from miniserve.types import FinishReason, ReplicaState, Request, SamplingParams, TokenEvent

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
PROMPT = (5, 6, 7, 8)


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Tokenizer:
    return Tokenizer.load(tiny_folder)


@asynccontextmanager
async def met(fake: FakeOpenAI, tokenizer: Tokenizer, **options: Any) -> AsyncIterator[OpenAIReplica]:
    """The fake as a replica that has told how it speaks."""
    replica = OpenAIReplica(fake.url, "tiny", tokenizer, 512, ManualClock(5.0), **options)
    try:
        while (await replica.report(20.0)).state is ReplicaState.STARTING:
            pass
        yield replica
    finally:
        await replica.close()


def asking(max_tokens: int = 6, **sampling: Any) -> Request:
    return Request("q", "tiny", PROMPT, SamplingParams(max_tokens=max_tokens, **sampling))


async def events_of(replica: OpenAIReplica, request: Request) -> list[TokenEvent]:
    return [event async for event in replica.generate(request)]


# --- both ways of speaking -------------------------------------------------------------------------------------------


async def test_token_ids_come_through_with_reason_and_cached_tokens(tokenizer: Tokenizer) -> None:
    async with FakeOpenAI(tokenizer) as fake, met(fake, tokenizer) as replica:
        events = await events_of(replica, asking())
        expected = fake.answer(list(PROMPT), 6)
    assert [event.token_ids for event in events] == [(id_,) for id_ in expected]
    assert [event.finish_reason for event in events] == [None] * 5 + [FinishReason.LENGTH]
    assert (events[-1].cached_tokens, events[0].text) == (3, None)


async def test_an_answer_continued_in_its_middle_is_the_same_answer(tokenizer: Tokenizer) -> None:
    async with FakeOpenAI(tokenizer) as fake, met(fake, tokenizer) as replica:
        whole = [id_ for event in await events_of(replica, asking(9)) for id_ in event.token_ids]
        request = Request("q", "tiny", PROMPT, SamplingParams(max_tokens=9, seed=4), resume_ids=tuple(whole[:5]))
        rest = [id_ for event in await events_of(replica, request) for id_ in event.token_ids]
        asked = fake.asked[-1]
    assert whole[:5] + rest == whole
    assert (asked["prompt"], asked["max_tokens"], asked["seed"]) == ([*PROMPT, *whole[:5]], 4, 4)


async def test_every_way_to_sample_is_asked_for_by_vllms_name(tokenizer: Tokenizer) -> None:
    words = (tuple(tokenizer.encode("bad")), tuple(tokenizer.encode(" bad")))
    sampling = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "seed": 11,
        "min_tokens": 2,
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "repetition_penalty": 1.5,
        "ignore_eos": True,
        "stop_token_ids": (9,),
        "logit_bias": ((5, 1.5),),
        "bad_words": words,
        "stop": ("never sent",),
    }
    async with FakeOpenAI(tokenizer) as fake, met(fake, tokenizer, key="secret") as replica:
        await events_of(replica, asking(3, **sampling))
        asked = fake.asked[-1]
    assert asked == {
        "model": "tiny",
        "prompt": list(PROMPT),
        "max_tokens": 3,
        "stream": True,
        "return_token_ids": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "seed": 11,
        "min_tokens": 2,
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "repetition_penalty": 1.5,
        "ignore_eos": True,
        "stop_token_ids": [9],
        "logit_bias": {"5": 1.5},
        "bad_words": ["bad"],
    }


async def test_a_server_of_text_is_found_out_and_asked_in_text(tokenizer: Tokenizer) -> None:
    prompt_ids = tokenizer.encode_chat([{"role": "user", "content": "Hello"}])
    async with FakeOpenAI(tokenizer, ids=False) as fake, met(fake, tokenizer) as replica:
        request = Request("q", "tiny", tuple(prompt_ids), SamplingParams(max_tokens=4, temperature=0.0))
        events = await events_of(replica, request)
        asked = fake.asked[-1]
        assert "".join(event.text or "" for event in events) == fake.text(fake.answer(asked["prompt"], 4))
    assert isinstance(asked["prompt"], str)
    assert "Hello" in asked["prompt"]
    assert (tokenizer.control_token(prompt_ids[0]) or "") in asked["prompt"], "the template's control tokens by name"
    assert events[-1].finish_reason is FinishReason.LENGTH
    assert not any(event.token_ids for event in events)


async def test_text_continues_nobodys_answer_and_knows_no_token_ids(tokenizer: Tokenizer) -> None:
    async with FakeOpenAI(tokenizer, ids=False) as fake, met(fake, tokenizer) as replica:
        with pytest.raises(Overloaded, match="cannot continue"):
            await events_of(replica, Request("q", "tiny", PROMPT, SamplingParams(max_tokens=4), resume_ids=(5,)))
        with pytest.raises(InvalidRequest, match="logprobs speaks of token ids"):
            await events_of(replica, asking(logprobs=2))
        assert fake.asked == []


async def test_the_operator_may_say_how_it_speaks(tokenizer: Tokenizer) -> None:
    async with FakeOpenAI(tokenizer) as fake, met(fake, tokenizer, speech=Speech.TEXT) as replica:
        await events_of(replica, asking(2))
        assert [type(body["prompt"]) for body in fake.bodies] == [str], "and no first question is asked"


async def test_leaving_early_ends_the_work_there(tokenizer: Tokenizer, until: Any) -> None:
    async with FakeOpenAI(tokenizer) as fake, met(fake, tokenizer) as replica:
        fake.before_token = lambda i: asyncio.sleep(0)
        async with aclosing(replica.generate(asking(3000))) as events:
            await anext(events)
            assert fake.running == 1
        await until(lambda: fake.running == 0)
    assert fake.produced < 3000


async def test_log_probabilities_come_by_token_id(tokenizer: Tokenizer) -> None:
    lists = {
        "tokens": ["token_id:9"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"token_id:9": -0.5, "token_id:3": -2}],
    }
    choice = {"text": "x", "token_ids": [9], "finish_reason": "stop", "logprobs": lists}
    async with FakeOpenAI(tokenizer) as fake, met(fake, tokenizer) as replica:
        fake.script = HEAD + event({"choices": [choice]}) + b"data: [DONE]\n\n"
        (only,) = await events_of(replica, asking(logprobs=2))
    assert only.logprobs[0].top == ((9, -0.5), (3, -2.0))
    assert (fake.asked[-1]["logprobs"], fake.asked[-1]["return_tokens_as_token_ids"]) == (2, True)


# --- its report ------------------------------------------------------------------------------------------------------


async def test_the_report_tells_vllms_figures_and_the_tokens_count_as_steps(tokenizer: Tokenizer) -> None:
    async with FakeOpenAI(tokenizer) as fake, met(fake, tokenizer) as replica:
        before = await replica.report(20.0)
        async with aclosing(replica.generate(asking(50))) as events:
            fake.running = 3
            await anext(events)
            report = await replica.report(20.0)
            fake.running = 1
    assert (report.model, report.max_model_len, report.state) == ("tiny", CONTEXT, ReplicaState.READY)
    assert report.stats.running >= 3
    assert report.stats.kv_used_fraction == 0.125
    assert report.stats.counters.steps > before.stats.counters.steps


async def test_without_counters_what_has_reached_us_is_the_progress(tokenizer: Tokenizer) -> None:
    """No news is no progress, and a long answer is no hang."""
    async with FakeOpenAI(tokenizer, ids=False) as fake, met(fake, tokenizer) as replica:
        fake.missing = {"/health", "/metrics"}
        steps = [(await replica.report(20.0)).stats.counters.steps for _ in range(3)]
        assert steps == [0, 0, 0]
        await events_of(replica, asking(5))
        assert (await replica.report(20.0)).stats.counters.steps == 5
        assert (await replica.report(20.0)).max_model_len == 512, "as the model's folder says"


async def test_a_hanging_backend_is_never_ready_and_a_silent_one_gives_no_report(tokenizer: Tokenizer) -> None:
    async with FakeOpenAI(tokenizer) as fake:
        fake.hangs = True
        replica = OpenAIReplica(fake.url, "tiny", tokenizer, 512, ManualClock(5.0))
        assert (await replica.report(20.0)).state is ReplicaState.STARTING
        with pytest.raises(Unreachable, match="not told yet"):
            await events_of(replica, asking())
        await replica.close()
    with pytest.raises(UpstreamError, match="no report from the backend"):
        await replica_report(fake.url, tokenizer)


async def replica_report(url: str, tokenizer: Tokenizer, **options: Any) -> object:
    replica = OpenAIReplica(url, "tiny", tokenizer, 512, ManualClock(5.0), **options)
    try:
        return await replica.report(20.0)
    finally:
        await replica.close()


async def test_another_model_is_told_by_name(tokenizer: Tokenizer) -> None:
    async with FakeOpenAI(tokenizer, name="qwen") as fake:
        with pytest.raises(UpstreamError, match="serves qwen, and not tiny; say which with --backend-model"):
            await replica_report(fake.url, tokenizer)
        await replica_report(f"{fake.url}/v1/", tokenizer, model="qwen")
        assert {body["model"] for body in fake.bodies} == {"qwen"}


class Shifted(FakeOpenAI):
    """Its tokens have other ids."""

    def text(self, answer: Any) -> str:
        return super().text([one + 1 for one in answer])


async def test_another_tokenizer_is_noticed_before_it_gets_traffic(tokenizer: Tokenizer) -> None:
    async with Shifted(tokenizer) as fake:
        with pytest.raises(UpstreamError, match="another tokenizer than --model"):
            await replica_report(fake.url, tokenizer)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "nonsense", "http://[::1"])
def test_an_address_that_is_none_is_refused(url: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(SetupError, match="--backend"):
        OpenAIReplica(url, "tiny", tokenizer, 512, ManualClock())


# --- what it may send ------------------------------------------------------------------------------------------------


def chunk(**choice: Any) -> bytes:
    return event({"choices": [{"index": 0, "text": "x", **choice}]})


GOOD = chunk(token_ids=[9])
HTML = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>Welcome to nginx</html>"
NASTY: dict[str, tuple[bytes, str]] = {
    "html": (HTML, "answered with text/html"),
    "no type": (b"HTTP/1.1 200 OK\r\n\r\n" + GOOD, "answered with nothing in place"),
    "no http": (b"SSH-2.0-OpenSSH\r\n\r\n", "connection to the replica failed"),
    "garbage": (HEAD + b"data: {nonsense\n\n", "sent no completion: body: Invalid JSON"),
    "a list": (HEAD + b"data: [1, 2]\n\n", "sent no completion"),
    "no choices": (HEAD + b"data: {}\n\n", "sent no completion: choices"),
    "text of a number": (HEAD + chunk(text=5, token_ids=[9]), "choices.0.text"),
    "ids of text": (HEAD + chunk(token_ids=["9"]), "choices.0.token_ids"),
    "a fraction of an id": (HEAD + chunk(token_ids=[9.5]), "choices.0.token_ids"),
    "true is no id": (HEAD + chunk(token_ids=[True]), "choices.0.token_ids"),
    "an id too large": (HEAD + chunk(token_ids=[10**9]), "token 1000000000 is not in ours"),
    "a negative id": (HEAD + chunk(token_ids=[-1]), "token -1 is not in ours"),
    "no ids": (HEAD + chunk(), "text without its token ids"),
    "nested": (HEAD + b"data: " + b"[" * 5000 + b"\n\n", "sent no completion"),
    "no end": (HEAD + GOOD, "ended its answer before it was complete"),
    "done too soon": (HEAD + GOOD + b"data: [DONE]\n\n", "ended its answer before it was complete"),
    "an odd end": (HEAD + chunk(token_ids=[9], finish_reason="abort"), "ended the answer with 'abort'"),
    "an end of a number": (HEAD + chunk(token_ids=[9], finish_reason=5), "choices.0.finish_reason"),
    "nan": (HEAD + b'data: {"choices":[],"usage":{"prompt_tokens_details":{"cached_tokens":NaN}}}\n\n', "usage"),
    "an error": (HEAD + GOOD + event({"error": {"message": "out of memory", "code": None}}), "out of memory"),
    "an error of a word": (HEAD + event({"error": "went wrong"}), "went wrong"),
    "a line without end": (HEAD + b"data: " + b"x" * (1 << 21), "bytes that are no event"),
    "lines without end": (HEAD + b"data: x\n" * (1 << 18), "bytes that are no event"),
}


@pytest.mark.parametrize("name", NASTY)
async def test_nonsense_is_an_error_that_says_so(name: str, tokenizer: Tokenizer) -> None:
    script, message = NASTY[name]
    async with FakeOpenAI(tokenizer) as fake, met(fake, tokenizer) as replica:
        fake.script = script
        with pytest.raises(UpstreamError, match=message) as broken:
            await events_of(replica, asking())
    assert broken.value.retryable


SILENT = BackendWaits(first_s=0.05, silence_s=0.05, end_s=0.05)


@pytest.mark.parametrize(
    "script",
    [b"", b"HTTP/1.1 200 OK\r\n", HEAD, HEAD + GOOD, HEAD + GOOD + b": still here\n\n", HEAD + chunk(text="") * 3],
)
async def test_silence_is_an_error_whatever_drips(script: bytes, tokenizer: Tokenizer) -> None:
    async with FakeOpenAI(tokenizer) as fake, met(fake, tokenizer, speech=Speech.IDS, waits=SILENT) as replica:
        fake.script, fake.then_silent = script, True
        with pytest.raises(UpstreamError, match=r"nothing new for 0\.05 s"):
            await events_of(replica, asking())


@pytest.mark.parametrize("piece", [b"d", b": drip\n\n", chunk(text="")])
async def test_what_drips_for_ever_is_not_alive(piece: bytes, tokenizer: Tokenizer) -> None:
    class Dripping(FakeOpenAI):
        async def _stream(self, writer: asyncio.StreamWriter, prompt: Any, body: Any) -> None:
            writer.write(HEAD)
            while True:
                writer.write(piece)
                await asyncio.sleep(0.001)

    async with Dripping(tokenizer) as fake, met(fake, tokenizer, speech=Speech.IDS, waits=SILENT) as replica:
        with pytest.raises(UpstreamError, match=r"nothing new for 0\.05 s"):
            await events_of(replica, asking())


async def test_an_answer_without_end_is_cut_at_what_was_asked_for(tokenizer: Tokenizer) -> None:
    async with FakeOpenAI(tokenizer) as fake, met(fake, tokenizer) as replica:
        fake.script, fake.then_silent = HEAD + GOOD * 50, True
        events = await events_of(replica, asking(6))
    assert sum(len(event.token_ids) for event in events) == 6
    assert events[-1].finish_reason is FinishReason.LENGTH


async def test_a_text_without_end_is_an_error(tokenizer: Tokenizer) -> None:
    async with FakeOpenAI(tokenizer, ids=False) as fake, met(fake, tokenizer) as replica:
        fake.script, fake.then_silent = HEAD + chunk(text="x" * 100) * 50, True
        with pytest.raises(UpstreamError, match="had no end after"):
            await events_of(replica, asking(6))


@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n"])
async def test_all_that_was_asked_for_is_an_answer_also_without_a_reason(end: bytes, tokenizer: Tokenizer) -> None:
    async with FakeOpenAI(tokenizer) as fake, met(fake, tokenizer) as replica:
        fake.script = HEAD + GOOD * 6 + end
        events = await events_of(replica, asking(6))
    assert (sum(len(event.token_ids) for event in events), events[-1].finish_reason) == (6, FinishReason.LENGTH)


@pytest.mark.parametrize("after", [b"", b"data: garbage\n\n", b"data: [DO"])
async def test_what_follows_the_reason_no_longer_matters(after: bytes, tokenizer: Tokenizer) -> None:
    async with FakeOpenAI(tokenizer) as fake, met(fake, tokenizer, waits=BackendWaits(end_s=0.05)) as replica:
        fake.script, fake.then_silent = HEAD + chunk(token_ids=[9], finish_reason="stop") + after, True
        (only,) = await events_of(replica, asking(6))
    assert (only.token_ids, only.finish_reason) == ((9,), FinishReason.STOP)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, UpstreamError),
        (404, UpstreamError),
        (422, InvalidRequest),
        (500, InternalError),
        (503, Overloaded),
        (301, UpstreamError),
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"because","type":"t","param":null,"code":400}}',
        b'{"error":"because"}',
        b'{"message":"because"}',
        b'{"detail":"because"}',
    ],
)
def test_a_refusal_is_ours_by_its_status_in_the_backends_words(status: int, kind: type, body: bytes) -> None:
    error = refusal(status, body)
    assert type(error) is kind
    assert f"the backend answered {status}: because" in str(error)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"error":{"message":5}}', b'{"error":[]}', b"\xff", b"[" * 9999]
)
def test_a_refusal_without_words_is_one_all_the_same(body: bytes) -> None:
    assert str(refusal(502, body)) == "the backend answered 502"
    assert len(str(refusal(500, json.dumps({"error": "x" * 100_000}).encode()))) < 600


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"data":{}}', b"[]", b'{"data":5}'])
def test_a_list_of_models_that_is_none(body: bytes) -> None:
    with pytest.raises(UpstreamError, match="is it an OpenAI-compatible server"):
        read_models(body)


def test_odd_entries_among_the_models_are_left_out() -> None:
    listed = [5, {"id": 5}, {"id": "a"}, {"id": "b", "max_model_len": -1}, {"id": "c", "max_model_len": 7}]
    assert read_models(json.dumps({"data": listed}).encode()) == {"a": None, "b": None, "c": 7}


@pytest.mark.parametrize("value", ["NaN", "-1", "+Inf", "1e300", "many"])
def test_an_impossible_figure_is_no_report(value: str) -> None:
    with pytest.raises(UpstreamError, match="metrics say vllm:num_requests_running"):
        read_figures(f'vllm:num_requests_running{{engine="0"}} {value}\n')


def test_figures_of_several_engines_are_added_up_and_others_passed_over() -> None:
    text = """# HELP vllm:num_requests_running NaN
vllm:num_requests_running{engine="0"} 2.0
vllm:num_requests_running{engine="1"} 3.0
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:kv_cache_usage_perc{engine="1"} 0.25
process_cpu_seconds_total NaN
"""
    figures = read_figures(text)
    assert figures is not None
    assert (figures.running, figures.kv_used_fraction, figures.waiting) == (5, 0.5, 0)
    assert read_figures("up 1\n") is None


def test_a_transcript_of_a_real_server_can_be_read() -> None:
    """The shape of vLLM 0.32's chunks, fields that nobody needs included."""
    data = """{"id":"cmpl-1","object":"text_completion","created":1795449369,"model":"tiny","choices":[{"index":0,
    "text":"\\n","logprobs":null,"finish_reason":"length","stop_reason":null,"prompt_token_ids":null,
    "token_ids":[198]}],"usage":null}"""
    read = read_chunk(data)
    assert (read.token_ids, read.text, read.finish_reason) == ((198,), "\n", FinishReason.LENGTH)
    with pytest.raises(RequestError, match="unexpected"):
        read_chunk('{"error":{"message":"unexpected","type":"BadRequestError","param":null,"code":400}}')
