"""A cascade, live: the small model's answer is taken if it was sure of it, and else the large model is asked.

The client sees one answer and pays for one. The small model's is complete before anything of it is sent, so its first
token comes late; the large model's is streamed. Knows log-probabilities and stop strings: without them the small model
would go on past the end of its text, at our cost.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from miniserve.api.backend import Backend
from miniserve.api.catalogue import Catalogue
from miniserve.errors import RequestError
from miniserve.text import Detokenizer
from miniserve.types import FinishReason, Request, TokenEvent

if TYPE_CHECKING:  # it needs numpy, which a gateway without cascades does without
    from miniserve.policies.routing.model_router import Cascade

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Draft:
    """The small model's answer; `failed` if it has none to give."""

    events: list[TokenEvent] = field(default_factory=list)
    failed: bool = False

    @property
    def logprobs(self) -> list[float]:
        return [entry.logprob for event in self.events for entry in event.logprobs]

    @property
    def tokens(self) -> int:
        return sum(len(event.token_ids) for event in self.events)


class CascadeBackend:
    """A backend that also serves requests for a cascade's name; others pass as they are."""

    def __init__(self, backend: Backend, cascades: Mapping[str, Cascade], catalogue: Catalogue) -> None:
        self._backend = backend
        self._cascades = cascades
        self._catalogue = catalogue

    def ready(self) -> bool:
        return self._backend.ready()

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        """Yield the answer of whichever model is to give it. Raises: what that model's replicas do."""
        spent, cascade = 0, self._cascades.get(request.model)
        if cascade is not None:
            draft = await self._draft(request, cascade)
            if not draft.failed and cascade.keeps(draft.logprobs):
                for event in draft.events:
                    yield event if request.sampling.logprobs is not None else replace(event, logprobs=())
                return
            request, spent = replace(request, model=cascade.large), draft.tokens
        async with aclosing(self._backend.generate(request)) as events:
            async for event in events:
                if spent and event.served is not None:
                    event = replace(event, served=replace(event.served, discarded_tokens=spent))
                    spent = 0  # another attempt says again who answers, but this is counted once
                yield event

    async def _draft(self, request: Request, cascade: Cascade) -> _Draft:
        """Return the small model's answer, up to its first stop string.

        Raises: RequestError where the large model would be no help either.
        """
        draft, sampling = _Draft(), request.sampling
        text = Detokenizer(
            self._catalogue.entry(request.model).model.tokenizer.token_bytes, sampling.stop, sampling.min_tokens
        )
        asked = replace(
            request,
            request_id=f"{request.request_id}-{cascade.small}",
            model=cascade.small,
            sampling=replace(sampling, logprobs=sampling.logprobs or 0),
        )
        try:
            async with aclosing(self._backend.generate(asked)) as events:
                async for event in events:
                    draft.events.append(event)
                    if sampling.stop and _stops(text, event):
                        break
        except RequestError as error:
            if not error.retryable:
                raise
            log.info("request %s: %s has no answer (%s)", request.request_id, cascade.small, type(error).__name__)
            draft.failed = True
        draft.failed |= any(event.finish_reason in (FinishReason.ERROR, FinishReason.ABORT) for event in draft.events)
        return draft


def _stops(text: Detokenizer, event: TokenEvent) -> bool:
    if event.text is not None:
        text.push_text(event.text)
    else:
        for token_id in event.token_ids:
            text.push(token_id)
    return text.stopped
