"""Parameters of OpenAI's and vLLM's APIs that would change an answer, and that we do not have.

To ignore one would give its client another answer than it asked for, without a word. So each may only say what asks
for nothing (null, and whatever is the default elsewhere); anything else is a 400 that names it.
Source: OpenAI API reference; vLLM, "OpenAI-compatible server", extra parameters.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_ONE_CALL_ONE_PASS = "each answer is drawn once, token by token"
_PLAIN = "answers are plain text"
_NO_TOOLS = "this server has no tool calls"
_NO_GRAMMAR = "answers cannot be held to a grammar or a schema"
_NO_THINKING = "the served models do not reason apart from their answer"
_FIXED_TEMPLATE = "a chat is always written by the model's own template, with the assistant to speak next"
_ANSWER_ONLY = "log-probabilities are given for the answer's tokens only"

UNSUPPORTED = {
    "tools": _NO_TOOLS,
    "functions": _NO_TOOLS,
    "tool_choice": _NO_TOOLS,
    "function_call": _NO_TOOLS,
    "tool_calls": _NO_TOOLS,
    "response_format": _PLAIN,
    "modalities": _PLAIN,
    "audio": _PLAIN,
    "reasoning_effort": _NO_THINKING,
    "verbosity": _NO_THINKING,
    "web_search_options": "nothing is looked up",
    "echo": "the prompt is not repeated in the answer",
    "suffix": "text is only continued, not filled in",
    "best_of": _ONE_CALL_ONE_PASS,
    "use_beam_search": _ONE_CALL_ONE_PASS,
    "length_penalty": _ONE_CALL_ONE_PASS,
    "early_stopping": _ONE_CALL_ONE_PASS,
    "logits_processors": "no code of a client runs here",
    "vllm_xargs": "no code of a client runs here",
    "allowed_token_ids": "use logit_bias or bad_words",
    "include_stop_str_in_output": "the text ends before a stop string",
    "skip_special_tokens": "control tokens add nothing to the text",
    "truncate_prompt_tokens": "a prompt is served whole or refused",
    "prompt_logprobs": _ANSWER_ONLY,
    "logprob_token_ids": _ANSWER_ONLY,
    "return_tokens_as_token_ids": "tokens are told as text",
    "return_token_ids": "tokens are told as text",
    "prompt_embeds": "a prompt is text or token ids",
    "guided_json": _NO_GRAMMAR,
    "guided_regex": _NO_GRAMMAR,
    "guided_choice": _NO_GRAMMAR,
    "guided_grammar": _NO_GRAMMAR,
    "guided_decoding_backend": _NO_GRAMMAR,
    "guided_whitespace_pattern": _NO_GRAMMAR,
    "structural_tag": _NO_GRAMMAR,
    "structured_outputs": _NO_GRAMMAR,
    "repetition_detection": "use stop, or repetition_penalty",
    "add_generation_prompt": _FIXED_TEMPLATE,
    "continue_final_message": _FIXED_TEMPLATE,
    "add_special_tokens": _FIXED_TEMPLATE,
    "chat_template": _FIXED_TEMPLATE,
    "chat_template_kwargs": _FIXED_TEMPLATE,
    "documents": _FIXED_TEMPLATE,
}


class RequestPart(BaseModel):
    """What all parts of a request have in common: a string is no number, and other fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


def whole_number(value: Any) -> Any:
    """JSON has one kind of number: to a client 3.0 may be the same as 3, as JSON Schema says too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _refuse_true(value: bool) -> bool:
    if value:
        raise ValueError("must be false")
    return value


def _refuse_false(value: bool) -> bool:
    if not value:
        raise ValueError("must be true")
    return value


Never = Annotated[bool, AfterValidator(_refuse_true), Field(json_schema_extra={"const": False})]
Always = Annotated[bool, AfterValidator(_refuse_false), Field(json_schema_extra={"const": True})]
EmptyList = Annotated[list[Any], Field(max_length=0)]
EmptyObject = Annotated[dict[str, Any], Field(max_length=0)]
# As many as `n` asks for neither; the schema can only say the plain case.
BestOf = Annotated[int, Field(ge=1, json_schema_extra={"maximum": 1}), BeforeValidator(whole_number)]


class ResponseFormat(RequestPart):
    type: Literal["text"]


class NotServed(RequestPart):
    """Comes first among a body's fields, so that what we do not have is said before what else is wrong."""

    tools: EmptyList | None = None
    functions: EmptyList | None = None
    tool_choice: Literal["none"] | None = None
    function_call: Literal["none"] | None = None
    response_format: ResponseFormat | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    audio: None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    web_search_options: None = None
    echo: Never | None = None
    suffix: Literal[""] | None = None
    best_of: BestOf | None = None
    use_beam_search: Never | None = None
    length_penalty: Annotated[float, Field(ge=1, le=1)] | None = None
    early_stopping: Never | None = None
    logits_processors: EmptyList | None = None
    vllm_xargs: EmptyObject | None = None
    allowed_token_ids: EmptyList | None = None
    include_stop_str_in_output: Never | None = None
    skip_special_tokens: Always | None = None
    truncate_prompt_tokens: None = None
    prompt_logprobs: None = None
    logprob_token_ids: EmptyList | None = None
    return_tokens_as_token_ids: Never | None = None
    return_token_ids: Never | None = None
    prompt_embeds: None = None
    guided_json: None = None
    guided_regex: None = None
    guided_choice: None = None
    guided_grammar: None = None
    guided_decoding_backend: None = None
    guided_whitespace_pattern: None = None
    structural_tag: None = None
    structured_outputs: EmptyObject | None = None
    repetition_detection: None = None
