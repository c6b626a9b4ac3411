"""An answer as server-sent events: started late, kept alive, and given up when nobody reads.

The HTTP status is decided by the first event: an error before it is an ordinary error response, a later one an event
inside the stream. When the first event takes longer than a heartbeat, the response starts without it, so that no proxy
in between loses patience. Every way out (end, error, disconnect, a reader that stalls, cancellation) closes the
source exactly once and waits for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from miniserve.api.errors import as_request_error, error_json, error_response, note_error
from miniserve.api.exchange import exchange_of
from miniserve.api.flow import Items, SourceEnd, pump, stop, while_connected
from miniserve.sse import encode_comment, encode_event

MEDIA_TYPE = "text/event-stream; charset=utf-8"
_QUEUED_EVENTS = 16  # between generator and socket: enough to smooth, too few to matter for memory
_KEEP_ALIVE = encode_comment("keep-alive")
_log = logging.getLogger("miniserve.gateway")


class EventStream(Response):
    """Sends each string that `source` yields as one event. `source` runs only while the response is being sent."""

    def __init__(
        self,
        source: AsyncGenerator[str, None],
        *,
        heartbeat_s: float,
        send_timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._source = source
        self._heartbeat_s = heartbeat_s
        self._send_timeout_s = send_timeout_s
        no_buffering = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        self.init_headers({"content-type": MEDIA_TYPE, **no_buffering, **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(self._serve(scope, receive, send), receive)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        queue: Items[str] = asyncio.Queue(maxsize=_QUEUED_EVENTS)
        pumping = asyncio.create_task(pump(self._source, queue))
        try:
            first = await self._next(queue)
            if isinstance(first, Exception):
                await self._refuse(first, scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send_all(first, queue, scope, send)
        except TimeoutError:
            _log.warning(
                "request %s: the client read nothing for %s s",
                exchange_of(scope).client_request_id,
                self._send_timeout_s,
            )
            raise ClientDisconnect() from None
        finally:
            await stop(pumping)

    async def _next(self, queue: Items[str]) -> str | Exception | SourceEnd | None:
        """Return the next item, or None after a heartbeat of silence."""
        try:
            async with asyncio.timeout(self._heartbeat_s):
                return await queue.get()
        except TimeoutError:
            return None

    async def _send_all(
        self, item: str | Exception | SourceEnd | None, queue: Items[str], scope: Scope, send: Send
    ) -> None:
        while not isinstance(item, SourceEnd | Exception):
            exchange_of(scope).begun |= item is not None
            await self._send(send, _KEEP_ALIVE if item is None else encode_event(item))
            item = await self._next(queue)
        last = encode_event(self._failure(item, scope)) if isinstance(item, Exception) else b""
        await self._send(send, last, more=False)

    async def _send(self, send: Send, data: bytes, more: bool = True) -> None:
        async with asyncio.timeout(self._send_timeout_s):
            await send({"type": "http.response.body", "body": data, "more_body": more})

    def _failure(self, error: Exception, scope: Scope) -> str:
        refusal = as_request_error(error, exchange_of(scope).client_request_id)
        note_error(scope, refusal)
        return error_json(refusal)

    async def _refuse(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = as_request_error(error, exchange_of(scope).client_request_id)
        note_error(scope, refusal)
        await error_response(refusal)(scope, receive, send)
