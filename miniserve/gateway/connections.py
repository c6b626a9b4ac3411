"""HTTP to one replica: h11 on asyncio's streams, and the connections that wait to be used again.

A general client spends a third of the gateway's time for a request on what never happens here: redirects, cookies,
proxies, addresses to be joined, a lock around each read. This one writes a request in one piece, reads the answer as it
comes, and gives each wait for bytes the same limit.

Raises what the parts raise: OSError for the connection, TimeoutError for silence, h11.ProtocolError for no HTTP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from urllib.parse import urlsplit

import h11

MOST_IDLE = 64
_PIECE = 1 << 16  # bytes read at once
LONGEST_PLAIN = 4 << 20  # bytes of an answer that is read whole: a report, an error


class ReplicaConnection:
    """One connection, and one exchange at a time on it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, silence_timeout_s: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host
        self._silence_timeout_s = silence_timeout_s
        self._http = h11.Connection(h11.CLIENT)

    async def ask(self, method: str, target: str, body: bytes = b"") -> h11.Response:
        """Send a request and return the head of its answer."""
        headers = [("host", self._host), ("content-length", str(len(body)))]
        parts = (h11.Request(method=method, target=target, headers=headers), h11.Data(body), h11.EndOfMessage())
        self._writer.write(b"".join(self._http.send(part) or b"" for part in parts))  # one packet wakes the other once
        async with asyncio.timeout(self._silence_timeout_s):
            await self._writer.drain()
        while not isinstance(event := await self._next(), h11.Response):
            if not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("the answer has no head")
        return event

    async def data(self) -> bytes | None:
        """Return the next bytes of the answer's body; None at its end."""
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def rest(self) -> bytes:
        """Return what is left of the body."""
        body = b""
        while (piece := await self.data()) is not None:
            body += piece
            if len(body) > LONGEST_PLAIN:
                raise h11.RemoteProtocolError("the answer has no end")
        return body

    async def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(self._silence_timeout_s):
                self._http.receive_data(await self._reader.read(_PIECE))
        return event

    def starts_anew(self) -> bool:
        """Make ready for another exchange, if this one is complete and the other side has left the connection open."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE or not self.is_open():
            return False
        self._http.start_next_cycle()
        return True

    def is_open(self) -> bool:
        return not self._writer.is_closing() and not self._reader.at_eof()

    def close(self) -> None:
        """Let go of it at once, whatever is on its way."""
        self._writer.transport.abort()


class ReplicaConnections:
    """All connections to one address. Belongs to one event loop."""

    def __init__(self, url: str, *, connect_timeout_s: float, silence_timeout_s: float, idle_expiry_s: float) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        self._is_secure = parts.scheme == "https"
        self._host = parts.netloc
        self._connect_timeout_s = connect_timeout_s
        self._silence_timeout_s = silence_timeout_s
        self._idle_expiry_s = idle_expiry_s
        self._idle: deque[tuple[float, ReplicaConnection]] = deque()  # since when; the longest first
        self._used: set[ReplicaConnection] = set()

    async def take(self) -> ReplicaConnection:
        """Return a connection that is there, or a new one; `give_back` it. Raises: OSError, TimeoutError."""
        self._let_old_ones_go()
        while self._idle:
            connection = self._idle.pop()[1]
            if connection.is_open():
                break
            connection.close()
        else:
            connection = await self._connect()
        self._used.add(connection)
        return connection

    def give_back(self, connection: ReplicaConnection) -> None:
        """Keep it for the next exchange, if it can have one."""
        if connection not in self._used:
            return  # closed meanwhile, with all others
        self._used.remove(connection)
        if len(self._idle) < MOST_IDLE and connection.starts_anew():
            self._idle.append((asyncio.get_running_loop().time(), connection))
        else:
            connection.close()

    def close(self) -> None:
        """Close all of them: what is still being read breaks off."""
        for connection in (*self._used, *(idle for _, idle in self._idle)):
            connection.close()
        self._used.clear()
        self._idle.clear()

    async def _connect(self) -> ReplicaConnection:
        host, port = self._address
        async with asyncio.timeout(self._connect_timeout_s):
            reader, writer = await asyncio.open_connection(host, port, ssl=self._is_secure or None)
        return ReplicaConnection(reader, writer, self._host, self._silence_timeout_s)

    def _let_old_ones_go(self) -> None:
        now_s = asyncio.get_running_loop().time()
        while self._idle and now_s - self._idle[0][0] > self._idle_expiry_s:
            self._idle.popleft()[1].close()
