"""No parameter that would change the answer is swallowed: it acts, or a 400 names it; and neutral values pass."""

from __future__ import annotations

import pytest

from miniserve.api.logprobs import CompletionLogprobLists, chat_logprobs
from miniserve.api.not_served import UNSUPPORTED, NotServed
from miniserve.api.requests import ChatCompletionRequest
from miniserve.types import FinishReason, SamplingParams, TokenEvent, TokenLogprob
from tests.api.conftest import CHAT, EOS, ByteTokenizer, Edge, StartEdge, event, says, steps
from tests.api.test_errors import COMPLETION, check_error

PATHS = {"/v1/chat/completions": CHAT, "/v1/completions": COMPLETION}

REFUSED = [
    ("reasoning_effort", ["low", "high", 1]),
    ("verbosity", ["low", "high"]),
    ("web_search_options", [{}]),
    ("response_format", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {}}]),
    ("tools", [[{"type": "function"}]]),
    ("echo", [True]),
    ("best_of", [2, 17]),
    ("suffix", ["end"]),
    ("use_beam_search", [True]),
    ("length_penalty", [0.5, 1.5]),
    ("early_stopping", [True]),
    ("logits_processors", [["x"]]),
    ("vllm_xargs", [{"a": 1}]),
    ("allowed_token_ids", [[1]]),
    ("include_stop_str_in_output", [True]),
    ("skip_special_tokens", [False]),
    ("truncate_prompt_tokens", [5, -1]),
    ("prompt_logprobs", [0, 1]),
    ("logprob_token_ids", [[1]]),
    ("return_tokens_as_token_ids", [True]),
    ("return_token_ids", [True]),
    ("prompt_embeds", ["x"]),
    ("guided_json", [{}, "{}"]),
    ("guided_regex", ["[0-9]+"]),
    ("guided_choice", [["a", "b"]]),
    ("guided_grammar", ["x"]),
    ("guided_decoding_backend", ["x"]),
    ("guided_whitespace_pattern", ["x"]),
    ("structural_tag", ["x"]),
    ("structured_outputs", [{"regex": "x"}]),
    ("repetition_detection", [{"max_pattern_size": 3}]),
]
REFUSED_IN_CHATS = [
    ("add_generation_prompt", [False]),
    ("continue_final_message", [True]),
    ("add_special_tokens", [True]),
    ("chat_template", ["{{ messages }}"]),
    ("chat_template_kwargs", [{"enable_thinking": False}]),
    ("documents", [[{"text": "x"}]]),
]
NEUTRAL: dict[str, list[object]] = {
    "n": [1],
    "frequency_penalty": [0, 0.0],
    "presence_penalty": [0],
    "repetition_penalty": [1, 1.0],
    "logit_bias": [{}, {"5": 0}],
    "min_p": [0],
    "min_tokens": [0],
    "stop_token_ids": [[]],
    "bad_words": [[]],
    "best_of": [1],
    "use_beam_search": [False],
    "length_penalty": [1, 1.0],
    "response_format": [{"type": "text"}],
    "tools": [[]],
    "allowed_token_ids": [[]],
    "structured_outputs": [{}],
    "skip_special_tokens": [True],
    "include_stop_str_in_output": [False],
    "echo": [False],
    "suffix": [""],
    "reasoning_effort": ["none"],
    "verbosity": ["medium"],
    "vllm_xargs": [{}],
}


@pytest.mark.parametrize(("field", "values"), REFUSED)
@pytest.mark.parametrize("path", PATHS)
def test_what_we_do_not_have_is_refused_by_name(edge: Edge, path: str, field: str, values: list[object]) -> None:
    for value in values:
        answer = edge.post(path, json={**PATHS[path], field: value})
        param = answer.json()["error"]["param"]
        check_error(answer, 400, param, field, UNSUPPORTED[field])
        assert param.partition(".")[0] == field
    assert edge.backend.started == 0


@pytest.mark.parametrize(("field", "values"), REFUSED_IN_CHATS)
def test_what_we_do_not_have_for_chats_is_refused_by_name(edge: Edge, field: str, values: list[object]) -> None:
    for value in values:
        check_error(edge.chat(**{field: value}), 400, field, field, UNSUPPORTED[field])


@pytest.mark.parametrize("path", PATHS)
def test_values_that_ask_for_nothing_pass(edge: Edge, path: str) -> None:
    plain = edge.post(path, json={**PATHS[path], "seed": 1})
    everything = {field: values[0] for field, values in NEUTRAL.items()}
    nulls = dict.fromkeys([*NEUTRAL, *NotServed.model_fields])
    for fields in (everything, nulls, *({field: value} for field in NEUTRAL for value in NEUTRAL[field])):
        answer = edge.post(path, json={**PATHS[path], "seed": 1, **fields})
        assert answer.status_code == 200, (fields, answer.text)
        assert edge.backend.requests[-1].sampling == edge.backend.requests[0].sampling
        assert answer.json()["choices"] == plain.json()["choices"]


def test_fields_that_nobody_knows_are_ignored(edge: Edge) -> None:
    assert edge.chat(metadata={"a": "b"}, store=True, service_tier="auto", typo=[1]).status_code == 200


def test_every_refused_field_has_a_reason() -> None:
    fields = {*NotServed.model_fields, "tool_calls", *(field for field, _ in REFUSED_IN_CHATS)}
    assert fields == set(UNSUPPORTED)
    assert fields - {"tool_calls"} <= set(ChatCompletionRequest.model_fields)


@pytest.mark.parametrize("path", PATHS)
def test_all_that_acts_reaches_the_engine(edge: Edge, path: str) -> None:
    fields = {
        "min_p": 0.1,
        "frequency_penalty": 0.5,
        "presence_penalty": -2,
        "repetition_penalty": 1.5,
        "logit_bias": {"5": 3, "258": -100, "7": 0},
        "bad_words": ["ab", " c"],
        "stop_token_ids": [5, 6.0],
        "min_tokens": 3,
    }
    assert edge.post(path, json={**PATHS[path], "seed": 1, "max_tokens": 9, **fields}).status_code == 200
    assert edge.backend.requests[-1].sampling == SamplingParams(
        max_tokens=9,
        seed=1,
        min_p=0.1,
        frequency_penalty=0.5,
        presence_penalty=-2.0,
        repetition_penalty=1.5,
        logit_bias=((5, 3.0), (258, -100.0)),
        bad_words=((97, 98), (99,)),
        stop_token_ids=(5, 6),
        min_tokens=3,
    )


def test_min_tokens_is_cut_with_max_tokens(edge: Edge) -> None:
    edge.chat(min_tokens=20, max_tokens=4)
    assert edge.backend.requests[-1].sampling.min_tokens == 4


def test_a_stop_token_ends_the_text_and_is_none_of_it(start_edge: StartEdge) -> None:
    edge = start_edge(steps(event("ab"), event("c", FinishReason.STOP)))
    answer = edge.chat(stop_token_ids=[ord("c")]).json()
    assert answer["choices"][0]["message"]["content"] == "ab"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 3


def test_no_stop_string_ends_the_text_before_min_tokens(start_edge: StartEdge) -> None:
    edge = start_edge(says("a.b.c.d"))
    for min_tokens, text in ((0, "a"), (1, "a"), (2, "a.b"), (4, "a.b.c"), (7, "a.b.c.d")):
        answer = edge.chat(stop=".", min_tokens=min_tokens).json()
        assert answer["choices"][0]["message"]["content"] == text


def test_what_is_not_served_is_said_before_what_else_is_wrong(edge: Edge) -> None:
    """Else a likelihood evaluation mends its max_tokens and takes the figures of the answer for scores."""
    answer = edge.post("/v1/completions", json={**COMPLETION, "echo": True, "max_tokens": 0, "logprobs": 10})
    check_error(answer, 400, "echo", "echo=true", "the prompt is not repeated")
    prompts = [[10, 11, 12, 13], [20, 21, 22]]
    answer = edge.post("/v1/completions", json={**COMPLETION, "prompt": prompts, "echo": True, "max_tokens": 1})
    check_error(answer, 400, "echo", "echo=true")


def test_top_p_zero_is_accepted_as_greedy(edge: Edge) -> None:
    assert edge.chat(temperature=0, top_p=0, presence_penalty=0, frequency_penalty=0).status_code == 200
    assert edge.backend.requests[-1].sampling.is_greedy


def test_a_bad_word_of_spaces_is_kept(edge: Edge) -> None:
    assert edge.chat(bad_words=[" "]).status_code == 200
    assert edge.backend.requests[-1].sampling.bad_words[0] == (32,)


# --- messages ---------------------------------------------------------------------------------------------------------

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    "message",
    [
        {"content": ""},
        {"content": []},
        {"content": None},
        {},
        {"content": None, "refusal": None, "tool_calls": []},
        {"tool_calls": []},
        {"tool_calls": None, "function_call": None, "audio": None},
    ],
)
def test_an_answer_without_content_is_an_empty_one(edge: Edge, message: dict[str, object]) -> None:
    turns = [{"role": "user", "content": "A"}, {"role": "assistant", **message}, {"role": "user", "content": "B"}]
    assert edge.chat(messages=turns).status_code == 200
    prompt = bytes(token for token in edge.backend.requests[-1].prompt_ids if token < 256)
    assert prompt == b"user\nAassistant\nuser\nB"


def test_parts_are_joined_and_none_dropped(edge: Edge) -> None:
    parts = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}]
    assert edge.chat(messages=[{"role": "assistant", "content": parts}]).status_code == 200
    assert b"assistant\nab" in bytes(token for token in edge.backend.requests[-1].prompt_ids if token < 256)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "assistant", "content": None, "tool_calls": [CALL]}, "messages[1].tool_calls"),
        ({"role": "assistant", "content": "x", "tool_calls": [CALL]}, "messages[1].tool_calls"),
        ({"role": "assistant", "function_call": {"name": "f"}}, "messages[1].function_call"),
        ({"role": "tool", "tool_call_id": "c1", "content": "42"}, "messages[1].role"),
        ({"role": "tool", "tool_call_id": "c1"}, "messages[1].role"),
        ({"role": "function", "name": "f", "content": "42"}, "messages[1].role"),
    ],
)
def test_tool_calls_in_a_history_are_refused_as_such(edge: Edge, message: object, param: str) -> None:
    answer = edge.chat(messages=[{"role": "user", "content": "A"}, message])
    check_error(answer, 400, param, "is not supported here", "no tool calls")


def test_what_the_server_answered_is_accepted_back(edge: Edge) -> None:
    message = edge.chat().json()["choices"][0]["message"]
    assert edge.chat(messages=[{"role": "user", "content": "hi"}, message]).status_code == 200


# --- the length of the prompt ----------------------------------------------------------------------------------------

N = 1024


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "expected"),
    [
        (N - 1, None, 1),
        (N - 1, 1, 1),
        (N - 1, N, 1),
        (N - 1, N + 1, 1),
        (N, None, None),
        (N, 1, None),
        (N + 1, 1, None),
        (1, N, N - 1),
        (1, N - 1, N - 1),
        (8, N - 3, N - 8),
    ],
)
def test_a_sum_beyond_the_context_is_cut_and_a_prompt_is_not(
    start_edge: StartEdge, prompt: int, max_tokens: int | None, expected: int | None
) -> None:
    edge = start_edge(says("x" * 2 * N, size=64))
    answer = edge.post("/v1/completions", json={"model": "tiny", "prompt": [5] * prompt, "max_tokens": max_tokens})
    if expected is None:
        check_error(answer, 400, "prompt", f"maximum context length is {N} tokens", f"has {prompt} tokens")
        assert answer.json()["error"]["code"] == "context_length_exceeded"
    else:
        assert answer.json()["usage"]["completion_tokens"] == expected
        assert answer.json()["choices"][0]["finish_reason"] == "length"


# --- names of tokens --------------------------------------------------------------------------------------------------


def test_control_tokens_have_their_own_names(start_edge: StartEdge) -> None:
    top = ((EOS, -0.1), (EOS + 1, -0.2), (EOS + 2, -0.3), (97, -0.4))
    edge = start_edge(steps(TokenEvent("", (EOS + 2,), FinishReason.STOP, (TokenLogprob(EOS + 2, -0.3, top),))))
    lists = edge.post("/v1/completions", json={**COMPLETION, "logprobs": 4}).json()["choices"][0]["logprobs"]
    assert lists["tokens"] == ["<end>"]
    assert lists["top_logprobs"] == [{"<eos>": -0.1, "<start>": -0.2, "<end>": -0.3, "a": -0.4}]
    (entry,) = edge.chat(logprobs=True, top_logprobs=4).json()["choices"][0]["logprobs"]["content"]
    assert (entry["token"], entry["bytes"]) == ("<end>", [])
    assert [one["token"] for one in entry["top_logprobs"]] == ["<eos>", "<start>", "<end>", "a"]


class TwoOfEach(ByteTokenizer):
    """Ids 300 and beyond have the bytes of the ids 300 below, as sentencepiece has `<0x41>` beside `A`."""

    def token_bytes(self, token_id: int) -> bytes:
        return super().token_bytes(token_id % 300)


def test_two_tokens_of_one_text_have_two_names() -> None:
    top = tuple((token_id, -float(i)) for i, token_id in enumerate([397, 97, 226, 526, 556, 260, 859]))
    entries = [TokenLogprob(token_id, logprob, top) for token_id, logprob in (*top, (697, -50.0))]
    lists = CompletionLogprobLists(TwoOfEach()).take(entries)
    names = ["a", "token_id:97", "bytes:\\xe2", "token_id:526", "token_id:556", "token_id:260", "token_id:859"]
    assert lists.tokens == [*names, "token_id:697"]
    assert lists.top_logprobs == [dict(zip(names, (-float(i) for i in range(7)), strict=True))] * 8
    assert lists.token_logprobs == [*(-float(i) for i in range(7)), -50.0]
    for entry in chat_logprobs(TwoOfEach(), entries).content:
        assert len({(one.token, tuple(one.bytes)) for one in entry.top_logprobs}) == 7
