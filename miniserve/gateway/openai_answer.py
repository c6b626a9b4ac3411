"""One answer of a foreign server on its way: what it may still bring, and its chunks as token events. No I/O."""

from __future__ import annotations

import logging

from miniserve.errors import UpstreamError
from miniserve.gateway.openai_wire import BackendChunk
from miniserve.types import FinishReason, Request, TokenEvent

log = logging.getLogger(__name__)

LONGEST_TOKEN = 128  # characters; a text of more for each token that was asked for has no end


class ForeignAnswer:
    """One answer on its way: what it may still bring."""

    def __init__(self, request: Request, vocab_size: int) -> None:
        self.has_begun = False
        self.is_cut = False  # by us: the backend would go on
        self._request = request
        self._vocab_size = vocab_size
        self._left = request.sampling.max_tokens - len(request.resume_ids)
        self._characters = 0

    def take(self, chunk: BackendChunk, in_ids: bool) -> TokenEvent | None:
        """Return the chunk as an event; None if it brings nothing. Raises: UpstreamError for what cannot be."""
        event = self._ids(chunk) if in_ids else self._text(chunk)
        if not event.token_ids and not event.text and event.finish_reason is None:
            return None
        self.has_begun = True
        return event

    def without_reason(self) -> TokenEvent:
        """Return the last event of a stream that ended without a reason: all that was asked for may be there."""
        if self.has_begun and self._left == 0:
            return TokenEvent(self._request.request_id, finish_reason=FinishReason.LENGTH)
        raise UpstreamError("the backend ended its answer before it was complete")

    def _ids(self, chunk: BackendChunk) -> TokenEvent:
        if chunk.token_ids is None and chunk.text:
            raise UpstreamError("the backend brought text without its token ids")
        ids, reason = chunk.token_ids or (), chunk.finish_reason
        if wrong := [id_ for id_ in ids if not 0 <= id_ < self._vocab_size]:
            most = self._vocab_size - 1
            raise UpstreamError(f"the backend has another tokenizer: token {wrong[0]} is not in ours (0 to {most})")
        if len(ids) > self._left:
            log.warning("a backend went on after the %d tokens asked for", self._request.sampling.max_tokens)
            self.is_cut, ids, reason = True, ids[: self._left], FinishReason.LENGTH
        self._left -= len(ids)
        wants_logprobs = self._request.sampling.logprobs is not None
        logprobs = chunk.logprobs[: len(ids)] if wants_logprobs else ()
        if wants_logprobs and len(logprobs) != len(ids):
            raise UpstreamError("the backend brought tokens without their log-probabilities")
        return TokenEvent(self._request.request_id, ids, reason, logprobs)

    def _text(self, chunk: BackendChunk) -> TokenEvent:
        self._characters += len(chunk.text)
        if self._characters > LONGEST_TOKEN * self._request.sampling.max_tokens:
            raise UpstreamError(f"the backend's answer had no end after {self._characters} characters")
        return TokenEvent(self._request.request_id, finish_reason=chunk.finish_reason, text=chunk.text)
