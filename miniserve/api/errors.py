"""Every failure leaves in one shape: `{"error": {"message", "type", "param", "code"}}`, whatever caused it.

Also says what a client should do next: `retry-after` (seconds) where we are busy, and `x-should-retry`, which the
official client obeys, so that it repeats neither our bugs nor requests whose time is up. Nothing from inside (a stack
trace, a path, an exception's text) gets out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from miniserve.api.answers import ErrorDetail, ErrorResponse
from miniserve.api.exchange import exchange_of
from miniserve.errors import InternalError, InvalidRequest, NotFound, Overloaded, RateLimited, RequestError
from miniserve.sse import one_line

_DEFAULT_RETRY_AFTER_S = 1.0
_log = logging.getLogger("miniserve.gateway")


def error_json(error: RequestError) -> str:
    """Return the error object as JSON text."""
    detail = ErrorDetail(message=error.message, type=error.type, param=error.param, code=error.code)
    return one_line(ErrorResponse(error=detail).model_dump_json())


def note_error(scope: Scope, error: RequestError) -> None:
    """Note for the request log what the client is told."""
    exchange_of(scope).error = error.type


def error_response(
    error: RequestError, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the HTTP answer for `error`. `status` replaces the class's own where HTTP has a finer word."""
    advice = {"x-should-retry": "true" if error.retryable else "false"}
    wait_s = error.retry_after_s
    if wait_s is None and isinstance(error, (RateLimited, Overloaded)):
        wait_s = _DEFAULT_RETRY_AFTER_S
    if wait_s is not None and math.isfinite(wait_s):
        advice["retry-after"] = str(max(1, math.ceil(wait_s)))
    return Response(
        error_json(error), status or error.status, {**advice, **(headers or {})}, media_type="application/json"
    )


def as_request_error(error: Exception, request_id: str) -> RequestError:
    """Return what the client may know of `error`; the rest goes to the log under `request_id`."""
    if isinstance(error, RequestError):
        return error
    _log.error("request %s failed inside", request_id, exc_info=error)
    return InternalError(f"internal error; quote request id {request_id} when you report it")


def add_error_handlers(app: FastAPI) -> None:
    """Make every error that a route raises, or that routing itself finds, leave in our shape."""

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)
        note_error(request.scope, error)
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def not_routed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        refusal = _routing_error(request, error)
        note_error(request.scope, refusal)
        return error_response(refusal, status=error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: Exception) -> Response:
        refusal = InvalidRequest("the request's path or query is invalid")
        note_error(request.scope, refusal)
        return error_response(refusal)


def _routing_error(request: Request, error: HTTPException) -> RequestError:
    asked = f"{request.method[:20]} {request.url.path[:200]}"
    if error.status_code == 404:
        return NotFound(f"{asked} does not exist; /openapi.json lists what does")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return InvalidRequest(f"{asked} is not possible; allowed: {allowed}", code="method_not_allowed")
    return InvalidRequest(str(error.detail))
