"""Any OpenAI-compatible server as a replica: its answers as token events, its endpoints as a report.

Such a server speaks in one of two ways, and is asked which before it gets traffic (or the operator says):

- *token ids*, as vLLM does on `/v1/completions`: a prompt of ids, and the ids of the answer with its text. A broken
  answer goes on elsewhere, after the tokens that the client has.
- *text* only: the prompt's tokens are spelled out, control tokens of the chat template included, and the answer is text
  events. Nobody can continue those, so an answer that breaks after its first text ends with an error.

Limits on waiting count from news to news, never from byte to byte: what drips is not alive. A tokenizer that is not
ours, a model that is not there, a stream without an end are errors of the backend, each by its own words.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import httpx

from miniserve.errors import Overloaded, RequestError, SetupError, Unreachable, UpstreamError, broke_off, no_connection
from miniserve.gateway.openai_answer import ForeignAnswer
from miniserve.gateway.openai_bodies import TokenSpelling, id_body, same_text, spelled, text_body
from miniserve.gateway.openai_wire import BackendChunk, BackendFigures, read_chunk, read_figures, read_models, refusal
from miniserve.gateway.remote import CONNECT_TIMEOUT_S
from miniserve.replica.wire import ReplicaReport
from miniserve.sse import SSEDecoder
from miniserve.types import Clock, ReplicaState, Request, SamplingParams, TokenEvent

log = logging.getLogger(__name__)

LONGEST_EVENT = 1 << 20  # bytes; more without the end of an event is no event stream
LONGEST_BODY = 4 << 20  # bytes of anything else
IDLE_S = 2.0  # most servers close an idle connection after 5 s; one that closes as we use it is a failure for nothing
_QUESTION = "One two three"  # what a backend is asked to go on with, to hear how it speaks
_QUESTION_TOKENS = 4
_FIRST_WORD_S = 1.0  # most backends answer that at once, and are ready with their first report


class Speech(StrEnum):
    """How a backend speaks."""

    IDS = "token-ids"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class BackendWaits:
    """How long a backend may take."""

    first_s: float = 120.0  # for its first token: a queue and a long prompt; the policies ask another one sooner
    silence_s: float = 15.0  # between two tokens
    end_s: float = 1.0  # from the last token to the end of the stream, which tells the usage


class OpenAIReplica:
    """One server behind a URL. Belongs to one event loop; `close` it there."""

    def __init__(
        self,
        url: str,
        name: str,
        tokenizer: TokenSpelling,
        max_model_len: int,
        clock: Clock,
        *,
        model: str = "",
        key: str = "",
        speech: Speech | None = None,
        waits: BackendWaits | None = None,
    ) -> None:
        """`name` is the model's here, `model` there (by default the same); `max_model_len` is for who tells none."""
        self.url = _root(url)
        self._name, self._wanted = name, model or name
        self._tokenizer = tokenizer
        self._max_model_len = max_model_len
        self._clock = clock
        self._speech = speech
        self._waits = waits or BackendWaits()
        self._is_known = False  # it has said that it serves the model
        self._has_health = self._has_metrics = True
        self._question: asyncio.Task[Speech] | None = None
        self._seen_events = 0
        self._since_s, self._last = clock(), (clock(), 0.0)
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=IDLE_S),
            trust_env=False,
        )

    async def close(self) -> None:
        if self._question is not None:
            self._question.cancel()
            await asyncio.gather(self._question, return_exceptions=True)
        await self._client.aclose()

    # --- answers ---------------------------------------------------------------------------------------------------

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        """Yield the backend's events; closing the generator early closes the connection, which aborts the work there.

        Raises: Unreachable when no connection can be made; UpstreamError when it fails, ends early or says what cannot
            be; the backend's own error otherwise.
        """
        body, answer = self._body(request), ForeignAnswer(request, self._tokenizer.vocab_size)
        async with aclosing(self._chunks(body)) as chunks:
            while True:
                event = await self._next(chunks, answer)
                self._seen_events += 1
                if event.finish_reason is not None:
                    if not answer.is_cut:
                        event = replace(event, cached_tokens=await self._cached_tokens(chunks))
                    yield event
                    return
                yield event

    def _body(self, request: Request) -> dict[str, Any]:
        if self._speech is Speech.IDS:
            return id_body(request, self._wanted, self._tokenizer)
        if self._speech is None:
            raise Unreachable("the backend has not told yet how it speaks")
        if request.resume_ids:
            message = "the backend speaks text only, and cannot continue an answer that another replica has begun"
            raise Overloaded(message, code="cannot_continue", retry_after_s=1.0)
        return text_body(request, self._wanted, self._tokenizer)

    async def _next(self, chunks: AsyncGenerator[BackendChunk, None], answer: ForeignAnswer) -> TokenEvent:
        """Return the next event that brings something. Raises: UpstreamError if none comes."""
        limit_s = self._waits.silence_s if answer.has_begun else self._waits.first_s
        try:
            async with asyncio.timeout(limit_s):
                while (chunk := await anext(chunks, None)) is not None:
                    if (event := answer.take(chunk, self._speech is Speech.IDS)) is not None:
                        return event
        except TimeoutError:
            raise UpstreamError(f"the backend brought nothing new for {limit_s:g} s") from None
        return answer.without_reason()

    async def _cached_tokens(self, chunks: AsyncGenerator[BackendChunk, None]) -> int:
        """Read to the end of a stream whose answer is complete: its usage, if it has any, and nothing that matters."""
        cached_tokens = 0
        with contextlib.suppress(TimeoutError, RequestError):
            async with asyncio.timeout(self._waits.end_s):
                async for chunk in chunks:
                    cached_tokens = max(cached_tokens, chunk.cached_tokens)
        return cached_tokens

    async def _chunks(self, body: dict[str, Any]) -> AsyncGenerator[BackendChunk, None]:
        """Yield what the backend sends until `[DONE]`, or until it ends without."""
        try:
            async with self._client.stream("POST", "/v1/completions", json=body) as response:
                await _check_head(response)
                pieces, decoder, unread = response.aiter_bytes(), SSEDecoder(), 0
                async for piece in pieces:
                    unread += len(piece)
                    for data in decoder.feed(piece):
                        unread = 0
                        if data.strip() == "[DONE]":
                            async for _ in pieces:  # only a connection that was read to its end can be used again
                                pass
                            return
                        yield read_chunk(data)
                    if unread > LONGEST_EVENT:
                        raise UpstreamError(f"the backend sent {unread} bytes that are no event")
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise no_connection() from error
        except httpx.HTTPError as error:
            raise broke_off() from error

    # --- reports ---------------------------------------------------------------------------------------------------

    async def report(self, timeout_s: float) -> ReplicaReport:
        """Raises: UpstreamError when the backend does not answer properly within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._report()
        except TimeoutError:
            self._is_known = False
            raise UpstreamError(f"no report from the backend within {timeout_s:g} s") from None
        except httpx.HTTPError as error:
            self._is_known = False
            raise UpstreamError(f"no report from the backend ({type(error).__name__})") from None

    async def _report(self) -> ReplicaReport:
        if self._has_health:
            self._has_health = await self._get("/health") is not None
        if not self._is_known or not self._has_health:
            await self._check_model()
        figures = await self._figures()
        stats = (figures or BackendFigures()).stats(self._seen_events, self._tokens_per_s(figures))
        state = await self._state()
        return ReplicaReport(0, self._name, state, self._clock() - self._since_s, 0, self._max_model_len, stats)

    async def _check_model(self) -> None:
        """Raises: UpstreamError if the backend does not serve the model that it is here for."""
        models = read_models(await self._get("/v1/models") or b"")
        if self._wanted not in models:
            names = ", ".join(list(models)[:10]) or "no model"
            raise UpstreamError(f"the backend serves {names}, and not {self._wanted}; say which with --backend-model")
        self._max_model_len = models[self._wanted] or self._max_model_len
        self._is_known = True

    async def _figures(self) -> BackendFigures | None:
        if not self._has_metrics:
            return None
        text = await self._get("/metrics")
        self._has_metrics = text is not None
        return None if text is None else read_figures(text.decode("utf-8", "replace"))

    def _tokens_per_s(self, figures: BackendFigures | None) -> float:
        """Return the rate since the last report, of what has reached us where the backend counts nothing."""
        now_s = self._clock()
        tokens = float(self._seen_events if figures is None else figures.generated_tokens)
        (last_s, last_tokens), self._last = self._last, (now_s, tokens)
        return max(0.0, tokens - last_tokens) / (now_s - last_s) if now_s > last_s else 0.0

    async def _get(self, path: str) -> bytes | None:
        """Return what is there; None if there is nothing. Raises: UpstreamError for any other answer."""
        async with self._client.stream("GET", path) as response:
            if response.status_code in (404, 405, 501):
                return None
            body = await _body_of(response)
            if response.status_code != httpx.codes.OK:
                raise UpstreamError(f"{path}: {refusal(response.status_code, body)}")
            return body

    # --- how it speaks ---------------------------------------------------------------------------------------------

    async def _state(self) -> ReplicaState:
        """Return READY once it is known how the backend speaks. Raises: what is wrong with its speech."""
        if self._speech is not None:
            return ReplicaState.READY
        question = self._question
        if question is None:
            question = asyncio.create_task(self._learn_speech(), name=f"first question to {self.url}")
            self._question = question
            await asyncio.wait({question}, timeout=_FIRST_WORD_S)
        if not question.done():
            return ReplicaState.STARTING
        self._question = None  # if it failed, the next probe asks again
        self._speech = question.result()
        log.info("backend %s speaks %s", self.url, self._speech.value)
        return ReplicaState.READY

    async def _learn_speech(self) -> Speech:
        """Ask for a few tokens in ids, and if that is refused in text. Raises: the backend's error; UpstreamError."""
        request = Request(
            "question",
            self._name,
            tuple(self._tokenizer.encode(_QUESTION)),
            SamplingParams(max_tokens=_QUESTION_TOKENS, temperature=0.0),
        )
        try:
            answer = await self._ask(id_body(request, self._wanted, self._tokenizer))
        except RequestError as error:
            if isinstance(error, Unreachable | Overloaded):
                raise
            log.info("backend %s takes no token ids: %s", self.url, error)
            answer = await self._ask(text_body(request, self._wanted, self._tokenizer))
            return Speech.TEXT
        if not answer.token_ids:
            return Speech.TEXT
        if not same_text(self._tokenizer, answer.token_ids, answer.text):
            said, ours = answer.text[:80], spelled(self._tokenizer, answer.token_ids)[:80]
            raise UpstreamError(f"the backend has another tokenizer than --model: it calls {said!r} what is {ours!r}")
        return Speech.IDS

    async def _ask(self, body: dict[str, Any]) -> BackendChunk:
        """Return the answer in one piece."""
        body = {name: value for name, value in body.items() if name != "stream_options"} | {"stream": False}
        try:
            async with (
                asyncio.timeout(self._waits.first_s),
                self._client.stream("POST", "/v1/completions", json=body) as response,
            ):
                content = await _body_of(response)
        except TimeoutError:
            raise Unreachable(f"the backend did not answer its first question in {self._waits.first_s:g} s") from None
        except httpx.HTTPError as error:
            raise no_connection() from error
        if response.status_code != httpx.codes.OK:
            raise refusal(response.status_code, content)
        return read_chunk(content)


async def _check_head(response: httpx.Response) -> None:
    """Raises: the backend's refusal; UpstreamError if what follows is no event stream."""
    if response.status_code != httpx.codes.OK:
        raise refusal(response.status_code, await _body_of(response), response.headers.get("retry-after"))
    kind = response.headers.get("content-type", "nothing")
    if not kind.startswith("text/event-stream"):
        raise UpstreamError(f"the backend answered with {kind[:80]} in place of an event stream")


async def _body_of(response: httpx.Response) -> bytes:
    """Raises: UpstreamError if it is too long."""
    body = bytearray()
    pieces: AsyncIterator[bytes] = response.aiter_bytes()
    async for piece in pieces:
        body += piece
        if len(body) > LONGEST_BODY:
            raise UpstreamError(f"the backend's answer is longer than {LONGEST_BODY} bytes")
    return bytes(body)


def _root(url: str) -> str:
    """Return the address without the `/v1` that clients write. Raises: SetupError if it is none."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise SetupError(f"--backend {url}: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise SetupError(f"--backend {url}: not an address such as http://127.0.0.1:8000")
    return str(parsed).rstrip("/").removesuffix("/v1")
