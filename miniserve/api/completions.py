"""POST /v1/completions: the older API, whose prompts are plain text or token ids, and several at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from miniserve.api.answers import Completion, CompletionChoice, Usage
from miniserve.api.bodies import read_body
from miniserve.api.choices import all_pieces
from miniserve.api.exchange import Exchange, exchange_of
from miniserve.api.flow import while_connected
from miniserve.api.generation import TextPiece
from miniserve.api.logprobs import CompletionLogprobLists
from miniserve.api.parts import Parts, json_answer, usage
from miniserve.api.requests import CompletionRequest
from miniserve.api.translate import completion_requests
from miniserve.sse import one_line
from miniserve.types import Request, TokenLogprob


async def answer_completion(parts: Parts, http: HttpRequest) -> Response:
    """Serve one call with one or several prompts."""
    body = await read_body(http, CompletionRequest, parts.config.max_body_bytes, parts.catalogue.max_model_len)
    exchange = exchange_of(http.scope)
    parts = parts.of_call(body.model, body.question, exchange, body.user)
    requests = await completion_requests(parts, body, exchange)
    parts.metrics.traffic.record("completions", requests[0], stream=bool(body.stream))
    answer = CompletionAnswer(parts, body, requests, exchange)
    if body.stream:
        return parts.event_stream(answer.events(), requests)
    completion = await while_connected(answer.whole(), http.receive)
    return json_answer(completion.model_dump_json(), requests)


class _Choice:
    """One choice being put together."""

    def __init__(self, index: int, lists: CompletionLogprobLists | None) -> None:
        self._index = index
        self._lists = lists
        self._held: list[TokenLogprob] = []
        self._text = ""

    def add(self, piece: TextPiece) -> None:
        """Take a piece."""
        self._text += piece.text
        self._held += piece.logprobs

    def give(self, piece: TextPiece) -> CompletionChoice:
        """Return everything taken since the last time, `piece` being the last of it."""
        logprobs = self._lists.take(self._held) if self._lists else None
        text, self._text, self._held = self._text, "", []
        return CompletionChoice(index=self._index, text=text, logprobs=logprobs, finish_reason=piece.finish_reason)


class CompletionAnswer:
    """The answer to one call; use either `whole` or `events`, once."""

    def __init__(self, parts: Parts, body: CompletionRequest, requests: list[Request], exchange: Exchange) -> None:
        self._pieces = all_pieces(parts, requests, exchange, copies=body.n or 1)
        tokenizer = parts.model.tokenizer
        wants_logprobs = body.logprobs is not None
        self._choices = [
            _Choice(index, CompletionLogprobLists(tokenizer) if wants_logprobs else None)
            for index in range(len(requests))
        ]
        self._head = parts.head("cmpl", exchange)
        self._exchange = exchange
        self._wants_usage = bool(body.stream_options and body.stream_options.include_usage)

    async def whole(self) -> Completion:
        """Wait for the end of all choices and return everything."""
        done: list[CompletionChoice] = []
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                self._choices[piece.index].add(piece)
                if piece.finish_reason:
                    done.append(self._choices[piece.index].give(piece))
        done.sort(key=lambda choice: choice.index)
        return self._completion(done, usage=usage(self._exchange))

    async def events(self) -> AsyncGenerator[str, None]:
        """Yield the data of each server-sent event: the choices' text as it comes, usage if asked for, `[DONE]`."""
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                choice = self._choices[piece.index]
                choice.add(piece)
                if piece.text or piece.finish_reason:
                    yield self._json([choice.give(piece)])
        if self._wants_usage:
            yield self._json([], usage(self._exchange))
        yield "[DONE]"

    def _json(self, choices: list[CompletionChoice], counts: Usage | None = None) -> str:
        more = {"usage": counts} if self._wants_usage else {}
        return one_line(self._completion(choices, **more).model_dump_json(exclude_unset=True))

    def _completion(self, choices: list[CompletionChoice], **more: object) -> Completion:
        fields = {**self._head, **more}
        return Completion(object="text_completion", choices=choices, **fields)
