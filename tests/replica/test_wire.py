"""The wire: whatever is said on one side is heard on the other, and nonsense is named."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve import errors
from miniserve.engine.scheduler import Counters
from miniserve.engine.stats import EngineStats
from miniserve.errors import InvalidRequest, Overloaded, RequestError, UpstreamError
from miniserve.replica.wire import (
    ReplicaReport,
    decode_error,
    decode_event,
    decode_report,
    decode_request,
    encode_error,
    encode_report,
    encode_request,
    encode_token_event,
)
from miniserve.types import (
    FinishReason,
    Priority,
    ReplicaState,
    Request,
    SamplingParams,
    TokenEvent,
    TokenLogprob,
)

ids = st.lists(st.integers(0, 2**31), max_size=5).map(tuple)
numbers = st.floats(allow_nan=False, allow_infinity=False)
samplings = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 10_000),
    temperature=st.floats(0, 2),
    top_p=st.floats(0, 1),
    top_k=st.integers(0, 100),
    seed=st.integers(-(2**63), 2**64),
    stop=st.lists(st.text(max_size=4), max_size=3).map(tuple),
    ignore_eos=st.booleans(),
    logprobs=st.none() | st.integers(0, 5),
)
requests = st.builds(
    Request,
    request_id=st.text(max_size=8),
    model=st.text(max_size=8),
    prompt_ids=ids,
    sampling=samplings,
    arrived_s=numbers,
    deadline_s=st.none() | st.floats(0, 1e9),
    tenant=st.text(max_size=4),
    priority=st.sampled_from(Priority),
    session_key=st.none() | st.text(max_size=4),
    region=st.none() | st.text(max_size=4),
    resume_ids=ids,
)
logprobs = st.builds(TokenLogprob, st.integers(0), numbers, st.lists(st.tuples(st.integers(0), numbers)).map(tuple))
events = st.builds(
    TokenEvent,
    request_id=st.text(max_size=8),
    token_ids=ids,
    finish_reason=st.none() | st.sampled_from(FinishReason),
    logprobs=st.lists(logprobs, max_size=2).map(tuple),
    cached_tokens=st.integers(0),
    text=st.none() | st.text(max_size=4),
)
ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RequestError) and kind is not RequestError
]


@given(requests)
def test_a_request_survives_the_trip(request: Request) -> None:
    assert decode_request(encode_request(request, 0.0), 0.0) == replace(request, arrived_s=0.0)


@given(requests, st.floats(0, 1e6), st.floats(0, 86_400), st.floats(0, 1e6))
def test_a_deadline_travels_as_the_time_left(request: Request, now_s: float, left_s: float, theirs_s: float) -> None:
    sent = encode_request(replace(request, deadline_s=now_s + left_s), now_s)
    assert not {"deadline_s", "arrived_s"} & set(json.loads(sent)), "a clock's reading"
    got = decode_request(sent, theirs_s)
    assert got.deadline_s == pytest.approx(theirs_s + left_s, abs=1e-6)
    past = decode_request(encode_request(replace(request, deadline_s=now_s - 1), now_s), theirs_s)
    assert past.deadline_s == theirs_s


@pytest.mark.parametrize("within_s", ["-1", "1e300", "NaN", "Infinity", '"soon"'])
def test_a_time_left_that_is_none_is_refused(within_s: str) -> None:
    body = f'{{"request_id": "q", "model": "m", "prompt_ids": [1], "within_s": {within_s}}}'
    with pytest.raises(InvalidRequest, match="within_s"):
        decode_request(body.encode(), 0.0)


@given(events)
def test_an_event_survives_the_trip_on_one_line(event: TokenEvent) -> None:
    line = encode_token_event(event)
    assert "\n" not in line
    assert decode_event(line) == event


def test_a_plain_token_is_short() -> None:
    """Most of the traffic between replica and gateway is this event."""
    assert encode_token_event(TokenEvent("q", (7,))) == '{"request_id":"q","token_ids":[7]}'


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_arrives_as_itself_by_status_and_inside_a_stream(kind: type[RequestError]) -> None:
    sent = kind("what happened", param="prompt", code=kind.code or "a_code", retry_after_s=1.5)
    by_status = decode_error(sent.status, encode_error(sent).encode(), "1.5")
    assert type(by_status) is kind
    assert by_status.args == sent.args
    with pytest.raises(kind, match="what happened") as raised:
        decode_event(encode_error(sent))
    assert raised.value.args == sent.args


def test_an_error_of_the_public_edge_is_understood_too() -> None:
    """The edge writes its own errors, without a status inside, when the stream has begun before them."""
    body = {"error": {"message": "busy", "type": "overloaded_error", "param": None, "code": None}}
    with pytest.raises(Overloaded, match="busy"):
        decode_event(json.dumps(body))
    refused = decode_error(503, json.dumps(body).encode(), "7")
    assert (type(refused), refused.retry_after_s) == (Overloaded, 7.0)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": 3}', b'{"error": {"message": "x"}}', b"[1]"])
def test_an_answer_that_is_not_ours_becomes_an_upstream_error(body: bytes) -> None:
    error = decode_error(418, body, "soon")
    assert type(error) is UpstreamError
    assert "418" in str(error)


@pytest.mark.parametrize("data", ["", "{}", "[DONE]", '{"token_ids": "x"}', '{"request_id": "q", "token_ids": [1.5]}'])
def test_an_event_that_is_not_ours_becomes_an_upstream_error(data: str) -> None:
    with pytest.raises(UpstreamError, match="no token event"):
        decode_event(data)


def test_a_bad_request_names_the_field() -> None:
    with pytest.raises(InvalidRequest, match="prompt_ids"):
        decode_request(b'{"request_id": "q", "model": "m", "prompt_ids": "hello"}', 0.0)


def test_a_report_survives_the_trip() -> None:
    stats = EngineStats(Counters(finished={"stop": 1}), blocks_total=8, blocks_used=2)
    report = ReplicaReport(1, "m", ReplicaState.READY, 2.5, 3, 512, stats)
    assert decode_report(encode_report(report)) == report
    assert report.stats.kv_used_fraction == 0.25
    with pytest.raises(UpstreamError, match="no report"):
        decode_report(b"{}")


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        *(
            (wrong, None)
            for wrong in ("inf", "nan", "-inf", "-1", "1e400", "", "3; x", "Wed, 21 Oct 2026 07:28:00 GMT")
        ),
        ("9999999999", 60.0),
        ("0", 0.0),
        ("2.5", 2.5),
        (None, None),
    ],
)
def test_what_another_program_calls_a_wait_is_a_wait_or_nothing(value: str | None, wait_s: float | None) -> None:
    assert decode_error(503, b"{}", value).retry_after_s == wait_s
    assert (
        decode_error(
            503, b'{"error": {"message": "full", "type": "overloaded_error", "param": null, "code": null}}', value
        ).retry_after_s
        == wait_s
    )


@pytest.mark.parametrize("value", ["Infinity", "NaN", "-1", "1e400", '"soon"', "true", "[3]", "9" * 400])
def test_a_wait_inside_a_stream_is_no_more_believed(value: str) -> None:
    data = (
        f'{{"error": {{"message": "x", "type": "overloaded_error", "param": 3, "code": [], "retry_after_s": {value}}}}}'
    )
    with pytest.raises(Overloaded) as refused:
        decode_event(data)
    assert refused.value.retry_after_s in (None, 60.0)
    assert (refused.value.param, refused.value.code) == (None, None)


def reported(path: str, value: str) -> bytes:
    """A report with the raw JSON `value` in one place."""
    report = ReplicaReport(1, "tiny", ReplicaState.READY, 1.0, 1, 512, EngineStats(Counters(steps=3), 1, 2, 320, 5))
    fields = json.loads(encode_report(report))
    place = fields
    *above, last = path.split(".")
    for name in above:
        place = place[name]
    place[last] = "@"
    return json.dumps(fields).replace('"@"', value).encode()


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e400", "-1", '"7"', "null", "[]", "9" * 400, "9" * 9000]
)
@pytest.mark.parametrize(
    "path",
    [
        "uptime_s",
        "max_model_len",
        "max_abort_lag_steps",
        "stats.waiting",
        "stats.running",
        "stats.blocks_used",
        "stats.blocks_total",
        "stats.tokens_per_s",
        "stats.counters.steps",
        "stats.counters.finished.stop",
    ],
)
def test_a_report_with_an_impossible_number_is_none(path: str, value: str) -> None:
    assert decode_report(reported(path, "8"))
    with pytest.raises(UpstreamError):
        decode_report(reported(path, value))


def test_a_context_of_no_tokens_is_no_report() -> None:
    with pytest.raises(UpstreamError):
        decode_report(reported("max_model_len", "0"))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400", "null", '"-1"'])
def test_a_log_probability_that_is_no_number_ends_the_attempt(value: str) -> None:
    for entry in (
        f'{{"token_id": 1, "logprob": {value}}}',
        f'{{"token_id": 1, "logprob": -1.0, "top": [[2, {value}]]}}',
    ):
        with pytest.raises(UpstreamError):
            decode_event(f'{{"request_id": "q", "token_ids": [1], "logprobs": [{entry}]}}')
