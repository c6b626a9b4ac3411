"""One request's tokens become pieces of text: detokenized, cut at stop strings, counted and timed.

The station between the backend and the answer's shape. Whatever ends the text first (the engine, a stop string, the
client) closes the backend's generator exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal

from miniserve.api.exchange import Exchange
from miniserve.api.parts import Parts
from miniserve.errors import InternalError, UpstreamError
from miniserve.text import Detokenizer
from miniserve.types import FinishReason, Request, TokenEvent, TokenLogprob

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TextPiece:
    """What one token event adds to choice `index`. The text may be empty; the last piece has a `finish_reason`."""

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: Finish | None = None


class Generation:
    """One choice of an answer on its way. Iterate `pieces` once."""

    def __init__(
        self, parts: Parts, request: Request, exchange: Exchange, index: int = 0, *, is_copy: bool = False
    ) -> None:
        """A copy answers a prompt that another choice answers too, and which is counted there."""
        self._parts = parts
        self._request = request
        self._exchange = exchange
        self._index = index
        self._is_copy = is_copy
        sampling = request.sampling
        self._text = Detokenizer(parts.model.tokenizer.token_bytes, sampling.stop, sampling.min_tokens)
        self._last_s: float | None = None
        self._cached_tokens = 0
        self._finished = False

    async def pieces(self) -> AsyncGenerator[TextPiece, None]:
        """Yield the pieces; nothing is asked of the backend before the first is awaited.

        Raises: what the backend raises; UpstreamError if it ends without saying why.
        """
        self._count_prompt()
        events = self._parts.backend.generate(self._request)
        reason = "error"
        try:
            async for event in events:
                if self._finished:
                    continue  # let the backend come to its own end: closing it now would look like an abort
                piece = self._take(event)
                reason = piece.finish_reason or reason
                yield piece
                if self._text.stopped and event.finish_reason is None:
                    return  # the backend would go on: closing it is what stops it
            if not self._finished:
                raise UpstreamError("the generation broke off before its end; send the request again")
        except (GeneratorExit, asyncio.CancelledError):
            reason = reason if self._finished else "abort"
            raise
        finally:
            self._record_end(reason)
            await events.aclose()

    def _count_prompt(self) -> None:
        count = len(self._request.prompt_ids)
        self._exchange.prompt_tokens += 0 if self._is_copy else count
        self._parts.metrics.begin_generation(count)

    def _take(self, event: TokenEvent) -> TextPiece:
        self._note_source(event)
        text, used = self._detokenize(event)
        self._measure(event, used)
        finish = self._finish(event.finish_reason)
        if finish and not self._text.stopped:
            text += self._text.flush()
            finish = self._finish(event.finish_reason)  # the last characters may have completed a stop string
        self._finished = finish is not None
        if self._index == 0:
            self._exchange.note_text(text)
        return TextPiece(self._index, text, event.logprobs[:used], finish)

    def _note_source(self, event: TokenEvent) -> None:
        if (served := event.served) is not None:
            self._exchange.note_model(served.model)
            self._exchange.discarded_tokens += served.discarded_tokens
            self._parts.metrics.discarded_tokens.inc(served.discarded_tokens)
            for measure in served.degraded:
                self._exchange.note_degraded(measure)
                self._parts.metrics.degraded.labels(measure).inc()
        elif self._last_s is None and not self._exchange.answered_by:
            self._exchange.note_model(self._request.model)

    def _record_end(self, reason: str) -> None:
        self._parts.metrics.end_generation(reason, self._parts.clock() - self._request.arrived_s)
        self._exchange.finish_reason = reason

    def _detokenize(self, event: TokenEvent) -> tuple[str, int]:
        """Return the new text and how many tokens it took: those after a completed stop string do not count."""
        if event.text is not None:
            return self._text.push_text(event.text), len(event.token_ids) or bool(event.text)
        text = ""
        for used, token_id in enumerate(event.token_ids, start=1):
            if token_id in self._request.sampling.stop_token_ids:
                continue  # it ends the text, and is none of it
            text += self._text.push(token_id)
            if self._text.stopped:
                return text, used
        return text, len(event.token_ids)

    def _finish(self, reason: FinishReason | None) -> Finish | None:
        if self._text.stopped or reason is FinishReason.STOP:
            return "stop"
        if reason is FinishReason.LENGTH:
            return "length"
        if reason is FinishReason.ERROR:
            raise InternalError("the engine could not finish this generation")
        if reason is FinishReason.ABORT:
            raise UpstreamError("the generation was aborted by the server; send the request again")
        return None

    def _measure(self, event: TokenEvent, used: int) -> None:
        exchange, metrics = self._exchange, self._parts.metrics
        if not self._is_copy:
            cached_tokens = min(event.cached_tokens, len(self._request.prompt_ids))  # a continued answer may find more
            exchange.cached_tokens += max(0, cached_tokens - self._cached_tokens)
            self._cached_tokens = max(self._cached_tokens, cached_tokens)
        if not used:
            return
        now_s = self._parts.clock()
        if self._last_s is None:
            metrics.record_first_token(now_s - self._request.arrived_s)
        else:
            metrics.record_tokens(used, now_s - self._last_s)
        if exchange.first_token_s is None:
            exchange.first_token_s = now_s
        self._last_s = now_s
        exchange.completion_tokens += used
        metrics.count_tokens(used, now_s)
