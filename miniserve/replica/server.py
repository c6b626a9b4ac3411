"""One replica over HTTP: the OpenAI API for people, and beside it what a gateway uses.

    POST /internal/generate   a `Request` in, one server-sent event per `TokenEvent` out
    GET  /internal/stats      a `ReplicaReport`

An error before the first event is the HTTP status with an error object, a later one is an event in the stream. While
a request waits in the engine's queue, comments keep the connection alive: silence means that something is wrong.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from types import MappingProxyType

from fastapi import FastAPI
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from miniserve.api.bodies import SMALL_BYTES
from miniserve.api.event_stream import EventStream
from miniserve.errors import RequestError
from miniserve.machine import rss_bytes
from miniserve.replica.local import LocalReplica
from miniserve.replica.wire import (
    ReplicaReport,
    decode_request,
    encode_error,
    encode_report,
    encode_token_event,
)
from miniserve.types import Clock, ReplicaState, Request

HEARTBEAT_S = 2.0  # a fifth of the silence that `gateway.remote` allows
_NO_STAGES: Mapping[str, float] = MappingProxyType({})
SEND_TIMEOUT_S = 30.0  # a gateway that takes nothing for so long is gone


def add_internal_routes(app: FastAPI, replica: LocalReplica, report: Callable[[], ReplicaReport]) -> None:
    """Give a replica's OpenAI app the two endpoints of the gateway."""

    async def generate(http: HttpRequest) -> Response:
        body = await http.body()
        now_s = asyncio.get_running_loop().time()  # the clock that `LocalReplica` reads deadlines on
        small = len(body) < SMALL_BYTES
        request = decode_request(body, now_s) if small else await asyncio.to_thread(decode_request, body, now_s)
        return EventStream(_events(replica, request), heartbeat_s=HEARTBEAT_S, send_timeout_s=SEND_TIMEOUT_S)

    async def stats(_: HttpRequest) -> Response:
        return Response(encode_report(report()), media_type="application/json")

    app.router.routes.append(Route("/internal/generate", generate, methods=["POST"], include_in_schema=False))
    app.router.routes.append(Route("/internal/stats", stats, include_in_schema=False))


async def _events(replica: LocalReplica, request: Request) -> AsyncGenerator[str, None]:
    started = False
    try:
        async with aclosing(replica.generate(request)) as events:
            async for event in events:
                started = True
                yield encode_token_event(event)
    except RequestError as error:
        if not started:
            raise  # the edge can still answer with a status
        yield encode_error(error)


def reporter(
    replica: LocalReplica, clock: Clock, *, model: str, max_model_len: int, stages: Mapping[str, float] = _NO_STAGES
) -> Callable[[], ReplicaReport]:
    """Return the function that makes this process's reports. `stages`: of its cold start, as `ReplicaReport` has them.

    They are read at each report: the last one ends after this function.
    """
    started_s = clock()

    def report() -> ReplicaReport:
        return ReplicaReport(
            pid=os.getpid(),
            model=model,
            state=_state(replica),
            uptime_s=round(clock() - started_s, 3),
            rss_bytes=rss_bytes(),
            max_model_len=max_model_len,
            stats=replica.stats(),
            max_abort_lag_steps=replica.max_abort_lag_steps,
            **stages,
        )

    return report


def _state(replica: LocalReplica) -> ReplicaState:
    if not replica.door.is_open:
        return ReplicaState.DRAINING
    return ReplicaState.READY if replica.ready() else ReplicaState.DOWN
