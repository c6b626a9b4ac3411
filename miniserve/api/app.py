"""The HTTP application: routes, and the stations that every exchange passes on its way to them.

    (CORS, if on) -> AccessLog (id, log line, last resort) -> BodyLimits (413, 408) -> routing, error handlers -> route

The gateway serves it over a fleet, each replica over its own engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random, SystemRandom
from typing import Any, TypeVar

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from miniserve import __version__
from miniserve.api.access import AccessLog
from miniserve.api.answered import OnCallEnd
from miniserve.api.answers import ChatCompletion, ChatCompletionChunk, Completion, ModelCard, ModelList, Version
from miniserve.api.backend import Backend, ServedModel
from miniserve.api.catalogue import Catalogue, ModelEntry, catalogue_of
from miniserve.api.chat import answer_chat
from miniserve.api.completions import answer_completion
from miniserve.api.errors import add_error_handlers
from miniserve.api.exchange import DEGRADED_HEADER, FLAGS_HEADER, MODEL_HEADER
from miniserve.api.flagged import FlagLookup, no_flags
from miniserve.api.limits import BodyLimits
from miniserve.api.openapi import describe_api, errors, generation_request, generation_responses
from miniserve.api.parts import DEPRECATION_HEADER, SEED_HEADER, Parts
from miniserve.api.requests import ChatCompletionRequest, CompletionRequest
from miniserve.clock import monotonic
from miniserve.config import ApiConfig
from miniserve.errors import Overloaded
from miniserve.observe.metrics import ApiMetrics
from miniserve.types import Clock

_Route = TypeVar("_Route", bound=Callable[..., Any])


def create_app(
    backend: Backend,
    model: ServedModel | Catalogue,
    *,
    config: ApiConfig = ApiConfig(),  # noqa: B008  # frozen
    metrics: ApiMetrics,
    registry: CollectorRegistry,
    clock: Clock = monotonic,
    wall_clock: Callable[[], float] = time.time,
    rng: Random | None = None,
    on_answered: OnCallEnd | None = None,
    flags: FlagLookup = no_flags,
) -> FastAPI:
    """Return the application. `rng` draws seeds where a client names none; the default is the system's randomness.

    `on_answered` is told of every call that asked for a generation, when it has ended.
    """
    app = FastAPI(
        title="miniserve",
        version=__version__,
        description="OpenAI's API, served by miniserve. Unknown fields of a body are ignored.",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    catalogue = catalogue_of(model)
    rng = rng or SystemRandom()
    parts = Parts(backend, catalogue, catalogue.default, config, metrics, clock, wall_clock, rng, flags)
    add_error_handlers(app)
    _add_generation_routes(app, parts)
    _add_model_routes(app, catalogue)
    _add_operation_routes(app, backend, registry)
    describe_api(app, catalogue)
    app.add_middleware(BodyLimits, config=config)
    app.add_middleware(AccessLog, metrics=metrics, clock=clock, on_answered=on_answered)
    if config.cors_origins:  # added last: outermost, so that a browser may read every error too
        _open_to_browsers(app, config.cors_origins)
    return app


def _open_to_browsers(app: FastAPI, origins: Sequence[str]) -> None:
    """Let pages of these origins (`*` for all) call the API; a preflight is answered here, and not logged."""
    ours = [SEED_HEADER, MODEL_HEADER, DEGRADED_HEADER, FLAGS_HEADER]
    readable = [*ours, DEPRECATION_HEADER, "x-request-id", "x-should-retry", "retry-after"]
    methods = ["GET", "HEAD", "POST"]
    app.add_middleware(
        CORSMiddleware, allow_origins=origins, allow_methods=methods, allow_headers=["*"], expose_headers=readable
    )


def _add_generation_routes(app: FastAPI, parts: Parts) -> None:
    @app.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses=generation_responses(ChatCompletionChunk),
        openapi_extra=generation_request(ChatCompletionRequest),
    )
    async def create_chat_completion(request: Request) -> Response:
        """Answer a conversation."""
        return await answer_chat(parts, request)

    @app.post(
        "/v1/completions",
        response_model=Completion,
        responses=generation_responses(Completion),
        openapi_extra=generation_request(CompletionRequest),
    )
    async def create_completion(request: Request) -> Response:
        """Continue one or several prompts."""
        return await answer_completion(parts, request)


def _get(app: FastAPI, path: str, **documented: Any) -> Callable[[_Route], _Route]:
    """Serve GET, as documented, and HEAD, with which balancers probe: the same answer without its body."""

    def add(route: _Route) -> _Route:
        app.get(path, response_model_exclude_none=True, **documented)(route)
        return app.head(path, response_model_exclude_none=True, include_in_schema=False)(route)

    return add


def _add_model_routes(app: FastAPI, catalogue: Catalogue) -> None:
    def card(entry: ModelEntry) -> ModelCard:
        return ModelCard(
            id=entry.name,
            created=entry.model.created,
            max_model_len=entry.model.max_model_len,
            root=entry.stands_for,
            deprecated=catalogue.names.deprecated.get(entry.name),
        )

    @_get(app, "/v1/models", responses=errors(413))
    async def list_models() -> ModelList:
        """List the served models: names, pins (NAME@VERSION) and aliases."""
        return ModelList(data=[card(entry) for entry in catalogue])

    @_get(app, "/v1/models/{model_id:path}", responses=errors(404, 413))
    async def get_model(model_id: str) -> ModelCard:
        """Describe one model."""
        return card(catalogue.entry(model_id))


def _add_operation_routes(app: FastAPI, backend: Backend, registry: CollectorRegistry) -> None:
    @_get(app, "/health", response_class=Response, responses=errors(413, 503))
    async def health() -> Response:
        """200 without a body when new requests would be served."""
        if not backend.ready():
            raise Overloaded("not ready to serve")
        return Response(status_code=200)

    @_get(app, "/version", responses=errors(413))
    async def version() -> Version:
        """Tell the version of the server."""
        return Version(version=__version__)

    text = {
        "text/plain": {"schema": {"type": "string"}},
        "application/openmetrics-text": {"schema": {"type": "string"}},
    }

    @_get(app, "/metrics", response_class=Response, responses={200: {"content": text}, **errors(413)})
    async def prometheus_metrics(request: Request) -> Response:
        """Metrics in Prometheus' text format, or OpenMetrics where asked for."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})
