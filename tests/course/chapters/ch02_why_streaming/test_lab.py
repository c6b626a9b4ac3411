"""What chapter 2 says in words about its experiments holds for them."""

import asyncio
import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.course.chapters.ch02_why_streaming import lab
from miniserve.observe.reading import READ_S, perceived_wait_s
from miniserve.sse import encode_event
from miniserve.text import StopFilter


def test_larkspurs_answer_begins_after_half_a_second_and_ends_after_half_a_minute():
    came_s = lab.larkspur_answer()
    assert len(came_s) == lab.ANSWER_TOKENS
    assert 0.4 < came_s[0] < 0.6
    assert 28 < came_s[-1] < 33
    assert perceived_wait_s(came_s) == pytest.approx(came_s[0])


@pytest.mark.parametrize("answers", [1, 4, 12, 24])
def test_text_is_written_more_than_twice_as_fast_as_it_is_read(answers):
    assert 2 * lab.gap_s(answers) < READ_S


def test_the_gap_by_formula_is_that_of_the_scheduled_answer():
    came_s = lab.larkspur_answer()
    mean_s = (came_s[-1] - came_s[0]) / (len(came_s) - 1)
    assert mean_s == pytest.approx(lab.gap_s(12), rel=0.02)


pieces = st.lists(st.text("<end>b ", max_size=6), max_size=6)


@given(pieces)
def test_each_bug_shows_only_where_the_notebook_says(pieces):
    stop, text = "<end>", "".join(pieces)
    watch = StopFilter((stop,))
    right = "".join(map(watch.push, pieces)) + watch.flush()
    if stop not in text:
        assert lab.piece_by_piece(pieces, stop) == right == text
        assert lab.keeps_the_rest(pieces, stop) == text.removesuffix(lab.begins(text, stop))
    else:
        assert lab.keeps_the_rest(pieces, stop) == right


async def body(chunks):
    for chunk in chunks:
        yield chunk


CHAT = {"messages": [{"role": "user", "content": "How?"}]}
PLAIN = {"prompt": "How?"}


def answering(pieces):
    """Return a client of a server that answers with these pieces."""

    def choice(asked, text, kind):
        return {"choices": [{kind: {"content": text}} if "messages" in asked else {"text": text}]}

    def handle(request):
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "theirs"}]})
        asked = json.loads(request.content)
        assert request.url.path == ("/v1/chat/completions" if "messages" in asked else "/v1/completions")
        if not asked["stream"]:
            whole = json.dumps(choice(asked, "".join(pieces), "message"))
            return httpx.Response(200, content=body([whole.encode()]))
        events = [json.dumps(choice(asked, piece, "delta")) for piece in ("", *pieces)]
        return httpx.Response(200, content=body(map(encode_event, [*events, '{"choices": []}', "[DONE]"])))

    return httpx.AsyncClient(base_url="http://replica", transport=httpx.MockTransport(handle))


def asked_of_vllm(transport):
    wanted = {"whole": (9, False), "streamed": (9, True)}
    return asyncio.run(lab.ask_vllm(CHAT["messages"], wanted, transport))


def test_a_server_of_vllm_is_asked_if_one_is_named(monkeypatch):
    monkeypatch.setenv("VLLM_URL", "http://elsewhere")
    talks = asked_of_vllm(answering(("Cut ", "it."))._transport)
    assert {name: {answer.pieces for answer in run} for name, run in talks.items()} == {
        "whole": {("Cut it.",)},
        "streamed": {("Cut ", "it.")},
    }


@pytest.mark.parametrize(("url", "said"), [("", "names no server"), ("http://elsewhere", "ConnectError: gone")])
def test_without_one_the_cell_says_so(url, said, monkeypatch, capsys):
    def gone(request):
        raise httpx.ConnectError("gone")

    monkeypatch.setenv("VLLM_URL", url)
    assert asked_of_vllm(httpx.MockTransport(gone)) is None
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("asked", [CHAT, PLAIN], ids=["chat", "plain"])
@pytest.mark.parametrize(("stream", "pieces"), [(True, ("Cut ", "it.")), (False, ("Cut it.",))])
def test_a_client_writes_down_pieces_that_hold_text(asked, stream, pieces):
    async def answered():
        async with answering(("Cut ", "it.")) as client:
            return await lab.ask(client, {**asked, "stream": stream})

    answer = asyncio.run(answered())
    assert answer.pieces == pieces
    assert len(answer.came_s) == len(pieces)
    assert answer.ttft_s <= answer.came_s[-1] <= answer.ended_s
    assert answer.received_bytes > len(answer.text)


def test_the_record_is_of_a_server_on_which_streaming_shows_the_first_text_much_sooner():
    record = lab.recorded()
    assert record.asked_ttft_s == pytest.approx(record.known_ttft_s, rel=0.2), "it does not know how long it will be"
    assert record.asked_s > 10 * record.asked_ttft_s
    assert 0.9 < record.asked_streamed_s / record.asked_s < 3, "streaming makes nothing faster"
