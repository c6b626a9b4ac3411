"""What every route needs to serve a request, in one frozen bundle. Nothing here is global."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from starlette.responses import Response

from miniserve import __version__
from miniserve.api.answers import CachedTokens, Usage
from miniserve.api.backend import Backend, ServedModel
from miniserve.api.catalogue import Catalogue
from miniserve.api.event_stream import EventStream
from miniserve.api.exchange import FLAGS_HEADER, Exchange
from miniserve.api.flagged import FlagLookup, no_flags
from miniserve.api.hints import read_hints
from miniserve.config import ApiConfig
from miniserve.errors import NotFound
from miniserve.observe.metrics import ApiMetrics
from miniserve.types import LOCAL_TENANT, Clock, Request

SEED_HEADER = "x-miniserve-seed"
DEPRECATION_HEADER = "deprecation"  # RFC 9745: "@" and seconds since 1970


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one HTTP edge. `clock` is monotonic; `wall_clock` gives seconds since 1970, for `created` only.

    `model` is the catalogue's default, and in the parts of one call (`of_call`) the model that this call is for.
    """

    backend: Backend
    catalogue: Catalogue
    model: ServedModel
    config: ApiConfig
    metrics: ApiMetrics
    clock: Clock
    wall_clock: Callable[[], float]
    rng: Random
    flags: FlagLookup = no_flags

    def of_call(self, asked: str, question: Callable[[], str | None], exchange: Exchange, user: str | None) -> Parts:
        """Return the parts that serve a call for the model `asked`; `question` is its text, if it has one.

        `user` is the body's. Raises: NotFound, InvalidRequest: as `Catalogue.resolve` and `read_hints`.
        """
        model = self.catalogue.resolve(asked, question)
        since = self.catalogue.deprecated_since(asked, model.name)
        if since is not None:
            exchange.headers[DEPRECATION_HEADER] = f"@{since}"
        return replace(self, model=self._flagged(model, user, exchange))

    def _flagged(self, model: ServedModel, user: str | None, exchange: Exchange) -> ServedModel:
        """Return what answers this user instead, by the flags that are on; mostly the same."""
        hints = read_hints(exchange.hints)
        tenant = "" if hints.tenant == LOCAL_TENANT else hints.tenant
        found = self.flags(model.name, hints.session_key or user or tenant, hints.cohort)
        if found.flags:
            exchange.headers[FLAGS_HEADER] = ",".join(found.flags)
        if found.model != model.name:
            with suppress(NotFound):  # a version that is no longer offered
                return self.catalogue.entry(found.model).model
        return model

    def head(self, prefix: str, exchange: Exchange) -> dict[str, Any]:
        """Return the fields that an answer and each of its chunks begin with."""
        return {
            "id": f"{prefix}-{exchange.request_id}",
            "created": int(self.wall_clock()),
            "model": self.model.name,
            "system_fingerprint": f"miniserve-{__version__}",
        }

    def event_stream(self, source: AsyncGenerator[str, None], requests: list[Request]) -> EventStream:
        """Return the streaming answer to `requests`, whose data lines `source` yields."""
        return EventStream(
            source,
            heartbeat_s=self.config.heartbeat_s,
            send_timeout_s=self.config.send_timeout_s,
            headers=seed_header(requests),
        )


def json_answer(json_text: str, requests: list[Request]) -> Response:
    """Return the answer to `requests` in one piece."""
    return Response(json_text, headers=seed_header(requests), media_type="application/json")


def seed_header(requests: list[Request]) -> dict[str, str]:
    """Return the header that makes an answer reproducible: the seed of each choice, in order."""
    return {SEED_HEADER: ",".join(str(request.sampling.seed) for request in requests)}


def usage(exchange: Exchange) -> Usage:
    """Return the token counts of an exchange so far, over all its choices."""
    return Usage(
        prompt_tokens=exchange.prompt_tokens,
        completion_tokens=exchange.completion_tokens,
        total_tokens=exchange.prompt_tokens + exchange.completion_tokens,
        prompt_tokens_details=CachedTokens(cached_tokens=exchange.cached_tokens),
    )
