"""The client of one replica: its tokens as an async generator, its report, and its failures as our errors.

Knows HTTP and that a connection can be refused, reset, silent, or closed in the middle; all of that becomes
`UpstreamError`, which says that another replica may do better. Does not retry: that is a policy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import h11

from miniserve.errors import UpstreamError, broke_off, no_connection
from miniserve.gateway.connections import ReplicaConnection, ReplicaConnections
from miniserve.replica.wire import ReplicaReport, decode_error, decode_event, decode_report, encode_request
from miniserve.sse import SSEDecoder
from miniserve.types import Request, TokenEvent

CONNECT_TIMEOUT_S = 2.0  # loopback or one rack: a connection that takes longer will not come
SILENCE_TIMEOUT_S = 10.0  # five heartbeats missed: the process is stuck or gone without a word
IDLE_EXPIRY_S = 30.0  # drop idle connections before the replica does (`http_server.KEEP_ALIVE_S`)
_OK = 200


class RemoteReplica:
    """One replica behind a URL. Belongs to one event loop; `close` it there."""

    def __init__(self, url: str, *, silence_timeout_s: float = SILENCE_TIMEOUT_S) -> None:
        self.url = url
        self._silence_timeout_s = silence_timeout_s
        self._connections = ReplicaConnections(
            url,
            connect_timeout_s=CONNECT_TIMEOUT_S,
            silence_timeout_s=silence_timeout_s,
            idle_expiry_s=IDLE_EXPIRY_S,
        )

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        """Yield the replica's events; closing the generator early closes the connection, which aborts the work there.

        The request's deadline is read on the event loop's clock, as everything here is, and sent as the time left.

        Raises: Unreachable when no connection can be made; UpstreamError when it fails or ends early; the replica's
            own error otherwise.
        """
        body = encode_request(request, asyncio.get_running_loop().time())
        try:
            connection = await self._connections.take()
        except OSError as error:  # a TimeoutError is one
            raise no_connection() from error
        try:
            head = await connection.ask("POST", "/internal/generate", body)
            if head.status_code != _OK:
                raise decode_error(head.status_code, await connection.rest(), _header(head, b"retry-after"))
            decoder = SSEDecoder()
            while (chunk := await connection.data()) is not None:
                for data in decoder.feed(chunk):
                    event = decode_event(data)
                    if event.finish_reason is not None:
                        await _read_to_end(connection)
                    yield event
                    if event.finish_reason is not None:
                        return
        except TimeoutError:
            raise UpstreamError(f"the replica was silent for {self._silence_timeout_s:g} s") from None
        except (OSError, h11.ProtocolError) as error:
            raise broke_off() from error
        finally:
            self._connections.give_back(connection)
        raise UpstreamError("the replica ended its answer before it was complete")

    async def report(self, timeout_s: float) -> ReplicaReport:
        """Raises: UpstreamError when the replica does not answer properly within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                status, body = await self._get("/internal/stats")
        except (OSError, h11.ProtocolError) as error:
            raise UpstreamError(f"no report from the replica ({type(error).__name__})") from None
        if status != _OK:
            raise UpstreamError(f"no report from the replica (it answered {status})")
        return decode_report(body)

    async def _get(self, target: str) -> tuple[int, bytes]:
        connection = await self._connections.take()
        try:
            head = await connection.ask("GET", target)
            return head.status_code, await connection.rest()
        finally:
            self._connections.give_back(connection)

    async def close(self) -> None:
        self._connections.close()
        await asyncio.sleep(0)  # the transports end in the loop's next turn


def _header(head: h11.Response, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in head.headers if key == name), None)


async def _read_to_end(connection: ReplicaConnection) -> None:
    """Take the end of the body too: only a connection that was read to its end can be used again."""
    with contextlib.suppress(OSError, h11.ProtocolError):
        while await connection.data() is not None:
            pass
