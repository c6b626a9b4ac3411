"""The edge's first guard: a body may be only so large and take only so long, whatever the route does with it.

Pure ASGI: it wraps `receive`, counts and watches the clock, and answers itself with 413 or 408. An announced length
that is too large is refused before a single byte is read.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from miniserve.api.errors import error_response, note_error
from miniserve.config import ApiConfig
from miniserve.errors import PayloadTooLarge, RequestError, RequestTimeout

_LINGER_S = 1.0  # how long we still swallow what a refused client is sending, so that it gets to read the refusal


class _Refused(Exception):
    """Carries a refusal from `receive` up through the application to the middleware, past its error handlers."""

    def __init__(self, error: RequestError) -> None:
        super().__init__(error)
        self.error = error


class BodyLimits:
    """ASGI middleware; `config` holds `max_body_bytes` and `body_timeout_s`."""

    def __init__(self, app: ASGIApp, config: ApiConfig) -> None:
        self._app = app
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_announced(Headers(scope=scope).get("content-length", ""))
            await self._app(scope, self._limited(receive), send)
        except _Refused as refused:
            await self._refuse(refused.error, scope, receive, send)

    def _check_announced(self, length: str) -> None:
        if length.isascii() and length.isdigit() and int(length[:20]) > self._config.max_body_bytes:
            raise _Refused(self._too_large(f"{length[:20]} bytes"))

    def _too_large(self, size: str) -> PayloadTooLarge:
        return PayloadTooLarge(f"the body is {size}; at most {self._config.max_body_bytes} bytes are read")

    def _limited(self, receive: Receive) -> Receive:
        """Return a `receive` that watches the body and, once that is complete, is as before."""
        seen_bytes = 0
        complete = False
        deadline: float | None = None

        async def limited() -> Message:
            nonlocal seen_bytes, complete, deadline
            if complete:
                return await receive()
            deadline = deadline or asyncio.get_running_loop().time() + self._config.body_timeout_s
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                late = f"the body was not complete after {self._config.body_timeout_s:g} s; send it faster"
                raise _Refused(RequestTimeout(late)) from None
            seen_bytes += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if seen_bytes > self._config.max_body_bytes:
                raise _Refused(self._too_large("longer than allowed"))
            return message

        return limited

    async def _refuse(self, error: RequestError, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, then close the connection: the rest of the body is not wanted.

        Closing while the client still sends would make its system throw our answer away, so a little is swallowed.
        """
        note_error(scope, error)
        response = error_response(error, headers={"connection": "close"})
        await send({"type": "http.response.start", "status": error.status, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": bytes(response.body), "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                await self._swallow(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _swallow(self, receive: Receive) -> None:
        left_bytes = self._config.max_body_bytes
        while left_bytes > 0:
            message = await receive()
            left_bytes -= len(message.get("body", b""))
            if not message.get("more_body", False):
                return
