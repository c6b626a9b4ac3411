"""What an answer of OpenAI's API looks like on the wire, errors included.

Source: OpenAI API reference, "Chat completions" and "Completions (legacy)".
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _AnswerPart(BaseModel):
    model_config = ConfigDict(extra="forbid")


AnswerFinishReason = Literal["stop", "length"]


class CachedTokens(_AnswerPart):
    cached_tokens: int


class Usage(_AnswerPart):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class TopLogprob(_AnswerPart):
    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(_AnswerPart):
    content: list[ChatLogprob]


class AssistantMessage(_AnswerPart):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(_AnswerPart):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: AnswerFinishReason


class ChatCompletion(_AnswerPart):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str


class Delta(_AnswerPart):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(_AnswerPart):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: AnswerFinishReason | None


class ChatCompletionChunk(_AnswerPart):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    system_fingerprint: str


class CompletionLogprobs(_AnswerPart):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class CompletionChoice(_AnswerPart):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: AnswerFinishReason | None


class Completion(_AnswerPart):
    """A whole answer, or one chunk of a stream: this API uses one shape for both."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    system_fingerprint: str


class ModelCard(_AnswerPart):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "miniserve"
    max_model_len: int
    root: str | None = None  # what an alias stands for; where it chooses between two, both with `|` between them
    deprecated: int | None = None  # seconds since 1970, from which on it is


class ModelList(_AnswerPart):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Version(_AnswerPart):
    version: str


class ErrorDetail(_AnswerPart):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(_AnswerPart):
    error: ErrorDetail
