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
)
from miniserve.api.bodies import read_body
from miniserve.api.exchange import Exchange, exchange_of
from miniserve.api.flow import while_connected
from miniserve.api.generation import Generation, TextPiece
from miniserve.api.logprobs import chat_logprobs
from miniserve.api.parts import Parts, json_answer, usage
from miniserve.api.requests import ChatCompletionRequest
from miniserve.api.translate import chat_request
from miniserve.types import Request, TokenLogprob


async def answer_chat(parts: Parts, http: HttpRequest) -> Response:
    """Serve one chat completion."""
    body = await read_body(http, ChatCompletionRequest, parts.model.max_model_len)
    exchange = exchange_of(http.scope)
    request = await chat_request(parts, body, exchange)
    answer = ChatAnswer(parts, body, request, exchange)
    if body.stream:
        return parts.event_stream(answer.events(), [request])
    completion = await while_connected(answer.whole(), http.receive)
    return json_answer(completion.model_dump_json(), [request])


class ChatAnswer:
    """One chat answer; use either `whole` or `events`, once."""

    def __init__(self, parts: Parts, body: ChatCompletionRequest, request: Request, exchange: Exchange) -> None:
        self._token_bytes = parts.model.tokenizer.token_bytes
        self._pieces = Generation(parts, request, exchange).pieces()
        self._head = parts.head("chatcmpl", exchange)
        self._exchange = exchange
        self._wants_logprobs = bool(body.logprobs)
        self._wants_usage = bool(body.stream_options and body.stream_options.include_usage)

    async def whole(self) -> ChatCompletion:
        """Wait for the end and return everything."""
        async with aclosing(self._pieces) as pieces:
            taken = [piece async for piece in pieces]
        finish_reason = taken[-1].finish_reason
        assert finish_reason is not None
        choice = ChatChoice(
            index=0,
            message=AssistantMessage(content="".join(piece.text for piece in taken)),
            logprobs=self._logprobs([entry for piece in taken for entry in piece.logprobs]),
            finish_reason=finish_reason,
        )
        return ChatCompletion(**self._head, choices=[choice], usage=usage(self._exchange))

    async def events(self) -> AsyncGenerator[str, None]:
        """Yield the data of each server-sent event: role, text as it comes, usage if asked for, `[DONE]`."""
        held: list[TokenLogprob] = []  # of tokens whose text is still held back
        begun = False
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                if not begun:
                    yield self._chunk(Delta(role="assistant", content=""), None)
                    begun = True
                held += piece.logprobs
                if piece.text or piece.finish_reason:
                    yield self._piece_chunk(piece, held)
                    held = []
        if self._wants_usage:
            yield self._json([], usage=usage(self._exchange))
        yield "[DONE]"

    def _piece_chunk(self, piece: TextPiece, held: list[TokenLogprob]) -> str:
        return self._chunk(Delta(content=piece.text), self._logprobs(held), piece)

    def _chunk(self, delta: Delta, logprobs: ChatLogprobs | None, piece: TextPiece | None = None) -> str:
        finish_reason = piece.finish_reason if piece else None
        return self._json([ChatChunkChoice(index=0, delta=delta, logprobs=logprobs, finish_reason=finish_reason)])

    def _json(self, choices: list[ChatChunkChoice], **more: object) -> str:
        fields = {**self._head, **more}
        chunk = ChatCompletionChunk(object="chat.completion.chunk", choices=choices, **fields)
        return chunk.model_dump_json(exclude_unset=True)

    def _logprobs(self, entries: list[TokenLogprob]) -> ChatLogprobs | None:
        return chat_logprobs(self._token_bytes, entries) if self._wants_logprobs else None
