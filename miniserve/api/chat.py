"""POST /v1/chat/completions: pieces of text in the shapes of a chat answer, whole or as a stream of chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from miniserve.api.answers import (
    AssistantMessage,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatLogprobs,
    Delta,
    Usage,
)
from miniserve.api.bodies import read_body
from miniserve.api.choices import all_pieces
from miniserve.api.exchange import Exchange, exchange_of
from miniserve.api.flow import while_connected
from miniserve.api.generation import TextPiece
from miniserve.api.logprobs import chat_logprobs
from miniserve.api.parts import Parts, json_answer, usage
from miniserve.api.requests import ChatCompletionRequest
from miniserve.api.translate import chat_requests
from miniserve.sse import one_line
from miniserve.types import Request, TokenLogprob


async def answer_chat(parts: Parts, http: HttpRequest) -> Response:
    """Serve one chat completion."""
    body = await read_body(http, ChatCompletionRequest, parts.config.max_body_bytes, parts.catalogue.max_model_len)
    exchange = exchange_of(http.scope)
    parts = parts.of_call(body.model, body.question, exchange, body.user)
    requests = await chat_requests(parts, body, exchange)
    parts.metrics.traffic.record("chat", requests[0], stream=bool(body.stream))
    answer = ChatAnswer(parts, body, requests, exchange)
    if body.stream:
        return parts.event_stream(answer.events(), requests)
    completion = await while_connected(answer.whole(), http.receive)
    return json_answer(completion.model_dump_json(), requests)


class ChatAnswer:
    """One chat answer with its choices; use either `whole` or `events`, once."""

    def __init__(self, parts: Parts, body: ChatCompletionRequest, requests: list[Request], exchange: Exchange) -> None:
        self._tokenizer = parts.model.tokenizer
        self._choices = len(requests)
        self._pieces = all_pieces(parts, requests, exchange, copies=self._choices)
        self._head = parts.head("chatcmpl", exchange)
        self._exchange = exchange
        self._wants_logprobs = bool(body.logprobs)
        self._wants_usage = bool(body.stream_options and body.stream_options.include_usage)

    async def whole(self) -> ChatCompletion:
        """Wait for the end of all choices and return everything."""
        taken: list[list[TextPiece]] = [[] for _ in range(self._choices)]
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                taken[piece.index].append(piece)
        choices = [self._choice(one) for one in taken]
        return ChatCompletion(**self._head, choices=choices, usage=usage(self._exchange))

    def _choice(self, taken: list[TextPiece]) -> ChatChoice:
        finish_reason = taken[-1].finish_reason
        assert finish_reason is not None
        return ChatChoice(
            index=taken[-1].index,
            message=AssistantMessage(content="".join(piece.text for piece in taken)),
            logprobs=self._logprobs([entry for piece in taken for entry in piece.logprobs]),
            finish_reason=finish_reason,
        )

    async def events(self) -> AsyncGenerator[str, None]:
        """Yield the data of each server-sent event: role, text as it comes, usage if asked for, `[DONE]`."""
        held: dict[int, list[TokenLogprob]] = {}  # of tokens whose text is still held back, for each choice begun
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                if piece.index not in held:
                    yield self._chunk(piece.index, Delta(role="assistant", content=""), None)
                    held[piece.index] = []
                held[piece.index] += piece.logprobs
                if piece.text or piece.finish_reason:
                    yield self._piece_chunk(piece, held[piece.index])
                    held[piece.index] = []
        if self._wants_usage:
            yield self._json([], usage(self._exchange))
        yield "[DONE]"

    def _piece_chunk(self, piece: TextPiece, held: list[TokenLogprob]) -> str:
        return self._chunk(piece.index, Delta(content=piece.text), self._logprobs(held), piece)

    def _chunk(self, index: int, delta: Delta, logprobs: ChatLogprobs | None, piece: TextPiece | None = None) -> str:
        finish_reason = piece.finish_reason if piece else None
        return self._json([ChatChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=finish_reason)])

    def _json(self, choices: list[ChatChunkChoice], counts: Usage | None = None) -> str:
        fields = {**self._head, "usage": counts} if self._wants_usage else self._head
        chunk = ChatCompletionChunk(object="chat.completion.chunk", choices=choices, **fields)
        return one_line(chunk.model_dump_json(exclude_unset=True))

    def _logprobs(self, entries: list[TokenLogprob]) -> ChatLogprobs | None:
        return chat_logprobs(self._tokenizer, entries) if self._wants_logprobs else None
