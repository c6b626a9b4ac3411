"""What a request of OpenAI's API may say (`answers.py` has what comes back).

Requests are strict (a string is no number; an integer is a fine float) and refuse NaN. Fields that nobody knows are
ignored, since clients send many; those whose meaning we would have to betray are refused unless they ask for nothing
(see `not_served.py`). Knows no tokenizer and no limit of the served model (see `translate.py`).
Source: OpenAI API reference, "Chat completions" and "Completions (legacy)"; vLLM for what it has beyond them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from miniserve.api.catalogue import DEFAULT_MODEL
from miniserve.api.hints import MOST_TIMEOUT_S
from miniserve.api.not_served import Always, EmptyList, EmptyObject, Never, NotServed, RequestPart, whole_number

MAX_LOGPROBS = 20  # OpenAI's own limit
MAX_PROMPTS = 64  # of one /v1/completions call; each is a request of its own to the engine
MAX_CHOICES = 16  # for each prompt
MAX_TOKEN_RULES = 1024  # entries of logit_bias, and tokens of stop_token_ids
MAX_BAD_WORDS = 64
QUESTION_CHARACTERS = 1_000  # what a router reads of a prompt: on the event loop, so not much
_INT64 = 1 << 63


def _kind(value: Any) -> str | None:
    """Tell the alternatives of a union apart, so that an error speaks only of the one that was meant."""
    if isinstance(value, str):
        return "<text>"
    if not isinstance(value, list) or not value:
        return None
    kinds = {str: "<texts>", int: "<ids>", float: "<ids>", list: "<lists>"}
    return kinds.get(type(value[0]))


_WHOLE = BeforeValidator(whole_number)
TokenCount = Annotated[int, Field(ge=1, le=_INT64 - 1), _WHOLE]
MinTokens = Annotated[int, Field(ge=0, le=_INT64 - 1), _WHOLE]
TokenId = Annotated[int, Field(ge=0), _WHOLE]
TopK = Annotated[int, Field(ge=-1, le=_INT64 - 1), _WHOLE]
Seed = Annotated[int, Field(ge=-_INT64, le=_INT64 - 1), _WHOLE]
LogprobCount = Annotated[int, Field(ge=0, le=MAX_LOGPROBS), _WHOLE]
PriorityNumber = Annotated[int, Field(ge=0, le=2), _WHOLE]
ChoiceCount = Annotated[int, Field(ge=1, le=MAX_CHOICES), _WHOLE]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
TokenKey = Annotated[str, Field(pattern="^[0-9]{1,9}$")]  # JSON's keys are texts
LogitBias = Annotated[
    dict[TokenKey, Bias], Field(max_length=MAX_TOKEN_RULES, json_schema_extra={"additionalProperties": False})
]
StopTokenIds = Annotated[list[TokenId], Field(max_length=MAX_TOKEN_RULES)]
BadWord = Annotated[str, Field(min_length=1, max_length=200)]
BadWords = Annotated[list[BadWord], Field(max_length=MAX_BAD_WORDS)]


def _content_kind(value: Any) -> str | None:
    return "<text>" if isinstance(value, str) else "<parts>" if isinstance(value, list) else None


class TextPart(RequestPart):
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


class SaidMessage(RequestPart):
    """What somebody told the model."""

    role: Literal["system", "developer", "user"]
    content: Content


class AnswerMessage(RequestPart):
    """What the model has answered before. Without content it is empty; with tool calls it is none of ours."""

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: EmptyList | None = None
    function_call: None = None
    audio: None = None


def _message_kind(value: Any) -> str:
    return "<answer>" if isinstance(value, dict) and value.get("role") == "assistant" else "<said>"


def content_text(content: str | list[TextPart] | None) -> str:
    """Return a message's content as one string."""
    return "".join(part.text for part in content) if isinstance(content, list) else content or ""


Message = Annotated[
    Annotated[SaidMessage, Tag("<said>")] | Annotated[AnswerMessage, Tag("<answer>")], Discriminator(_message_kind)
]


class StreamOptions(RequestPart):
    include_usage: bool | None = Field(
        None, description="Send a last chunk without choices that carries `usage`; in those before it that is null."
    )


StopString = Annotated[str, Field(min_length=1)]
Stop = Annotated[
    Annotated[StopString, Tag("<text>")] | Annotated[list[StopString], Field(max_length=4), Tag("<texts>")],
    Discriminator(
        lambda value: "<texts>" if isinstance(value, list) else _kind(value),
        custom_error_type="stop_type",
        custom_error_message="must be a string or a list of at most 4 strings",
    ),
]


class GenerationBody(NotServed):
    """What both kinds of completion share."""

    model: str = Field(
        DEFAULT_MODEL, description="A name that /v1/models lists. Where absent, the server's default model answers."
    )
    max_tokens: TokenCount | None = Field(None, description="Cut to what the context leaves beside the prompt.")
    temperature: float | None = Field(None, ge=0, le=2, description="0, or almost, is greedy; 1 where absent.")
    top_p: float | None = Field(None, ge=0, le=1, description="0 is greedy.")
    top_k: TopK | None = Field(None, description="0 or -1: all tokens.")
    min_p: float | None = Field(
        None, ge=0, le=1, description="Leave out what is less likely than this share of the best."
    )
    frequency_penalty: Penalty | None = Field(None, description="For each time that a token stands in the answer.")
    presence_penalty: Penalty | None = Field(None, description="If a token stands in the answer.")
    repetition_penalty: float | None = Field(
        None, ge=0.01, le=100, description="Divides the logits of what stands in prompt or answer; 1: none."
    )
    logit_bias: LogitBias | None = Field(None, description="From token ids, written as texts, to what is added.")
    bad_words: BadWords | None = Field(None, description="Texts whose tokens do not come in the answer.")
    stop_token_ids: StopTokenIds | None = Field(None, description="Tokens that end the answer; their text is cut.")
    min_tokens: MinTokens | None = Field(None, description="Before so many tokens nothing but the context ends it.")
    stop: Stop | None = Field(None, description="Up to 4 strings; the text ends before the first to be complete.")
    seed: Seed | None = Field(
        None,
        description="Same seed, same text. Where absent one is drawn, and told in the header `x-miniserve-seed`.",
    )
    stream: bool | None = Field(None, description="Answer with server-sent events.")
    stream_options: StreamOptions | None = Field(None, description="Without `stream` of no effect.")
    ignore_eos: bool | None = Field(None, description="Go on past the end-of-sequence token (for benchmarks).")
    user: str | None = Field(None, description="Who asks; requests of one user may be kept on one replica.")
    priority: PriorityNumber | None = Field(
        None, description="0 interactive, 1 standard, 2 batch; before the header `x-priority`."
    )
    timeout: float | None = Field(
        None,
        gt=0,
        le=MOST_TIMEOUT_S,
        description="Seconds after which no answer is wanted; of this and `x-request-timeout-s` the smaller counts.",
    )
    n: ChoiceCount | None = Field(None, description="How many answers to each prompt; seeds count up from the first.")

    def stop_strings(self) -> tuple[str, ...]:
        """Return the stop strings as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def token_limit(self) -> int | None:
        """Return the most tokens that the answer may have, None where nothing is said."""
        return self.max_tokens

    def logprob_count(self) -> int | None:
        """Return how many alternatives to report for each token, None for no log-probabilities at all."""
        raise NotImplementedError

    def question(self) -> str | None:
        """Return what is asked, for those who choose a model by it; None if it is not in words."""
        raise NotImplementedError


class ChatCompletionRequest(GenerationBody):
    messages: list[Message] = Field(min_length=1, fail_fast=True)
    max_completion_tokens: TokenCount | None = Field(None, description="The newer name of max_tokens; wins over it.")
    logprobs: bool | None = None
    top_logprobs: LogprobCount | None = Field(None, description="Used where `logprobs` is true.")
    add_generation_prompt: Always | None = None
    continue_final_message: Never | None = None
    add_special_tokens: Never | None = None
    chat_template: None = None
    chat_template_kwargs: EmptyObject | None = None
    documents: EmptyList | None = None

    def token_limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def logprob_count(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def question(self) -> str:
        """Return the last thing said to the model."""
        said = [message for message in self.messages if isinstance(message, SaidMessage)]
        return content_text((said or self.messages)[-1].content)[:QUESTION_CHARACTERS]


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

    def prompts(self) -> list[str | list[int]]:
        """Return one entry per choice."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)

    def logprob_count(self) -> int | None:
        return self.logprobs

    def question(self) -> str | None:
        """Return the beginnings of all prompts."""
        prompts = self.prompts()
        share = QUESTION_CHARACTERS // len(prompts)
        texts = [prompt[:share] for prompt in prompts if isinstance(prompt, str)]
        return "\n".join(texts) if texts else None
