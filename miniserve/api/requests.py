"""What a request of OpenAI's API may say (`answers.py` has what comes back).

Requests are strict (a string is no number; an integer is a fine float) and refuse NaN. Fields that we do not know are
ignored, since clients send many; fields whose meaning we would have to betray (tools, several choices, audio) are
refused unless they ask for nothing. Knows no tokenizer and no limit of the served model (see `translate.py`).
Source: OpenAI API reference, "Chat completions" and "Completions (legacy)"; vLLM for top_k, ignore_eos and priority.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

MAX_LOGPROBS = 20  # OpenAI's own limit
MAX_PROMPTS = 64  # choices of one /v1/completions call; each is a request of its own to the engine
_INT64 = 1 << 63

UNSUPPORTED = {
    "n": "ask for several answers with several requests",
    "best_of": "ask for several answers with several requests",
    "tools": "this server has no tool calls",
    "functions": "this server has no tool calls",
    "tool_choice": "this server has no tool calls",
    "function_call": "this server has no tool calls",
    "response_format": "answers are plain text",
    "modalities": "answers are plain text",
    "audio": "answers are plain text",
    "echo": "the prompt is not repeated in the answer",
    "suffix": "text is only continued, not filled in",
}


class _RequestPart(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


def _kind(value: Any) -> str | None:
    """Tell the alternatives of a union apart, so that an error speaks only of the one that was meant."""
    if isinstance(value, str):
        return "<text>"
    if not isinstance(value, list) or not value:
        return None
    kinds = {str: "<texts>", int: "<ids>", float: "<ids>", list: "<lists>"}
    return kinds.get(type(value[0]))


def _whole(value: Any) -> Any:
    """JSON has one kind of number: to a client 3.0 may be the same as 3, as JSON Schema says too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _refuse_true(value: bool) -> bool:
    if value:
        raise ValueError("must be false")
    return value


_WHOLE = BeforeValidator(_whole)
TokenCount = Annotated[int, Field(ge=1), _WHOLE]
TokenId = Annotated[int, Field(ge=0), _WHOLE]
TopK = Annotated[int, Field(ge=-1, le=_INT64 - 1), _WHOLE]
Seed = Annotated[int, Field(ge=-_INT64, le=_INT64 - 1), _WHOLE]
LogprobCount = Annotated[int, Field(ge=0, le=MAX_LOGPROBS), _WHOLE]
PriorityNumber = Annotated[int, Field(ge=0, le=2), _WHOLE]
One = Annotated[int, Field(ge=1, le=1), _WHOLE]
Never = Annotated[bool, AfterValidator(_refuse_true), Field(json_schema_extra={"const": False})]


def _content_kind(value: Any) -> str | None:
    return "<text>" if isinstance(value, str) else "<parts>" if isinstance(value, list) else None


class TextPart(_RequestPart):
    type: Literal["text"]
    text: str


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[TextPart], Field(fail_fast=True), Tag("<parts>")],
    Discriminator(
        _content_kind,
        custom_error_type="content_type",
        custom_error_message='must be a string or a list of {"type": "text"} parts',
    ),
]


class Message(_RequestPart):
    role: Literal["system", "developer", "user", "assistant"]
    content: Content

    def text(self) -> str:
        """Return the content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(_RequestPart):
    include_usage: bool | None = Field(None, description="Send a last chunk without choices that carries `usage`.")


class ResponseFormat(_RequestPart):
    type: Literal["text"]


StopString = Annotated[str, Field(min_length=1)]
Stop = Annotated[
    Annotated[StopString, Tag("<text>")] | Annotated[list[StopString], Field(max_length=4), Tag("<texts>")],
    Discriminator(
        lambda value: "<texts>" if isinstance(value, list) else _kind(value),
        custom_error_type="stop_type",
        custom_error_message="must be a string or a list of at most 4 strings",
    ),
]


class GenerationBody(_RequestPart):
    """What both kinds of completion share."""

    model: str = Field(description="Name of the served model, as /v1/models lists it.")
    max_tokens: TokenCount | None = Field(None, description="Cut to what the context leaves beside the prompt.")
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy; 1 where absent.")
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: TopK | None = Field(None, description="0 or -1: all tokens.")
    stop: Stop | None = Field(None, description="Up to 4 strings; the text ends before the first to be complete.")
    seed: Seed | None = Field(
        None,
        description="Same seed, same text. Where absent one is drawn, and told in the header `x-miniserve-seed`.",
    )
    stream: bool | None = Field(None, description="Answer with server-sent events.")
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = Field(None, description="Go on past the end-of-sequence token (for benchmarks).")
    user: str | None = Field(None, description="Who asks; requests of one user may be kept on one replica.")
    priority: PriorityNumber | None = Field(None, description="0 interactive, 1 standard, 2 batch.")
    n: One | None = None

    def stop_strings(self) -> tuple[str, ...]:
        """Return the stop strings as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def token_limit(self) -> tuple[str, int | None]:
        """Return the name and the value of the field that limits the answer's tokens."""
        return "max_tokens", self.max_tokens

    def logprob_count(self) -> int | None:
        """Return how many alternatives to report for each token, None for no log-probabilities at all."""
        raise NotImplementedError


class ChatCompletionRequest(GenerationBody):
    messages: list[Message] = Field(min_length=1, fail_fast=True)
    max_completion_tokens: TokenCount | None = Field(None, description="The newer name of max_tokens; wins over it.")
    logprobs: bool | None = None
    top_logprobs: LogprobCount | None = Field(None, description="Used where `logprobs` is true.")
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none"] | None = None
    function_call: Literal["none"] | None = None
    response_format: ResponseFormat | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    audio: None = None

    def token_limit(self) -> tuple[str, int | None]:
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return super().token_limit()

    def logprob_count(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


PromptText = Annotated[str, Field(min_length=1)]
PromptIds = Annotated[list[TokenId], Field(fail_fast=True, min_length=1)]
Prompt = Annotated[
    Annotated[PromptText, Tag("<text>")]
    | Annotated[list[PromptText], Field(fail_fast=True, min_length=1, max_length=MAX_PROMPTS), Tag("<texts>")]
    | Annotated[PromptIds, Tag("<ids>")]
    | Annotated[list[PromptIds], Field(fail_fast=True, min_length=1, max_length=MAX_PROMPTS), Tag("<lists>")],
    Discriminator(
        _kind,
        custom_error_type="prompt_type",
        custom_error_message="must be a string, a list of strings, a list of token ids or a list of such lists, "
        "and not empty",
    ),
]


class CompletionRequest(GenerationBody):
    prompt: Prompt = Field(description="Several prompts give several choices, in the same order.")
    logprobs: LogprobCount | None = None
    echo: Never | None = None
    best_of: One | None = None
    suffix: Literal[""] | None = None

    def prompts(self) -> list[str | list[int]]:
        """Return one entry per choice."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)

    def logprob_count(self) -> int | None:
        return self.logprobs
