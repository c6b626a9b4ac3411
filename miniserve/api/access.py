"""The outermost station: gives every exchange its ids, counts it, and writes one log line when it is over.

Pure ASGI. Whatever goes wrong further in, the client gets an answer with `x-request-id`, and the log a JSON line with
that id and our own, the status, tokens and durations; 499 stands for a client that left. Prompts, answers and paths
that are not ours are never logged.
"""

from __future__ import annotations

import json
import logging

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from miniserve.api.answered import OnCallEnd
from miniserve.api.errors import as_request_error, error_response, note_error
from miniserve.api.exchange import Exchange, new_exchange
from miniserve.observe.metrics import ApiMetrics
from miniserve.types import Clock

CLIENT_GONE = 499  # nginx's number; only in logs and metrics, since nobody is there to receive it
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_log = logging.getLogger("miniserve.access")


class AccessLog:
    """ASGI middleware; to be the first that a request meets."""

    def __init__(self, app: ASGIApp, metrics: ApiMetrics, clock: Clock, on_answered: OnCallEnd | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock
        self._on_answered = on_answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = new_exchange(Headers(scope=scope), self._clock())
        scope.setdefault("state", {})["exchange"] = exchange
        with self._metrics.in_flight.track_inprogress():
            try:
                await self._answer(exchange, scope, receive, send)
            finally:
                self._record(exchange, scope)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                MutableHeaders(scope=message).update({**exchange.headers, "x-request-id": exchange.client_request_id})
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            exchange.gone = True
        except Exception as error:
            failure = as_request_error(error, exchange.client_request_id)
            note_error(scope, failure)
            if exchange.status is not None:
                raise  # too late for an answer: the server closes the connection
            await error_response(failure)(scope, receive, send_with_id)

    def _record(self, exchange: Exchange, scope: Scope) -> None:
        ended_s = self._clock()
        duration_s = ended_s - exchange.started_s
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path_format", "unmatched")
        status = CLIENT_GONE if exchange.gone else exchange.status
        self._metrics.record_exchange(route, method, status, duration_s)
        ttft_s = None if exchange.first_token_s is None else exchange.first_token_s - exchange.started_s
        line = {
            "request_id": exchange.client_request_id,
            "id": exchange.request_id,
            "method": method,
            "route": route,
            "status": status,
            "error": exchange.error,
            "model": ",".join(exchange.answered_by) or None,
            "finish_reason": exchange.finish_reason,
            "prompt_tokens": exchange.prompt_tokens,
            "cached_tokens": exchange.cached_tokens,
            "completion_tokens": exchange.completion_tokens,
            "degraded": ",".join(exchange.degraded) or None,
            "discarded_tokens": exchange.discarded_tokens or None,
            "ttft_s": None if ttft_s is None else round(ttft_s, 6),
            "duration_s": round(duration_s, 6),
        }
        _log.info("%s", json.dumps({key: value for key, value in line.items() if value is not None}))
        if self._on_answered is not None and (call := exchange.answered(status or 500, ended_s)) is not None:
            self._on_answered(call)
