"""HTTP/1.1 as our servers speak it: uvicorn's h11 protocol by name, and what it leaves open.

uvicorn takes whichever parser is installed, and they differ: one loses the body of a request that offers h2c (every
Java client), answers HTTP/1.0 in chunks and lets a missing Host pass. So the parser is named here, and beside it:

- a request line with a whole URL (as a proxy sends it) means its path;
- a request that gives its length twice, as `content-length` and as chunks, is refused: two readers could disagree
  about where it ends;
- what is no HTTP gets our JSON error, and a head that does not come to its end within `HEAD_TIMEOUT_S` a 408;
- a client that shuts its sending side after a complete request gets its answer;
- an answer that was given up because its reader takes nothing is dropped with its connection: to flush what is buffered
  would take that reader hours.

**Half closed or gone?** Both look the same until something is sent. So before an answer has begun such a client is sent
`102 Processing`, which clients skip: whoever has left answers with a reset, and the generation stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from miniserve.api.errors import error_json
from miniserve.errors import InvalidRequest, RequestError, RequestTimeout

HEAD_TIMEOUT_S = 20.0  # for a few hundred bytes; a slower client holds a connection on purpose
_PROBE_S = 0.25  # between two signs of life to a client that has shut its sending side


class HttpProtocol(H11Protocol):
    """One connection."""

    head_timeout_s = HEAD_TIMEOUT_S

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.app = _Sorted(self.app, self._drop_the_unfinished)
        self._head_timer: asyncio.TimerHandle | None = None
        self._probe_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._probe_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    # --- the head of a request -------------------------------------------------------------------------------------

    def handle_events(self) -> None:
        super().handle_events()
        is_partial = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if is_partial and self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_is_late)
        elif not is_partial and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._refuse(RequestTimeout(f"the head of the request was not complete after {self.head_timeout_s:g} s"))

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidRequest("this is not a valid HTTP request"))

    def _refuse(self, error: RequestError) -> None:
        """Answer, if there is no answer on its way yet, and close the connection."""
        if not self.transport.is_closing() and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = error_json(error).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            for event in (h11.Response(status_code=error.status, headers=headers), h11.Data(body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: an upgrade is an offer, and every Java client makes it."""

    def _drop_the_unfinished(self) -> None:
        """End the connection now if the application is done, its answer is not, and the reader has not kept up."""
        if not self.cycle.response_complete and self.transport.get_write_buffer_size():
            self.transport.abort()
            self.cycle.disconnected = True  # else uvicorn calls it an error of ours that the answer has no end

    # --- a client that sends no more -------------------------------------------------------------------------------

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the connection open for the answer to a complete request."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body or cycle.scope["http_version"] == "1.0":
            return None
        cycle.keep_alive = False
        self._probe()
        return True

    def _probe(self) -> None:
        if self.transport.is_closing() or self.cycle.response_started:
            return  # from here on the answer itself finds out
        self.transport.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        self._probe_timer = self.loop.call_later(_PROBE_S, self._probe)


class _Sorted:
    """The application, which hears of a request's path only, and of no request whose end is in doubt."""

    def __init__(self, app: ASGIApp, on_end: Callable[[], None]) -> None:
        self._app = app
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = {name for name, _ in scope.get("headers", ())}
        if {b"content-length", b"transfer-encoding"} <= names:
            await _refuse_ambiguous(send)
            return
        if not scope["raw_path"].startswith((b"/", b"*")):
            scope = {**scope, "path": _path(scope["path"]), "raw_path": _path(scope["raw_path"].decode()).encode()}
        try:
            await self._app(scope, receive, send)
        finally:
            self._on_end()


def _path(target: str) -> str:
    """Return the path of a whole URL; anything else stays, and is not found."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return target
    return "/" + rest.partition("/")[2]


async def _refuse_ambiguous(send: Send) -> None:
    error = InvalidRequest("a request has either content-length or transfer-encoding, not both")
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": error_json(error).encode()})
